/**
 * What the node says, in the page's own types.
 *
 * Owns the translation from wire shapes; knows neither sockets nor views. Every parser is total:
 * missing or mistyped fields become zero, null or an empty list, and only what has no meaning
 * without its key (a record without id, an overview without time) is dropped.
 */
import { asArray, asIdentifier, asNumber, asNumberOrNull, asObject, asText, asTextOrNull, parseJson } from "./json.ts";

export interface TopicRate {
  name: string;
  partitions: number;
  recordsTotal: number;
  recordsPerS: number;
  logStart: number;
  highWatermark: number;
}

export interface GroupLag {
  group: string;
  topic: string;
  committed: number | null;
  highWatermark: number;
  lag: number;
}

export interface LogCounters {
  state: string;
  records: number;
  batches: number;
  payloadBytes: number;
  writtenBytes: number;
  fdatasyncs: number;
}

export interface Overview {
  tsMs: number;
  topics: TopicRate[];
  groups: GroupLag[];
  log: LogCounters;
  mqtt: { connections: number; receivedTotal: number };
}

export interface Counted {
  name: string;
  count: number;
}

export interface TopicQuality {
  topic: string;
  count: number;
  accepted: number;
  recordsWithGaps: number;
  missingFields: number;
  fallbackTimestamps: number;
  rejected: number;
  duplicates: number;
  lastEventTime: string | null;
  lastReceivedTime: string | null;
  degradedShare: number;
}

export interface Quality {
  topics: TopicQuality[];
  mostFailing: Counted[];
  mostDegraded: string | null;
}

export type Encoding = "utf-8" | "base64";

export interface RejectedRecord {
  id: string;
  kind: string | null;
  mqttTopic: string | null;
  payload: string;
  encoding: Encoding;
  /** The node holds more of the payload than it sent. */
  truncated: boolean;
  receivedAt: string;
  errors: { code: string; message: string }[];
  source: { topic: string; partition: number; offset: number } | null;
}

export interface SpeedReading {
  sensorId: string;
  speed: number;
  /** Milliseconds since the epoch, as the sensor said; null where it said nothing usable. */
  tsMs: number | null;
  /** It came with the latest readings of all sensors, and may be known already. */
  snapshot: boolean;
}

export interface TailRecord {
  partition: number;
  offset: number;
  timestampMs: number | null;
  key: string | null;
  keyEncoding: Encoding;
  /** Null is a tombstone. */
  value: string | null;
  encoding: Encoding;
  /** The record's value is longer than what was sent. */
  truncated: boolean;
}

export interface Health {
  ok: boolean;
  version: string;
  clusterId: string;
  leaderEpoch: number | null;
  uptimeS: number;
  log: { state: string; reason: string | null; durability: string };
  mqttConnections: number | null;
}

export interface PartitionOffsets {
  partition: number;
  logStart: number;
  highWatermark: number;
  sizeBytes: number;
}

export interface TopicDetail {
  name: string;
  internal: boolean;
  partitions: PartitionOffsets[];
}

/** One text frame of `/ws/live`. */
export type Frame =
  | { type: "welcome" }
  | { type: "update"; room: string; data: unknown }
  | { type: "skipped"; room: string; count: number }
  | { type: "error"; room: string; sentence: string };

export function parseFrame(text: string): Frame | null {
  const frame = asObject(parseJson(text));
  switch (frame["type"]) {
    case "welcome":
      return { type: "welcome" };
    case "update":
      return { type: "update", room: asText(frame["room"]), data: frame["data"] };
    case "skipped":
      return { type: "skipped", room: asText(frame["room"]), count: asNumber(frame["count"]) };
    case "error":
      return { type: "error", room: asText(frame["room"]), sentence: asText(frame["error"]) };
    default:
      return null;
  }
}

export function parseOverview(data: unknown): Overview | null {
  const overview = asObject(data);
  const tsMs = asNumberOrNull(overview["ts_ms"]);
  if (tsMs === null) return null;
  const log = asObject(overview["log"]);
  const mqtt = asObject(overview["mqtt"]);
  return {
    tsMs,
    topics: asArray(overview["topics"]).map(parseTopicRate),
    groups: asArray(overview["groups"]).map(parseGroupLag),
    log: {
      state: asText(log["state"]),
      records: asNumber(log["records"]),
      batches: asNumber(log["batches"]),
      payloadBytes: asNumber(log["payload_bytes"]),
      writtenBytes: asNumber(log["written_bytes"]),
      fdatasyncs: asNumber(log["fdatasyncs"]),
    },
    mqtt: {
      connections: asNumber(mqtt["connections"]),
      receivedTotal: asNumber(mqtt["received_total"]),
    },
  };
}

function parseTopicRate(data: unknown): TopicRate {
  const topic = asObject(data);
  const partitions = topic["partitions"];
  return {
    name: asText(topic["name"]),
    partitions: Array.isArray(partitions) ? partitions.length : asNumber(partitions),
    recordsTotal: asNumber(topic["records_total"]),
    recordsPerS: asNumber(topic["records_per_s"]),
    logStart: asNumber(topic["log_start"]),
    highWatermark: asNumber(topic["high_watermark"]),
  };
}

function parseGroupLag(data: unknown): GroupLag {
  const group = asObject(data);
  return {
    group: asText(group["group"]),
    topic: asText(group["topic"]),
    committed: asNumberOrNull(group["committed"]),
    highWatermark: asNumber(group["high_watermark"]),
    lag: asNumber(group["lag"]),
  };
}

export function parseQuality(data: unknown): Quality {
  const quality = asObject(data);
  return {
    topics: asArray(quality["topics"]).map(parseTopicQuality),
    mostFailing: asArray(quality["most_failing"]).map((entry) => {
      const failing = asObject(entry);
      return { name: asText(failing["error"]), count: asNumber(failing["count"]) };
    }),
    mostDegraded: asTextOrNull(quality["most_degraded"]),
  };
}

function parseTopicQuality(data: unknown): TopicQuality {
  const topic = asObject(data);
  return {
    topic: asText(topic["topic"]),
    count: asNumber(topic["count"]),
    accepted: asNumber(topic["accepted"]),
    recordsWithGaps: asNumber(topic["missing_field_records"]),
    missingFields: asNumber(topic["missing_fields"]),
    fallbackTimestamps: asNumber(topic["fallback_timestamps"]),
    rejected: asNumber(topic["rejected"]),
    duplicates: asNumber(topic["duplicates"]),
    lastEventTime: asTextOrNull(topic["last_event_time"]),
    lastReceivedTime: asTextOrNull(topic["last_received_time"]),
    degradedShare: asNumber(topic["degraded_share"]),
  };
}

function parseEncoding(value: unknown): Encoding {
  return value === "base64" ? "base64" : "utf-8";
}

export function parseRejected(data: unknown): RejectedRecord | null {
  const record = asObject(data);
  const id = asIdentifier(record["id"]);
  if (id === "") return null;
  const source = asObject(record["source"]);
  const sourceTopic = asTextOrNull(source["topic"]);
  return {
    id,
    kind: asTextOrNull(record["kind"]),
    mqttTopic: asTextOrNull(record["mqtt_topic"]),
    payload: asText(record["payload"]),
    encoding: parseEncoding(record["payload_encoding"]),
    truncated: record["payload_truncated"] === true,
    receivedAt: asText(record["received_at"]),
    errors: asArray(record["errors"]).map((entry) => {
      const error = asObject(entry);
      return { code: asText(error["code"]), message: asText(error["message"]) };
    }),
    source:
      sourceTopic === null
        ? null
        : {
            topic: sourceTopic,
            partition: asNumber(source["partition"]),
            offset: asNumber(source["offset"]),
          },
  };
}

/** The room sends lists, `/invalid/recent` an object with `records`, and one record may come alone. */
export function parseRejectedList(data: unknown): RejectedRecord[] {
  const records = asObject(data)["records"];
  const list = Array.isArray(data) ? data : Array.isArray(records) ? records : [data];
  return list.map(parseRejected).filter((record) => record !== null);
}

/** The first update carries every sensor under `latest`; later ones carry one reading. */
export function parseSpeeds(data: unknown): SpeedReading[] {
  const latest = asObject(data)["latest"];
  const list = Array.isArray(latest) ? latest : [data];
  const snapshot = list === latest;
  return list.map((reading) => parseSpeed(reading, snapshot)).filter((reading) => reading !== null);
}

function parseSpeed(data: unknown, snapshot: boolean): SpeedReading | null {
  const reading = asObject(data);
  const sensorId = asIdentifier(reading["sensor_id"]);
  const speed = asNumberOrNull(reading["speed"]);
  if (sensorId === "" || speed === null) return null;
  const ts = asNumberOrNull(reading["ts"]);
  return { sensorId, speed, tsMs: ts === null ? null : epochToMs(ts), snapshot };
}

/** Sensors count in seconds; beyond the year 5000 in seconds can only mean milliseconds. */
function epochToMs(ts: number): number {
  return ts > 1e11 ? ts : ts * 1000;
}

export function parseTailRecord(data: unknown): TailRecord | null {
  const record = asObject(data);
  const partition = asNumberOrNull(record["partition"]);
  const offset = asNumberOrNull(record["offset"]);
  if (partition === null || offset === null) return null;
  return {
    partition,
    offset,
    timestampMs: asNumberOrNull(record["timestamp_ms"]),
    key: typeof record["key"] === "string" ? record["key"] : null,
    keyEncoding: parseEncoding(record["key_encoding"]),
    value: typeof record["value"] === "string" ? record["value"] : null,
    encoding: parseEncoding(record["encoding"]),
    truncated: record["truncated"] === true,
  };
}

export function parseHealth(data: unknown): Health {
  const health = asObject(data);
  const log = asObject(health["log"]);
  return {
    ok: health["status"] === "ok",
    version: asText(health["version"]),
    clusterId: asText(health["cluster_id"]),
    leaderEpoch: asNumberOrNull(health["leader_epoch"]),
    uptimeS: asNumber(health["uptime_s"]),
    log: {
      state: asText(log["state"]),
      reason: asTextOrNull(log["reason"]),
      durability: asText(log["durability"]),
    },
    mqttConnections: asNumberOrNull(asObject(health["mqtt"])["connections"]),
  };
}

export function parseTopicDetails(data: unknown): TopicDetail[] {
  return asArray(data).map((entry) => {
    const topic = asObject(entry);
    return {
      name: asText(topic["name"]),
      internal: topic["internal"] === true,
      partitions: asArray(topic["partitions"]).map((item) => {
        const partition = asObject(item);
        return {
          partition: asNumber(partition["partition"]),
          logStart: asNumber(partition["log_start_offset"]),
          highWatermark: asNumber(partition["high_watermark"]),
          sizeBytes: asNumber(partition["size_bytes"]),
        };
      }),
    };
  });
}
