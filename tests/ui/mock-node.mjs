/**
 * A node that does what it is told: the dashboard's API without a log behind it.
 *
 * It exists to bring about what a real node does rarely or never on request: a failed log, a
 * refused token, a connection that hangs without closing. What the page does with a real node is
 * tested in node.test.mjs.
 */
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { WebSocketServer } from "ws";

export const CLIENT = { id: "dashboard", secret: "a+secret/with%signs=" };

const CONTENT_TYPES = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".css": "text/css",
  ".svg": "image/svg+xml",
};
const SECURITY_POLICY = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'";

const TOPICS = [
  { name: "__group_offsets", base: 0.4, partitions: 1 },
  { name: "mqtt.unrouted", base: 0, partitions: 1 },
  { name: "speed-events", base: 40, partitions: 6 },
  { name: "telemetry.cleaned", base: 255, partitions: 6 },
  { name: "telemetry.dlq", base: 6, partitions: 6 },
  { name: "telemetry.raw", base: 262, partitions: 6 },
  { name: "transaction_log", base: 118, partitions: 6 },
  { name: "transaction_requests", base: 120, partitions: 6 },
  { name: "webhook_dispatch", base: 31, partitions: 6 },
  { name: "weather.service.event.updated", base: 0.3, partitions: 1 },
];
const GROUPS = [
  { group: "audit-group", topic: "transaction_log", lag: 3 },
  { group: "ledger-writer-group", topic: "transaction_log", lag: 41 },
  { group: "speed-writer", topic: "speed-events", lag: 0 },
  { group: "telemetry-writer", topic: "telemetry.raw", lag: 12 },
  { group: "slow-consumer", topic: "telemetry.cleaned", lag: 18_204 },
];

export class MockNode {
  constructor({ distribution, empty = false }) {
    this.distribution = distribution;
    this.empty = empty;
    this.expiresInS = 3600;
    this.logFailure = null;
    this.refusing = false;
    this.silent = false;
    this.tokens = new Set();
    this.sockets = new Map();
    this.hellos = [];
    this.second = 0;
    this.rejected = empty
      ? []
      : Array.from({ length: 50 }, (_, index) => sampleRejected(index + 1, Date.now() - (50 - index) * 7_000));
    this.sensors = new Map();
  }

  async start(port = 0) {
    this.server = createServer((request, response) => {
      this.answer(request, response).catch(() => response.destroy());
    });
    this.webSockets = new WebSocketServer({ noServer: true });
    this.server.on("upgrade", (request, socket, head) => {
      if (request.url !== "/ws/live") return socket.destroy();
      this.webSockets.handleUpgrade(request, socket, head, (webSocket) => this.welcome(webSocket));
    });
    await new Promise((resolve) => this.server.listen(port, "127.0.0.1", resolve));
    this.port = this.server.address().port;
    this.ticker = setInterval(() => this.tick(), 1_000);
    this.faster = setInterval(() => this.tickFast(), 250);
  }

  get url() {
    return `http://127.0.0.1:${this.port}/`;
  }

  get link() {
    return `${this.url}#client_id=${encodeURIComponent(CLIENT.id)}&client_secret=${encodeURIComponent(CLIENT.secret)}`;
  }

  async stop() {
    clearInterval(this.ticker);
    clearInterval(this.faster);
    for (const socket of this.sockets.keys()) socket.terminate();
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }

  /** Every token issued so far becomes worthless, and its connections are closed as the contract says. */
  revokeTokens() {
    this.tokens.clear();
    for (const socket of this.sockets.keys()) socket.close(4401);
  }

  reject(record) {
    this.rejected.unshift(record);
    this.send("invalid", [record]);
  }

  measure(sensorId, speed) {
    const reading = {
      sensor_id: sensorId,
      speed,
      ts: Math.floor(Date.now() / 1000),
    };
    this.sensors.set(sensorId, reading);
    this.send("speed", reading);
  }

  send(room, data) {
    if (this.silent) return;
    for (const [socket, rooms] of this.sockets) {
      if (rooms.has(room)) socket.send(JSON.stringify({ type: "update", room, data }));
    }
  }

  skip(room, count) {
    for (const [socket, rooms] of this.sockets) {
      if (rooms.has(room)) socket.send(JSON.stringify({ type: "skipped", room, count }));
    }
  }

  roomsAsked() {
    return new Set([...this.sockets.values()].flatMap((rooms) => [...rooms]));
  }

  welcome(socket) {
    socket.on("close", () => this.sockets.delete(socket));
    socket.on("message", (bytes) => {
      const message = JSON.parse(bytes.toString());
      const rooms = this.sockets.get(socket);
      if (message.type === "hello") {
        this.hellos.push(Date.now());
        if (this.silent) return;
        if (this.refusing || !this.tokens.has(message.token)) return socket.close(4401);
        this.sockets.set(socket, new Set());
        socket.send(JSON.stringify({ type: "welcome" }));
      } else if (message.type === "subscribe") {
        for (const room of message.rooms) {
          rooms.add(room);
          this.snapshot(socket, room);
        }
      } else if (message.type === "unsubscribe") {
        for (const room of message.rooms) rooms.delete(room);
      }
    });
  }

  snapshot(socket, room) {
    const data = {
      overview: () => this.overview(),
      quality: () => this.quality(),
      invalid: () => this.rejected.slice(0, 50),
      speed: () => ({ latest: [...this.sensors.values()] }),
    }[room];
    if (data && !this.silent) socket.send(JSON.stringify({ type: "update", room, data: data() }));
  }

  tick() {
    this.second += 1;
    this.send("overview", this.overview());
    if (this.second % 3 === 0) this.send("quality", this.quality());
    if (!this.empty && this.second % 9 === 0) this.reject(sampleRejected(this.rejected.length + 1, Date.now()));
  }

  tickFast() {
    if (this.empty) return;
    const at = Date.now() / 1000;
    for (let sensor = 1; sensor <= 4; sensor += 1) {
      this.measure(
        `sensor-${sensor}`,
        Math.round(72 + 30 * Math.sin(at / 9 + sensor) + 5 * Math.sin(at * 1.7 * sensor)),
      );
    }
    for (const [, rooms] of this.sockets) {
      for (const room of rooms) if (room.startsWith("topic:")) this.send(room, sampleTail(this.second * 4));
    }
  }

  overview() {
    const now = Date.now();
    const running = this.logFailure === null;
    const topics = TOPICS.map((topic) => {
      const wave = 1 + 0.18 * Math.sin(now / 17_000 + topic.base) + 0.05 * Math.sin(now / 1_900 + topic.partitions);
      const perS = this.empty || !running ? 0 : Math.round(topic.base * wave * 10) / 10;
      const total = this.empty ? 0 : Math.round(topic.base * 3600 + topic.base * this.second);
      return {
        name: topic.name,
        partitions: topic.partitions,
        records_total: total,
        records_per_s: perS,
        log_start: Math.floor(total / 5),
        high_watermark: total,
      };
    });
    return {
      ts_ms: now,
      topics,
      groups: this.empty
        ? []
        : GROUPS.map((group) => ({
            group: group.group,
            topic: group.topic,
            committed: 900_000 + this.second * 250,
            high_watermark: 900_000 + this.second * 250 + group.lag,
            lag: Math.max(0, Math.round(group.lag * (1 + 0.4 * Math.sin(now / 5_000 + group.lag)))),
          })),
      log: {
        state: running ? "accepting" : "failed",
        records: this.empty ? 0 : 3_000_000 + this.second * 830,
        batches: 40_000 + this.second * 90,
        payload_bytes: this.empty ? 0 : 512_000_000 + this.second * 141_000,
        written_bytes: this.empty ? 0 : 519_000_000 + this.second * 143_200,
        fdatasyncs: this.empty ? 12 : 36_000 + this.second * 61,
      },
      mqtt: {
        connections: this.empty ? 0 : 24,
        received_total: this.empty ? 0 : 2_100_000 + this.second * 300,
      },
    };
  }

  quality() {
    if (this.empty) return { topics: [], most_failing: [], most_degraded: null };
    const time = new Date().toISOString();
    const row = (topic, accepted, gaps, fields, fallback, rejected, duplicates) => ({
      topic,
      count: accepted + rejected,
      accepted,
      missing_field_records: gaps,
      missing_fields: Object.values(fields).reduce((sum, count) => sum + count, 0),
      fallback_timestamps: fallback,
      rejected,
      duplicates,
      last_event_time: time,
      last_received_time: time,
      degraded_share: (gaps + fallback + rejected) / (accepted + rejected),
    });
    return {
      topics: [
        row("devices", 41_200 + this.second * 50, 0, {}, 0, 0, 4),
        row("grid", 12_040 + this.second, 3, { frequency_hz: 3 }, 0, 1, 0),
        row(
          "inverters",
          220_310 + this.second * 90,
          27_322,
          { dc_power_kw: 20_144, temperature_c: 9_120, serial: 31 },
          122,
          611,
          12,
        ),
        row("sites", 3_204, 12, { operator: 12 }, 0, 0, 0),
        row("strings", 880_400 + this.second * 110, 1_204, { voltage_v: 1_204 }, 9, 40, 0),
        row("weather", 9_110, 0, {}, 410, 2, 0),
      ],
      most_failing: [
        { error: "payload_not_json", count: 480 },
        { error: "missing_payload", count: 131 },
        { error: "unsupported_topic", count: 43 },
      ],
      most_degraded: "inverters",
    };
  }

  async answer(request, response) {
    const url = new URL(request.url, this.url);
    const send = (status, body) => {
      response.writeHead(status, { "content-type": "application/json" });
      response.end(JSON.stringify(body));
    };
    if (url.pathname === "/auth") {
      let text = "";
      for await (const chunk of request) text += chunk;
      const asked = JSON.parse(text);
      if (this.refusing || asked.client_id !== CLIENT.id || asked.client_secret !== CLIENT.secret) {
        return send(401, { error: "unknown user or wrong secret" });
      }
      const token = `token-${this.tokens.size + 1}-${Date.now()}`;
      this.tokens.add(token);
      return send(200, {
        access_token: token,
        token_type: "Bearer",
        expires_in: this.expiresInS,
      });
    }
    if (url.pathname === "/health") {
      return send(this.logFailure === null ? 200 : 503, {
        status: this.logFailure === null ? "ok" : "failed",
        version: "0.1.0",
        cluster_id: "0198c7a2-51f3-7c51-9d2e-0b5a6f0a1c44",
        leader_epoch: 7,
        uptime_s: 273_840 + this.second,
        log: {
          state: this.logFailure === null ? "accepting" : "failed",
          reason: this.logFailure ?? undefined,
          durability: "fsync",
        },
        mqtt: { connections: 24 },
      });
    }
    if (url.pathname.startsWith("/api/") || url.pathname.startsWith("/invalid/")) {
      const token = (request.headers.authorization ?? "").replace("Bearer ", "");
      if (!this.tokens.has(token)) return send(401, { error: "the token is unknown" });
      if (url.pathname === "/api/v1/topics") return send(200, this.topicDetails());
      if (url.pathname === "/invalid/recent")
        return send(200, {
          records: this.olderThan(url.searchParams.get("before")),
        });
      return send(404, { error: "no such path" });
    }
    await this.serveFile(url.pathname, response);
  }

  topicDetails() {
    return TOPICS.map((topic, index) => ({
      name: topic.name,
      id: `00000000-0000-4000-8000-00000000000${index}`,
      internal: topic.name.startsWith("__"),
      partitions: Array.from({ length: topic.partitions }, (_, partition) => ({
        partition,
        log_start_offset: 1_000 * partition,
        high_watermark: 90_000 + 1_000 * partition,
        size_bytes: Math.round(topic.base * 61_000 * (1 + partition / 10)),
      })),
    }));
  }

  olderThan(before) {
    const oldest = Number(before);
    if (!(oldest <= 1)) return [];
    return [{ ...sampleRejected(0, Date.now() - 3_600_000), id: "0" }].filter(() => before === "1");
  }

  async serveFile(path, response) {
    const safe = normalize(path).replace(/^(\.\.[/\\])+/, "");
    const file = extname(safe) === "" ? "index.html" : safe;
    try {
      const body = await readFile(join(this.distribution, file));
      response.writeHead(200, {
        "content-type": CONTENT_TYPES[extname(file)] ?? "application/octet-stream",
        "content-security-policy": SECURITY_POLICY,
      });
      response.end(body);
    } catch {
      response.writeHead(404).end();
    }
  }
}

const REJECTIONS = [
  {
    kind: "inverters",
    mqtt: "telemetry/inverters/inv-12",
    payload: '{"device_id":"inv-12","device_ts":',
    errors: [
      {
        code: "payload_not_json",
        message: "the payload is not JSON: unexpected end at column 34",
      },
    ],
  },
  {
    kind: "pumps",
    mqtt: "telemetry/pumps/p-3",
    payload: '{"device_id":"p-3","flow":12.5}',
    errors: [
      {
        code: "unsupported_topic",
        message: 'no schema is declared for "pumps"',
      },
    ],
  },
  {
    kind: "strings",
    mqtt: "strings",
    payload: "",
    errors: [{ code: "missing_payload", message: "the record has no payload" }],
  },
  {
    kind: "grid",
    mqtt: "grid",
    payload: Buffer.from([
      0, 1, 2, 0xff, 0xfe, 0x48, 0x69, 10, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89,
    ]).toString("base64"),
    encoding: "base64",
    errors: [{ code: "payload_not_json", message: "the payload is not UTF-8" }],
  },
];

export function sampleRejected(number, atMs) {
  const sample = REJECTIONS[number % REJECTIONS.length];
  return {
    id: String(number),
    kind: sample.kind,
    mqtt_topic: sample.mqtt,
    payload: sample.payload,
    payload_encoding: sample.encoding ?? "utf-8",
    payload_truncated: false,
    received_at: new Date(atMs).toISOString(),
    errors: sample.errors,
    source: {
      topic: "telemetry.raw",
      partition: number % 6,
      offset: 40_000 + number,
    },
  };
}

let tailOffset = 52_000;
function sampleTail() {
  tailOffset += 1;
  const device = `inv-${tailOffset % 17}`;
  return {
    partition: tailOffset % 6,
    offset: tailOffset,
    timestamp_ms: Date.now(),
    key: device,
    value: JSON.stringify({
      device_id: device,
      device_ts: new Date().toISOString(),
      dc_power_kw: (tailOffset % 90) / 10,
      temperature_c: 41.5,
      state: "producing",
    }),
    encoding: "utf-8",
  };
}
