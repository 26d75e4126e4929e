import { expect, test } from "vitest";
import { linear, linePath, smoothed, timeTicks, valueNear, valueTicks } from "./scale.ts";

test("value ticks begin at zero, are round and hold the highest value", () => {
  expect(valueTicks(293, 4)).toEqual([0, 100, 200, 300]);
  expect(valueTicks(0.7, 4)).toEqual([0, 0.2, 0.4, 0.6, 0.8]);
  expect(valueTicks(0, 4).at(-1)).toBe(1);
  for (const max of [1, 3, 9.99, 10, 10.01, 47_000, 1e9]) {
    const ticks = valueTicks(max, 4);
    expect(ticks.at(-1)).toBeGreaterThanOrEqual(max);
    expect(ticks.length).toBeLessThanOrEqual(6);
  }
});

test("time ticks are round, within the range and not too many", () => {
  const from = Date.UTC(2026, 0, 1, 12, 0, 7);
  const ticks = timeTicks(from, from + 300_000, 5);
  expect(ticks.length).toBeLessThanOrEqual(5);
  for (const tick of ticks) expect(tick % 60_000).toBe(0);
  expect(ticks[0]).toBeGreaterThanOrEqual(from);
});

test("a range without extent does not divide by zero", () => {
  expect(linear(5, 5, 0, 100)(5)).toBe(0);
});

test("a path lifts the pen over nulls and marks lone points", () => {
  const same = (value: number) => value;
  const points = [
    { x: 0, y: 0 },
    { x: 1, y: 1 },
    { x: 2, y: null },
    { x: 3, y: 3 },
    { x: 4, y: null },
  ];
  expect(linePath(points, same, same)).toBe("M0.0 0.0L1.0 1.0M3.0 3.0h0");
});

test("smoothing takes the mean of what came before and begins anew after a gap", () => {
  const points = [2, 4, 6, null, 8].map((y, x) => ({ x, y }));
  expect(smoothed(points, 2).map((point) => point.y)).toEqual([2, 3, 5, null, 8]);
});

test("the value under the cursor is the nearest one, or none in a gap", () => {
  const points = [
    { x: 0, y: 1 },
    { x: 1_000, y: 2 },
    { x: 1_001, y: null },
    { x: 20_000, y: 3 },
  ];
  expect(valueNear(points, 900, 500)).toBe(2);
  expect(valueNear(points, 10_000, 500)).toBeNull();
});
