import { expect, test } from "vitest";
import type { RejectedRecord, TailRecord } from "../node/messages.ts";
import { assignSlots, rankByRate, SLOTS } from "./colours.ts";
import { filterRejected, mergeRejected, REJECTED_MAX } from "./rejected.ts";
import { dialMax, readSpeeds, sensorNames, SENSORS_MAX } from "./speed.ts";
import { breakTail, extendTail, TAIL_MAX, tailOf } from "./tail.ts";

function rejected(id: number, overrides: Partial<RejectedRecord> = {}): RejectedRecord {
  return {
    id: String(id),
    kind: "grid",
    mqttTopic: null,
    payload: "x",
    encoding: "utf-8",
    truncated: false,
    receivedAt: new Date(id * 1_000).toISOString(),
    errors: [{ code: "payload_not_json", message: "the payload is not JSON" }],
    source: null,
    ...overrides,
  };
}

function tailed(offset: number): TailRecord {
  return {
    partition: 0,
    offset,
    timestampMs: 0,
    key: null,
    keyEncoding: "utf-8",
    value: "v",
    encoding: "utf-8",
    truncated: false,
  };
}

test("rejected records are listed newest first and once", () => {
  const list = mergeRejected([rejected(2), rejected(1)], [rejected(3), rejected(2)]);
  expect(list.map((record) => record.id)).toEqual(["3", "2", "1"]);
});

test("of one instant the higher id is the newer, by number", () => {
  const receivedAt = "2026-01-01T00:00:00Z";
  const list = mergeRejected([], [rejected(9, { receivedAt }), rejected(10, { receivedAt })]);
  expect(list.map((record) => record.id)).toEqual(["10", "9"]);
});

test("the list of rejected records is bounded and forgets the oldest", () => {
  const many = Array.from({ length: REJECTED_MAX + 5 }, (_, index) => rejected(index));
  const list = mergeRejected([], many);
  expect(list).toHaveLength(REJECTED_MAX);
  expect(list.at(-1)?.id).toBe("5");
});

test("the filter wants every word, in topic or reason", () => {
  const list = [rejected(1), rejected(2, { kind: "pumps", errors: [{ code: "unsupported_topic", message: "" }] })];
  expect(filterRejected(list, " PUMPS unsupp ").map((record) => record.id)).toEqual(["2"]);
  expect(filterRejected(list, "pumps json")).toEqual([]);
  expect(filterRejected(list, "")).toBe(list);
});

test("the tail shows the newest first, bounded, each once", () => {
  let tail = extendTail(tailOf("t"), [tailed(1), tailed(2)]);
  tail = extendTail(tail, [tailed(2), tailed(3)]);
  expect(tail.entries.map((entry) => entry.key)).toEqual(["0:3", "0:2", "0:1"]);
  tail = extendTail(
    tail,
    Array.from({ length: 500 }, (_, offset) => tailed(offset + 10)),
  );
  expect(tail.entries).toHaveLength(TAIL_MAX);
  expect(tail.entries[0]?.key).toBe("0:509");
});

test("a paused tail does not move", () => {
  const tail = { ...tailOf("t"), paused: true };
  expect(extendTail(tail, [tailed(1)])).toBe(tail);
});

test("a break is shown once, and never at the beginning of nothing", () => {
  expect(breakTail(tailOf("t"), 1, "lost").entries).toEqual([]);
  const tail = breakTail(extendTail(tailOf("t"), [tailed(1)]), 1, "lost");
  expect(tail.entries[0]).toMatchObject({ kind: "break", sentence: "lost" });
  expect(breakTail(tail, 2, "again")).toBe(tail);
});

test("every sensor keeps its own latest reading and history", () => {
  let sensors = readSpeeds(
    new Map(),
    [
      { sensorId: "b", speed: 1, tsMs: null, snapshot: false },
      { sensorId: "a", speed: 2, tsMs: 5, snapshot: false },
    ],
    1_000,
  );
  sensors = readSpeeds(sensors, [{ sensorId: "b", speed: 3, tsMs: null, snapshot: false }], 2_000);
  expect(sensors.get("b")?.history).toEqual([
    { x: 1_000, y: 1 },
    { x: 2_000, y: 3 },
  ]);
  expect(sensors.get("b")?.heardAtMs).toBe(2_000);
  expect(sensors.get("a")?.latest.speed).toBe(2);
});

test("a reading told again by a snapshot is not a new one", () => {
  const reading = { sensorId: "a", speed: 1, tsMs: 5, snapshot: false };
  const sensors = readSpeeds(new Map(), [reading], 1_000);
  expect(readSpeeds(sensors, [{ ...reading, snapshot: true }], 9_000).get("a")).toEqual(sensors.get("a"));
  expect(readSpeeds(sensors, [reading], 9_000).get("a")?.heardAtMs).toBe(9_000);
  expect(readSpeeds(sensors, [{ ...reading, tsMs: 6, snapshot: true }], 9_000).get("a")?.heardAtMs).toBe(9_000);
});

test("a long silence breaks the line of a sensor", () => {
  let sensors = readSpeeds(new Map(), [{ sensorId: "a", speed: 1, tsMs: null, snapshot: false }], 1_000);
  sensors = readSpeeds(sensors, [{ sensorId: "a", speed: 2, tsMs: null, snapshot: false }], 31_000);
  expect(sensors.get("a")?.history).toEqual([
    { x: 1_000, y: 1 },
    { x: 1_001, y: null },
    { x: 31_000, y: 2 },
  ]);
});

test("the table of sensors is bounded and sorted as people count", () => {
  const many = Array.from({ length: SENSORS_MAX + 1 }, (_, index) => ({
    sensorId: `s-${index}`,
    speed: 1,
    tsMs: null,
    snapshot: false,
  }));
  const sensors = readSpeeds(new Map(), many, 0);
  expect(sensors.size).toBe(SENSORS_MAX);
  expect(sensorNames(sensors).slice(0, 11).at(-1)).toBe("s-10");
});

test("the dial holds what was seen", () => {
  const at = (speed: number) => {
    const sensor = readSpeeds(new Map(), [{ sensorId: "a", speed, tsMs: null, snapshot: false }], 0).get("a");
    if (!sensor) throw new Error("no sensor");
    return dialMax(sensor);
  };
  expect([0, 60, 61, 300, 1_200].map(at)).toEqual([60, 60, 120, 400, 1_500]);
});

test("a topic keeps its colour while it is drawn, and a freed colour is used again", () => {
  const names = Array.from({ length: SLOTS }, (_, index) => `t${index}`);
  const first = assignSlots(new Map(), names);
  const second = assignSlots(first, ["new", ...names.slice(1).reverse()]);
  for (const name of names.slice(1)) expect(second.get(name)).toBe(first.get(name));
  expect(second.get("new")).toBe(first.get("t0"));
  expect(second.has("t0")).toBe(false);
  expect(second.size).toBe(SLOTS);
});

test("the busiest topics come first, silent and hidden ones not at all", () => {
  const samples = [
    {
      rates: new Map([
        ["a", 1],
        ["b", 0],
        ["c", 5],
        ["hidden", 9],
      ]),
    },
    {
      rates: new Map([
        ["a", 1],
        ["c", 1],
      ]),
    },
  ];
  expect(rankByRate(samples, (name) => name !== "hidden")).toEqual(["c", "a"]);
});
