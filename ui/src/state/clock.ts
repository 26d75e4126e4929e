/** The page's second hand: one timer for everything that counts or ages. */
import { signal } from "@preact/signals";

export const nowMs = signal(Date.now());

export function startClock(): void {
  setInterval(() => {
    nowMs.value = Date.now();
  }, 1_000);
}
