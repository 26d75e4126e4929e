/** The live tail of one topic: the newest entries first, bounded. */
import type { TailRecord } from "../node/messages.ts";

export type TailEntry =
  | { kind: "record"; key: string; record: TailRecord }
  /** Says in place that something is missing here, and why. */
  | { kind: "break"; key: string; sentence: string };

export interface Tail {
  topic: string | null;
  paused: boolean;
  entries: readonly TailEntry[];
  /** Records that the node left out to hold the sampling limit. */
  skipped: number;
}

export const TAIL_MAX = 200;

export const emptyTail: Tail = { topic: null, paused: false, entries: [], skipped: 0 };

export function tailOf(topic: string | null): Tail {
  return { ...emptyTail, topic };
}

export function extendTail(tail: Tail, records: readonly TailRecord[]): Tail {
  if (tail.paused || records.length === 0) return tail;
  const added = records.map((record): TailEntry => ({
    kind: "record",
    key: `${record.partition}:${record.offset}`,
    record,
  }));
  const fresh = new Set(added.map((entry) => entry.key));
  const kept = tail.entries.filter((entry) => !fresh.has(entry.key));
  return { ...tail, entries: [...added.reverse(), ...kept].slice(0, TAIL_MAX) };
}

export function breakTail(tail: Tail, atMs: number, sentence: string): Tail {
  if (tail.entries.length === 0 || tail.entries[0]?.kind === "break") return tail;
  return {
    ...tail,
    entries: [{ kind: "break" as const, key: `break:${atMs}`, sentence }, ...tail.entries].slice(0, TAIL_MAX),
  };
}
