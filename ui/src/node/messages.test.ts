import { expect, test } from "vitest";
import {
  parseFrame,
  parseHealth,
  parseOverview,
  parseQuality,
  parseRejectedList,
  parseSpeeds,
  parseTailRecord,
  parseTopicDetails,
} from "./messages.ts";

test("frames that are not JSON, not objects or of an unknown type are nothing", () => {
  for (const text of ["", "{", "null", "[]", "42", '{"type":"later"}']) expect(parseFrame(text)).toBeNull();
});

test("the frames of the live socket are told apart", () => {
  expect(parseFrame('{"type":"welcome"}')).toEqual({ type: "welcome" });
  expect(parseFrame('{"type":"update","room":"speed","data":{"a":1}}')).toEqual({
    type: "update",
    room: "speed",
    data: { a: 1 },
  });
  expect(parseFrame('{"type":"skipped","room":"topic:t","count":7}')).toEqual({
    type: "skipped",
    room: "topic:t",
    count: 7,
  });
  expect(parseFrame('{"type":"error","room":"invalid","error":"cannot be read"}')).toEqual({
    type: "error",
    room: "invalid",
    sentence: "cannot be read",
  });
});

test("an overview needs its time; everything else has a default", () => {
  expect(parseOverview({ topics: [] })).toBeNull();
  const overview = parseOverview({ ts_ms: 5, topics: [{ name: "t", partitions: 3, records_per_s: "fast" }, null] });
  expect(overview?.topics[0]).toEqual({
    name: "t",
    partitions: 3,
    recordsTotal: 0,
    recordsPerS: 0,
    logStart: 0,
    highWatermark: 0,
  });
  expect(overview?.topics[1]?.name).toBe("");
  expect(overview?.log).toMatchObject({ state: "", fdatasyncs: 0 });
  expect(overview?.mqtt.connections).toBe(0);
});

test("numbers that are not finite do not get in", () => {
  expect(parseOverview({ ts_ms: Number.NaN })).toBeNull();
  expect(parseSpeeds({ sensor_id: "s", speed: Number.POSITIVE_INFINITY, ts: 1 })).toEqual([]);
});

test("a quality summary is read field by field", () => {
  const quality = parseQuality({
    topics: [
      {
        topic: "inverters",
        accepted: 9,
        missing_field_records: 2,
        missing_fields: 5,
        degraded_share: 0.25,
        last_event_time: "2026-01-01T00:00:00Z",
      },
    ],
    most_failing: [{ error: "payload_not_json", count: 3 }],
    most_degraded: "inverters",
  });
  expect(quality.topics[0]).toMatchObject({
    topic: "inverters",
    recordsWithGaps: 2,
    missingFields: 5,
    degradedShare: 0.25,
    lastReceivedTime: null,
  });
  expect(quality.mostFailing).toEqual([{ name: "payload_not_json", count: 3 }]);
  expect(parseQuality({}).mostDegraded).toBeNull();
});

test("rejected records come as a list, as a page or alone; those without id are dropped", () => {
  const record = {
    id: 7,
    kind: "grid",
    payload: "AAE=",
    payload_encoding: "base64",
    payload_truncated: true,
    errors: [{ code: "c", message: "m" }],
  };
  for (const shape of [[record], { records: [record] }, record]) {
    const [parsed] = parseRejectedList(shape);
    expect(parsed).toMatchObject({ id: "7", encoding: "base64", truncated: true, mqttTopic: null, source: null });
  }
  expect(parseRejectedList([{ kind: "grid" }])).toEqual([]);
  expect(parseRejectedList({ records: [] })).toEqual([]);
});

test("speeds come alone or as the latest of all; seconds become milliseconds", () => {
  expect(parseSpeeds({ latest: [{ sensor_id: "a", speed: 1, ts: 1_700_000_000 }] })).toEqual([
    { sensorId: "a", speed: 1, tsMs: 1_700_000_000_000, snapshot: true },
  ]);
  expect(parseSpeeds({ sensor_id: "b", speed: 2.5, ts: 1_700_000_000_123 })).toEqual([
    { sensorId: "b", speed: 2.5, tsMs: 1_700_000_000_123, snapshot: false },
  ]);
  expect(parseSpeeds({ latest: [] })).toEqual([]);
});

test("a tail record needs its place; key and value may be null", () => {
  expect(parseTailRecord({ offset: 1 })).toBeNull();
  expect(parseTailRecord({ partition: 0, offset: 1, key: null, value: null })).toEqual({
    partition: 0,
    offset: 1,
    timestampMs: null,
    key: null,
    keyEncoding: "utf-8",
    value: null,
    encoding: "utf-8",
    truncated: false,
  });
});

test("health of a failed node carries its reason", () => {
  const health = parseHealth({
    status: "failed",
    log: { state: "failed", reason: "EIO", durability: "fsync" },
    mqtt: { connections: 2 },
  });
  expect(health).toMatchObject({
    ok: false,
    log: { state: "failed", reason: "EIO", durability: "fsync" },
    mqttConnections: 2,
  });
});

test("topic details sum nothing and invent nothing", () => {
  expect(
    parseTopicDetails([
      {
        name: "t",
        internal: true,
        partitions: [{ partition: 1, log_start_offset: 2, high_watermark: 3, size_bytes: 4 }],
      },
    ]),
  ).toEqual([
    { name: "t", internal: true, partitions: [{ partition: 1, logStart: 2, highWatermark: 3, sizeBytes: 4 }] },
  ]);
  expect(parseTopicDetails("nonsense")).toEqual([]);
});
