/**
 * The one WebSocket to `/ws/live`: opened, watched, lost, found again.
 *
 * Owns the socket, the rooms asked for and the timing of attempts. It hands frames on unread, and
 * reports what happens to the connection as events; it keeps no data.
 */
import { backoffMs } from "./backoff.ts";
import { parseFrame, type Frame } from "./messages.ts";

/** The part of WebSocket that is used, so that tests can play the node. */
export type Socket = Pick<WebSocket, "onopen" | "onmessage" | "onclose" | "send" | "close">;

export type LiveEvent =
  | { type: "attempt" }
  | { type: "connected"; atMs: number }
  /** `lastHeardMs`: when the node was last heard, which is when the shown data stopped being true. */
  | { type: "lost"; lastHeardMs: number | null }
  | { type: "scheduled"; attempt: number; atMs: number };

export interface LiveOptions {
  openSocket: () => Socket;
  token: () => string | null;
  /** Resolves true when the refused token was replaced and another attempt makes sense. */
  onRefused: () => Promise<boolean>;
  onGivenUp: () => void;
  onEvent: (event: LiveEvent) => void;
  onFrame: (frame: Frame) => void;
  random: () => number;
}

/** Close code with which the node refuses a token. */
const CLOSE_UNAUTHORIZED = 4401;
/** From opening to `welcome`. */
const HANDSHAKE_MS_MAX = 8_000;
/** The `overview` room speaks every second; this long a silence means a connection that only looks alive. */
const SILENCE_MS_MAX = 6_000;
const WATCH_EVERY_MS = 1_000;
/** Fresh tokens refused this often in a row: asking again will not help. */
const REFUSALS_MAX = 2;

export class LiveConnection {
  private readonly options: LiveOptions;
  private readonly rooms = new Set<string>();
  private socket: Socket | null = null;
  private welcomed = false;
  private running = false;
  private attempt = 0;
  private refusals = 0;
  private openedAtMs = 0;
  private lastHeardMs: number | null = null;
  private retryTimer: ReturnType<typeof setTimeout> | undefined;
  private watchTimer: ReturnType<typeof setInterval> | undefined;

  constructor(options: LiveOptions) {
    this.options = options;
  }

  start(): void {
    if (this.running) return;
    this.running = true;
    this.watchTimer = setInterval(() => this.watch(), WATCH_EVERY_MS);
    this.open();
  }

  stop(): void {
    this.running = false;
    clearTimeout(this.retryTimer);
    clearInterval(this.watchTimer);
    this.drop();
  }

  subscribe(room: string): void {
    this.rooms.add(room);
    if (this.welcomed) this.say({ type: "subscribe", rooms: [room] });
  }

  unsubscribe(room: string): void {
    if (this.rooms.delete(room) && this.welcomed) this.say({ type: "unsubscribe", rooms: [room] });
  }

  /** Asks again for a room that the node stopped; nothing if it is no longer wanted. */
  resubscribe(room: string): void {
    if (!this.welcomed || !this.rooms.has(room)) return;
    this.say({ type: "unsubscribe", rooms: [room] });
    this.say({ type: "subscribe", rooms: [room] });
  }

  /** A person or the operating system thinks the network is back. */
  retryNow(): void {
    if (!this.running || this.socket !== null) return;
    clearTimeout(this.retryTimer);
    this.open();
  }

  private open(): void {
    if (!this.running) return;
    this.options.onEvent({ type: "attempt" });
    this.openedAtMs = Date.now();
    this.welcomed = false;
    const socket = this.options.openSocket();
    this.socket = socket;
    socket.onopen = () => this.say({ type: "hello", token: this.options.token() ?? "" });
    socket.onmessage = (event) => {
      if (typeof event.data === "string") this.hear(event.data);
    };
    socket.onclose = (event) => {
      this.drop();
      if (event.code === CLOSE_UNAUTHORIZED) void this.refused();
      else this.lose();
    };
  }

  private hear(text: string): void {
    const frame = parseFrame(text);
    this.lastHeardMs = Date.now();
    if (frame === null) return;
    if (frame.type === "welcome") {
      this.welcomed = true;
      this.options.onEvent({ type: "connected", atMs: this.lastHeardMs });
      this.say({ type: "subscribe", rooms: [...this.rooms] });
      return;
    }
    // Only a node that really speaks resets the back-off: one that accepts and hangs up must not be hammered.
    if (frame.type === "update") {
      this.attempt = 0;
      this.refusals = 0;
    }
    this.options.onFrame(frame);
  }

  private say(message: unknown): void {
    this.socket?.send(JSON.stringify(message));
  }

  private watch(): void {
    if (this.socket === null) return;
    const now = Date.now();
    const silent = this.welcomed
      ? now - (this.lastHeardMs ?? this.openedAtMs) > SILENCE_MS_MAX
      : now - this.openedAtMs > HANDSHAKE_MS_MAX;
    if (silent) {
      this.drop();
      this.lose();
    }
  }

  /** Lets go of the socket without waiting for its close: over a dead network that takes minutes. */
  private drop(): void {
    const socket = this.socket;
    this.socket = null;
    this.welcomed = false;
    if (socket === null) return;
    socket.onopen = null;
    socket.onmessage = null;
    socket.onclose = null;
    socket.close();
  }

  private lose(): void {
    if (!this.running) return;
    this.options.onEvent({ type: "lost", lastHeardMs: this.lastHeardMs });
    this.attempt += 1;
    const delayMs = backoffMs(this.attempt, this.options.random());
    this.options.onEvent({ type: "scheduled", attempt: this.attempt, atMs: Date.now() + delayMs });
    this.retryTimer = setTimeout(() => this.open(), delayMs);
  }

  private async refused(): Promise<void> {
    this.refusals += 1;
    if (this.refusals > REFUSALS_MAX) {
      this.stop();
      this.options.onGivenUp();
      return;
    }
    if (await this.options.onRefused()) this.open();
    else this.lose();
  }
}
