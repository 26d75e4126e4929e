/**
 * Everything the page shows, and the only place that changes it.
 *
 * Frames from the socket are collected and applied together a few times a second: a node that
 * speaks fast must not make the page slow. Views read the signals and call the methods.
 */
import { batch, signal } from "@preact/signals";
import { clockTime } from "../format/time.ts";
import { fetchAuthorised, fetchHealth } from "../node/http.ts";
import { LiveConnection, type LiveEvent, type Socket } from "../node/live.ts";
import {
  parseHealth,
  parseOverview,
  parseQuality,
  parseRejectedList,
  parseSpeeds,
  parseTailRecord,
  parseTopicDetails,
  type Frame,
  type Health,
  type Overview,
  type Quality,
  type RejectedRecord,
  type TopicDetail,
} from "../node/messages.ts";
import type { Session } from "../node/session.ts";
import { connectionAfter, initialConnection, type Connection } from "./connection.ts";
import { extendHistory, type History } from "./history.ts";
import { mergeRejected, REJECTED_MAX, type Rejected } from "./rejected.ts";
import { readSpeeds, type Sensors } from "./speed.ts";
import { breakTail, extendTail, tailOf, emptyTail, type Tail } from "./tail.ts";

const APPLY_EVERY_MS = 100;
/** Timers sleep in hidden tabs; beyond this many waiting frames they are applied at once. */
const FRAMES_WAITING_MAX = 2_000;
const HEALTH_EVERY_MS = 5_000;
const TOPICS_EVERY_MS = 15_000;
/** A room that reported trouble may have stopped; it is asked for again after this. */
const ROOM_RETRY_MS = 5_000;
const OLDER_PAGE = 50;
/** Records that the `invalid` room sends at first, if there are so many. */
const REJECTED_SNAPSHOT = 50;
const PERMANENT_ROOMS = ["overview", "quality", "invalid", "speed"];
const TAIL_PREFIX = "topic:";
const DEFAULT_TAIL = "telemetry.raw";

/** Paging back through rejected records. */
interface Older {
  busy: boolean;
  /** Why there is nothing more to load; null while there may be. */
  end: string | null;
  error: string | null;
}

const NO_OLDER = "no older ones";
const NO_OLDER_YET: Older = { busy: false, end: null, error: null };

function endOf(fetched: number, before: number, after: number): string | null {
  if (after >= REJECTED_MAX) return "the list is full; older ones are in the DLQ topic";
  return fetched === 0 || after === before ? NO_OLDER : null;
}

export function isFailed(state: string | undefined): boolean {
  return state?.toLowerCase() === "failed";
}

export interface Surroundings {
  session: Session;
  request: typeof fetch;
  openSocket: () => Socket;
}

export class Dashboard {
  readonly connection = signal<Connection>(initialConnection);
  readonly health = signal<Health | null>(null);
  readonly overview = signal<Overview | null>(null);
  readonly history = signal<History>([]);
  readonly topicDetails = signal<readonly TopicDetail[]>([]);
  readonly quality = signal<Quality | null>(null);
  /** Null until the first snapshot: not the same as none. */
  readonly rejected = signal<Rejected | null>(null);
  readonly older = signal<Older>(NO_OLDER_YET);
  /** Null until the node has said which sensors there are. */
  readonly sensors = signal<Sensors | null>(null);
  readonly tail = signal<Tail>(emptyTail);
  /** What the node said is wrong with a room, until the room speaks again. */
  readonly troubles = signal<ReadonlyMap<string, string>>(new Map());

  private readonly session: Session;
  private readonly request: typeof fetch;
  private readonly live: LiveConnection;
  private waiting: Frame[] = [];
  private applyTimer: ReturnType<typeof setTimeout> | undefined;
  private healthTimer: ReturnType<typeof setInterval> | undefined;
  private topicsTimer: ReturnType<typeof setInterval> | undefined;
  private readonly retryTimers = new Map<string, ReturnType<typeof setTimeout>>();
  /** The first `invalid` update after (re)connecting replaces the list. */
  private rejectedIsSnapshot = true;
  private overviewIsFirst = true;

  constructor({ session, request, openSocket }: Surroundings) {
    this.session = session;
    this.request = request;
    this.live = new LiveConnection({
      openSocket,
      token: () => session.token,
      onRefused: () => session.refused(),
      onGivenUp: () => session.signOut("The node refuses this session again and again. Sign in again."),
      onEvent: (event) => this.connectionEvent(event),
      onFrame: (frame) => this.receive(frame),
      random: Math.random,
    });
    for (const room of PERMANENT_ROOMS) this.live.subscribe(room);
  }

  start(): void {
    this.live.start();
    void this.refreshHealth();
    this.healthTimer = setInterval(() => void this.refreshHealth(), HEALTH_EVERY_MS);
    this.topicsTimer = setInterval(() => void this.refreshTopics(), TOPICS_EVERY_MS);
  }

  stop(): void {
    this.live.stop();
    clearInterval(this.healthTimer);
    clearInterval(this.topicsTimer);
    clearTimeout(this.applyTimer);
    for (const timer of this.retryTimers.values()) clearTimeout(timer);
    this.waiting = [];
  }

  retryNow(): void {
    this.live.retryNow();
  }

  chooseTail(topic: string): void {
    const previous = this.tail.value;
    if (previous.topic === topic) return;
    if (previous.topic !== null) this.live.unsubscribe(TAIL_PREFIX + previous.topic);
    this.tail.value = { ...tailOf(topic), paused: previous.paused };
    if (!previous.paused) this.live.subscribe(TAIL_PREFIX + topic);
  }

  /** A paused tail is not sent at all: the node has better things to do. */
  pauseTail(paused: boolean): void {
    const tail = this.tail.value;
    if (tail.topic === null || tail.paused === paused) return;
    if (paused) {
      this.live.unsubscribe(TAIL_PREFIX + tail.topic);
      this.tail.value = { ...tail, paused };
    } else {
      const resumedAt = Date.now();
      this.tail.value = breakTail(
        { ...tail, paused },
        resumedAt,
        `Paused until ${clockTime(resumedAt)}; records of that time are not shown.`,
      );
      this.live.subscribe(TAIL_PREFIX + tail.topic);
    }
  }

  clearTail(): void {
    this.tail.value = { ...this.tail.value, entries: [], skipped: 0 };
  }

  async loadOlderRejected(): Promise<void> {
    const last = this.rejected.value?.at(-1);
    if (!last || this.older.value.busy) return;
    this.older.value = { ...this.older.value, busy: true, error: null };
    try {
      const path = `/invalid/recent?limit=${OLDER_PAGE}&before=${encodeURIComponent(last.id)}`;
      const records = parseRejectedList(await fetchAuthorised(this.session, this.request, path));
      const before = this.rejected.value ?? [];
      const merged = mergeRejected(before, records);
      batch(() => {
        this.rejected.value = merged;
        this.older.value = {
          busy: false,
          end: endOf(records.length, before.length, merged.length),
          error: null,
        };
      });
    } catch (error) {
      const sentence = error instanceof Error ? error.message : "The node did not answer.";
      this.older.value = { ...this.older.value, busy: false, error: sentence };
    }
  }

  private connectionEvent(event: LiveEvent): void {
    const before = this.connection.value;
    this.connection.value = connectionAfter(before, event, Date.now());
    if (event.type !== "connected") return;
    this.rejectedIsSnapshot = true;
    this.overviewIsFirst = true;
    this.troubles.value = new Map();
    this.older.value = NO_OLDER_YET;
    if (before.phase === "lost" && before.everConnected) {
      const sentence = `Connection lost from ${clockTime(before.sinceMs)} to ${clockTime(event.atMs)}; records of that time are not shown.`;
      this.tail.value = breakTail(this.tail.value, event.atMs, sentence);
    }
    void this.refreshHealth();
    void this.refreshTopics();
  }

  private receive(frame: Frame): void {
    this.waiting.push(frame);
    if (this.waiting.length >= FRAMES_WAITING_MAX) this.apply();
    else this.applyTimer ??= setTimeout(() => this.apply(), APPLY_EVERY_MS);
  }

  private apply(): void {
    clearTimeout(this.applyTimer);
    this.applyTimer = undefined;
    const frames = this.waiting;
    this.waiting = [];
    batch(() => {
      let speedSpoke = false;
      const speeds = [];
      const tailed = [];
      for (const frame of frames) {
        if (frame.type === "skipped") this.skipped(frame.room, frame.count);
        if (frame.type === "error") this.troubled(frame.room, frame.sentence);
        if (frame.type !== "update") continue;
        this.untroubled(frame.room);
        if (frame.room === "speed") {
          speedSpoke = true;
          speeds.push(...parseSpeeds(frame.data));
        } else if (frame.room === TAIL_PREFIX + (this.tail.value.topic ?? "")) tailed.push(parseTailRecord(frame.data));
        else this.update(frame.room, frame.data);
      }
      if (speedSpoke) this.sensors.value = readSpeeds(this.sensors.value ?? new Map(), speeds, Date.now());
      this.tail.value = extendTail(
        this.tail.value,
        tailed.filter((record) => record !== null),
      );
    });
  }

  private update(room: string, data: unknown): void {
    switch (room) {
      case "overview": {
        const overview = parseOverview(data);
        if (overview === null) return;
        this.overview.value = overview;
        this.history.value = extendHistory(this.history.value, overview, this.overviewIsFirst);
        this.overviewIsFirst = false;
        if (this.tail.value.topic === null) this.chooseFirstTail(overview);
        // The overview says it first, health knows the reason.
        if (isFailed(overview.log.state) && !isFailed(this.health.value?.log.state)) void this.refreshHealth();
        return;
      }
      case "quality":
        this.quality.value = parseQuality(data);
        return;
      case "invalid":
        this.rejectedArrived(parseRejectedList(data));
        return;
    }
  }

  private rejectedArrived(records: readonly RejectedRecord[]): void {
    const snapshot = this.rejectedIsSnapshot;
    this.rejectedIsSnapshot = false;
    this.rejected.value = mergeRejected(snapshot ? [] : (this.rejected.value ?? []), records);
    if (snapshot && records.length < REJECTED_SNAPSHOT) this.older.value = { ...NO_OLDER_YET, end: NO_OLDER };
  }

  private skipped(room: string, count: number): void {
    const tail = this.tail.value;
    if (tail.topic !== null && room === TAIL_PREFIX + tail.topic && !tail.paused) {
      this.tail.value = { ...tail, skipped: tail.skipped + count };
    }
  }

  private troubled(room: string, sentence: string): void {
    this.troubles.value = new Map(this.troubles.value).set(room, sentence.replace(/\.$/, ""));
    // A topic's room is refused when the topic is gone; asking for ever would only annoy the node.
    if (!PERMANENT_ROOMS.includes(room)) return;
    clearTimeout(this.retryTimers.get(room));
    this.retryTimers.set(
      room,
      setTimeout(() => this.live.resubscribe(room), ROOM_RETRY_MS),
    );
  }

  private untroubled(room: string): void {
    if (!this.troubles.value.has(room)) return;
    clearTimeout(this.retryTimers.get(room));
    const troubles = new Map(this.troubles.value);
    troubles.delete(room);
    this.troubles.value = troubles;
  }

  private chooseFirstTail(overview: Overview): void {
    const names = overview.topics.map((topic) => topic.name);
    const first = names.includes(DEFAULT_TAIL) ? DEFAULT_TAIL : names.find((name) => !name.startsWith("__"));
    if (first !== undefined) this.chooseTail(first);
  }

  private async refreshHealth(): Promise<void> {
    try {
      this.health.value = parseHealth(await fetchHealth(this.request));
    } catch {
      // The live connection already tells that the node is out of reach; old health is shown as stale.
    }
  }

  private async refreshTopics(): Promise<void> {
    if (this.connection.value.phase !== "connected") return;
    try {
      this.topicDetails.value = parseTopicDetails(await fetchAuthorised(this.session, this.request, "/api/v1/topics"));
    } catch {
      // Sizes and partitions are extras beside the overview; the next round asks again.
    }
  }
}
