import { expect, test } from "vitest";
import { backoffMs } from "./backoff.ts";

test("delays double from half a second to ten seconds and stay there", () => {
  const longest = [1, 2, 3, 4, 5, 6, 7, 50, 5_000].map((attempt) => backoffMs(attempt, 1));
  expect(longest).toEqual([500, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000, 10_000, 10_000]);
});

test("jitter takes away at most half", () => {
  expect(backoffMs(3, 0)).toBe(1_000);
  expect(backoffMs(3, 0.5)).toBe(1_500);
});
