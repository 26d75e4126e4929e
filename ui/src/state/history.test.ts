import { expect, test } from "vitest";
import { parseOverview, type Overview } from "../node/messages.ts";
import { counterRate, extendHistory, gapsOf, HISTORY_MS, seriesOf, type History } from "./history.ts";

function overview(tsMs: number, perS: number, fdatasyncs = 0): Overview {
  const parsed = parseOverview({ ts_ms: tsMs, topics: [{ name: "t", records_per_s: perS }], log: { fdatasyncs } });
  if (!parsed) throw new Error("no overview");
  return parsed;
}

const build = (...overviews: Overview[]) =>
  overviews.reduce<History>((history, next) => extendHistory(history, next, history.length === 0), []);
const rates = (history: History) => seriesOf(history, 0, (sample) => sample.rates.get("t") ?? null);

test("the first zero is unknown, later zeros are zeros", () => {
  expect(rates(build(overview(1_000, 0), overview(2_000, 0)))).toEqual([
    { x: 1_000, y: null },
    { x: 2_000, y: 0 },
  ]);
});

test("the zero of a node that came back within a moment is no collapse", () => {
  const history = extendHistory(build(overview(1_000, 9), overview(2_000, 9)), overview(3_000, 0), true);
  expect(rates(history).at(-1)).toEqual({ x: 3_000, y: null });
});

test("a silence breaks the line and is a gap; one late update is not", () => {
  const history = build(overview(1_000, 5), overview(4_000, 5), overview(14_000, 0.5), overview(15_000, 6));
  expect(rates(history)).toEqual([
    { x: 1_000, y: 5 },
    { x: 4_000, y: 5 },
    { x: 4_001, y: null },
    { x: 14_000, y: 0.5 },
    { x: 15_000, y: 6 },
  ]);
  expect(gapsOf(history, 0)).toEqual([{ from: 4_000, to: 14_000 }]);
  expect(gapsOf(history, 10_000)).toEqual([{ from: 10_000, to: 14_000 }]);
});

test("what is older than the longest range goes", () => {
  const history = build(overview(0, 1), overview(HISTORY_MS, 2), overview(HISTORY_MS + 1_000, 3));
  expect(history.map((sample) => sample.tsMs)).toEqual([HISTORY_MS, HISTORY_MS + 1_000]);
});

test("a clock set back overwrites its future, and a repeated snapshot counts once", () => {
  const history = build(overview(1_000, 1), overview(9_000, 2), overview(5_000, 3), overview(5_000, 4));
  expect(history.map((sample) => sample.tsMs)).toEqual([1_000, 5_000]);
});

test("a counter's rate is taken over the last ten seconds", () => {
  const history = build(
    ...Array.from({ length: 31 }, (_, second) => overview(second * 1_000, 0, second < 20 ? 0 : (second - 20) * 50)),
  );
  expect(counterRate(history, (log) => log.fdatasyncs)).toBe(50);
});

test("a restarted counter is not compared with the one before", () => {
  const history = build(
    overview(1_000, 0, 900),
    overview(2_000, 0, 1_000),
    overview(3_000, 0, 10),
    overview(4_000, 0, 30),
  );
  expect(counterRate(history, (log) => log.fdatasyncs)).toBe(20);
  expect(counterRate(build(overview(1_000, 0, 5)), (log) => log.fdatasyncs)).toBeNull();
  expect(counterRate([], (log) => log.fdatasyncs)).toBeNull();
});
