import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { LiveConnection, type LiveEvent, type Socket } from "./live.ts";
import type { Frame } from "./messages.ts";

/** The node's side of a socket. */
class Wire {
  readonly sent: unknown[] = [];
  closed = false;
  readonly socket: Socket;

  constructor() {
    this.socket = {
      onopen: null,
      onmessage: null,
      onclose: null,
      send: (text) => void this.sent.push(JSON.parse(String(text))),
      close: () => {
        this.closed = true;
      },
    };
  }

  open() {
    this.socket.onopen?.call(this.socket as WebSocket, new Event("open"));
  }
  say(message: unknown) {
    this.socket.onmessage?.call(this.socket as WebSocket, { data: JSON.stringify(message) } as MessageEvent);
  }
  close(code = 1006) {
    this.socket.onclose?.call(this.socket as WebSocket, { code } as CloseEvent);
  }
  welcome() {
    this.open();
    this.say({ type: "welcome" });
  }
}

let wires: Wire[];
let events: LiveEvent[];
let frames: Frame[];
let renewals: boolean[];
let givenUp: number;

function connection(): LiveConnection {
  return new LiveConnection({
    openSocket: () => {
      const wire = new Wire();
      wires.push(wire);
      return wire.socket;
    },
    token: () => "token",
    onRefused: async () => renewals.shift() ?? false,
    onGivenUp: () => void (givenUp += 1),
    onEvent: (event) => void events.push(event),
    onFrame: (frame) => void frames.push(frame),
    random: () => 1,
  });
}

const last = () => wires.at(-1) as Wire;
const types = () => events.map((event) => event.type);

beforeEach(() => {
  vi.useFakeTimers();
  [wires, events, frames, renewals, givenUp] = [[], [], [], [], 0];
});
afterEach(() => void vi.useRealTimers());

test("it says hello with the token and subscribes after the welcome", () => {
  const live = connection();
  live.subscribe("overview");
  live.start();
  last().open();
  expect(last().sent).toEqual([{ type: "hello", token: "token" }]);
  last().say({ type: "welcome" });
  expect(last().sent[1]).toEqual({ type: "subscribe", rooms: ["overview"] });
  live.subscribe("topic:t");
  live.unsubscribe("topic:t");
  expect(last().sent.slice(2)).toEqual([
    { type: "subscribe", rooms: ["topic:t"] },
    { type: "unsubscribe", rooms: ["topic:t"] },
  ]);
  live.stop();
});

test("a lost connection is tried again with growing delays and asks for the same rooms", async () => {
  const live = connection();
  live.subscribe("overview");
  live.start();
  last().welcome();
  last().say({ type: "update", room: "overview", data: {} });
  last().close();
  expect(types()).toEqual(["attempt", "connected", "lost", "scheduled"]);
  await vi.advanceTimersByTimeAsync(500);
  expect(wires).toHaveLength(2);
  last().close();
  await vi.advanceTimersByTimeAsync(999);
  expect(wires).toHaveLength(2);
  await vi.advanceTimersByTimeAsync(1);
  expect(wires).toHaveLength(3);
  last().welcome();
  expect(last().sent[1]).toEqual({ type: "subscribe", rooms: ["overview"] });
  live.stop();
});

test("a node that welcomes and hangs up does not get the short delay again", async () => {
  const live = connection();
  live.start();
  for (const delayMs of [500, 1_000, 2_000]) {
    last().welcome();
    last().say({ type: "error", room: "overview", error: "not now" });
    last().close();
    const before = wires.length;
    await vi.advanceTimersByTimeAsync(delayMs - 1);
    expect(wires).toHaveLength(before);
    await vi.advanceTimersByTimeAsync(1);
    expect(wires).toHaveLength(before + 1);
  }
  live.stop();
});

test("silence on an open socket counts as lost since it was last heard", async () => {
  const live = connection();
  live.start();
  last().welcome();
  await vi.advanceTimersByTimeAsync(2_000);
  last().say({ type: "update", room: "overview", data: {} });
  const heardAt = Date.now();
  await vi.advanceTimersByTimeAsync(6_000);
  expect(types()).not.toContain("lost");
  await vi.advanceTimersByTimeAsync(1_000);
  expect(events.find((event) => event.type === "lost")).toEqual({ type: "lost", lastHeardMs: heardAt });
  expect(wires[0]?.closed).toBe(true);
  live.stop();
});

test("a handshake that never ends is given up", async () => {
  const live = connection();
  live.start();
  last().open();
  await vi.advanceTimersByTimeAsync(9_000);
  expect(types()).toContain("lost");
  live.stop();
});

test("what a dropped socket still says is not heard", async () => {
  const live = connection();
  live.start();
  const old = last();
  old.welcome();
  await vi.advanceTimersByTimeAsync(8_000);
  old.say({ type: "update", room: "overview", data: {} });
  old.close();
  expect(frames).toEqual([]);
  expect(types().filter((type) => type === "lost")).toHaveLength(1);
  live.stop();
});

test("4401 with a renewed token connects again at once", async () => {
  renewals = [true];
  const live = connection();
  live.start();
  last().open();
  last().close(4401);
  await vi.advanceTimersByTimeAsync(0);
  expect(wires).toHaveLength(2);
  expect(types()).not.toContain("lost");
  live.stop();
});

test("fresh tokens refused again and again end it", async () => {
  renewals = [true, true, true, true];
  const live = connection();
  live.start();
  for (let refusal = 0; refusal < 3; refusal += 1) {
    last().close(4401);
    await vi.advanceTimersByTimeAsync(0);
  }
  expect(givenUp).toBe(1);
  expect(wires).toHaveLength(3);
  await vi.advanceTimersByTimeAsync(60_000);
  expect(wires).toHaveLength(3);
});

test("trying now skips the wait, once", async () => {
  const live = connection();
  live.start();
  last().close();
  live.retryNow();
  live.retryNow();
  expect(wires).toHaveLength(2);
  last().welcome();
  await vi.advanceTimersByTimeAsync(600);
  expect(wires).toHaveLength(2);
  live.stop();
});

test("after stop nothing happens any more", async () => {
  const live = connection();
  live.start();
  last().close();
  live.stop();
  await vi.advanceTimersByTimeAsync(60_000);
  expect(wires).toHaveLength(1);
});

test("a room that stopped is asked for again only while it is wanted", () => {
  const live = connection();
  live.subscribe("invalid");
  live.start();
  last().welcome();
  live.resubscribe("invalid");
  live.resubscribe("topic:gone");
  expect(last().sent.slice(2)).toEqual([
    { type: "unsubscribe", rooms: ["invalid"] },
    { type: "subscribe", rooms: ["invalid"] },
  ]);
  live.stop();
});
