/**
 * Which topics the chart draws on their own, and in which colour.
 *
 * A line that changed its colour while being watched would lie; a topic keeps its slot for as long
 * as it is drawn.
 */

export const SLOTS = 6;

export type Slots = ReadonlyMap<string, number>;

/** `ranked`: topic names, busiest first. */
export function assignSlots(previous: Slots, ranked: readonly string[]): Slots {
  const drawn = new Set(ranked.slice(0, SLOTS));
  const slots = new Map([...previous].filter(([name]) => drawn.has(name)));
  const free = Array.from({ length: SLOTS }, (_, slot) => slot).filter((slot) => ![...slots.values()].includes(slot));
  for (const name of drawn) {
    const slot = slots.has(name) ? undefined : free.shift();
    if (slot !== undefined) slots.set(name, slot);
  }
  return slots;
}

/** Names by their sum of rates, busiest first; topics without a record in that time are left out. */
export function rankByRate(
  samples: readonly { rates: ReadonlyMap<string, number> }[],
  shown: (name: string) => boolean,
): string[] {
  const sums = new Map<string, number>();
  for (const { rates } of samples) {
    for (const [name, perS] of rates) {
      if (shown(name)) sums.set(name, (sums.get(name) ?? 0) + perS);
    }
  }
  return [...sums]
    .filter(([, sum]) => sum > 0)
    .sort(([nameA, a], [nameB, b]) => b - a || nameA.localeCompare(nameB))
    .map(([name]) => name);
}
