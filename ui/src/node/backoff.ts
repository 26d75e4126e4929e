/** Reconnection delays: doubling, with a ceiling and jitter. */

const FIRST_MS = 500;
const CEILING_MS = 10_000;

/**
 * The delay before attempt number `attempt` (counted from 1).
 *
 * Between half and the whole of the doubled delay, so that the pages of a site whose node came
 * back do not all knock in the same instant. `random` is in [0, 1).
 */
export function backoffMs(attempt: number, random: number): number {
  const whole = Math.min(CEILING_MS, FIRST_MS * 2 ** Math.min(Math.max(attempt, 1) - 1, 20));
  return Math.round(whole / 2 + (whole / 2) * random);
}
