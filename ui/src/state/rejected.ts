/** The list of rejected records: newest first, each once, bounded. */
import type { RejectedRecord } from "../node/messages.ts";

export const REJECTED_MAX = 500;

export type Rejected = readonly RejectedRecord[];

export function mergeRejected(known: Rejected, arrived: readonly RejectedRecord[]): Rejected {
  const byId = new Map(known.map((record) => [record.id, record]));
  for (const record of arrived) byId.set(record.id, record);
  return [...byId.values()].sort(newestFirst).slice(0, REJECTED_MAX);
}

function newestFirst(a: RejectedRecord, b: RejectedRecord): number {
  const byTime = Date.parse(b.receivedAt) - Date.parse(a.receivedAt);
  if (byTime) return byTime;
  return b.id.localeCompare(a.id, "en", { numeric: true });
}

/** Records whose topic, source or reason contains every word of the query. */
export function filterRejected(records: Rejected, query: string): Rejected {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length === 0) return records;
  return records.filter((record) => {
    const text = [
      record.kind,
      record.mqttTopic,
      record.source?.topic,
      ...record.errors.flatMap((error) => [error.code, error.message]),
    ]
      .join(" ")
      .toLowerCase();
    return words.every((word) => text.includes(word));
  });
}
