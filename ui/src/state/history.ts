/**
 * The last minutes of `overview`, from which charts and rates are drawn.
 *
 * Times are the node's own. A silence is kept as a gap: nothing is interpolated over a time in
 * which nothing was heard.
 */
import type { LogCounters, Overview } from "../node/messages.ts";

export interface Sample {
  tsMs: number;
  /** Records per second by topic; a topic is missing where its rate is not known. */
  rates: ReadonlyMap<string, number>;
  /** Lag by `group\0topic`. */
  lags: ReadonlyMap<string, number>;
  log: LogCounters;
}

export type History = readonly Sample[];

export const HISTORY_MS = 15 * 60_000;
/** Beyond 15 minutes at one a second, with room for a node that speaks a little faster. */
const SAMPLES_MAX = 1_200;
/** The room speaks every second; two missed updates are a gap. */
export const GAP_MS = 3_500;

export function groupKey(group: string, topic: string): string {
  return `${group}\0${topic}`;
}

/** `connected`: this is the first overview of a connection. */
export function extendHistory(history: History, overview: Overview, connected: boolean): History {
  const sample: Sample = {
    tsMs: overview.tsMs,
    // A rate needs two looks: in its first one a node says zero for want of another.
    rates: new Map(
      overview.topics
        .filter((topic) => !connected || topic.recordsPerS > 0)
        .map((topic) => [topic.name, topic.recordsPerS]),
    ),
    lags: new Map(overview.groups.map((group) => [groupKey(group.group, group.topic), group.lag])),
    log: overview.log,
  };
  const from = overview.tsMs - HISTORY_MS;
  // A node whose clock was set back overwrites what now lies in its future.
  const kept = history.filter((earlier) => earlier.tsMs >= from && earlier.tsMs < overview.tsMs);
  return [...kept, sample].slice(-SAMPLES_MAX);
}

export interface Point {
  x: number;
  /** Null breaks the line. */
  y: number | null;
}

/** One line of a chart, broken where the node was not heard. */
export function seriesOf(history: History, fromMs: number, valueOf: (sample: Sample) => number | null): Point[] {
  const points: Point[] = [];
  let previousMs: number | null = null;
  for (const sample of history) {
    if (sample.tsMs < fromMs) continue;
    if (previousMs !== null && sample.tsMs - previousMs > GAP_MS) points.push({ x: previousMs + 1, y: null });
    points.push({ x: sample.tsMs, y: valueOf(sample) });
    previousMs = sample.tsMs;
  }
  return points;
}

/** The stretches within the history in which nothing was heard. */
export function gapsOf(history: History, fromMs: number): { from: number; to: number }[] {
  const gaps: { from: number; to: number }[] = [];
  for (let at = 1; at < history.length; at += 1) {
    const earlier = history[at - 1];
    const later = history[at];
    if (earlier && later && later.tsMs >= fromMs && later.tsMs - earlier.tsMs > GAP_MS) {
      gaps.push({ from: Math.max(earlier.tsMs, fromMs), to: later.tsMs });
    }
  }
  return gaps;
}

const RATE_OVER_MS = 10_000;

/**
 * Growth per second of a counter of the log over the last ten seconds; null while unknown.
 *
 * A counter that fell belongs to a restarted node, and the time before it is not compared.
 */
export function counterRate(history: History, counter: (log: LogCounters) => number): number | null {
  const last = history.at(-1);
  if (!last) return null;
  let first = last;
  for (let at = history.length - 2; at >= 0; at -= 1) {
    const sample = history[at];
    if (!sample || last.tsMs - sample.tsMs > RATE_OVER_MS || first.tsMs - sample.tsMs > GAP_MS) break;
    if (counter(sample.log) > counter(first.log)) break;
    first = sample;
  }
  const seconds = (last.tsMs - first.tsMs) / 1000;
  return seconds > 0 ? (counter(last.log) - counter(first.log)) / seconds : null;
}
