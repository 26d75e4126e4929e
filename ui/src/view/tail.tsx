/** The live tail of one topic. */
import { useState } from "preact/hooks";
import { count, NOT_KNOWN, plural } from "../format/number.ts";
import { onePayloadLine } from "../format/payload.ts";
import { clockTime } from "../format/time.ts";
import type { TailRecord } from "../node/messages.ts";
import type { Dashboard } from "../state/dashboard.ts";
import { TAIL_MAX, type TailEntry } from "../state/tail.ts";
import { Payload } from "./payload.tsx";
import { Empty, Section, Waiting } from "./section.tsx";

const LINE_CHARACTERS = 400;
const KEY_CHARACTERS = 60;

export function LiveTail({ dashboard }: { dashboard: Dashboard }) {
  const [openKey, setOpenKey] = useState<string | null>(null);
  const tail = dashboard.tail.value;
  const names = dashboard.overview.value?.topics.map((topic) => topic.name) ?? [];
  if (tail.topic === null) {
    return (
      <Section id="tail" title="Live tail" dashboard={dashboard}>
        <Waiting what="the list of topics" />
      </Section>
    );
  }
  // Whoever opens a record wants to read it: the list stops until told to go on.
  const unfold = (key: string) => {
    setOpenKey(key === openKey ? null : key);
    if (key !== openKey) dashboard.pauseTail(true);
  };
  const controls = (
    <>
      <label class="inline-label">
        <span>Topic</span>
        <select value={tail.topic} onChange={(event) => dashboard.chooseTail(event.currentTarget.value)}>
          {names.map((name) => (
            <option key={name} value={name}>
              {name}
            </option>
          ))}
        </select>
      </label>
      <button
        class="button button-small"
        type="button"
        aria-pressed={tail.paused}
        onClick={() => dashboard.pauseTail(!tail.paused)}
      >
        {tail.paused ? "Resume" : "Pause"}
      </button>
      <button class="button button-small" type="button" onClick={() => dashboard.clearTail()}>
        Clear
      </button>
    </>
  );
  return (
    <Section id="tail" title="Live tail" dashboard={dashboard} room={`topic:${tail.topic}`} aside={controls}>
      <p class="muted tail-note">
        Time, partition:offset, key, value. At most 20 records/s, the last {TAIL_MAX} are kept.{" "}
        {tail.skipped > 0 && `${plural(tail.skipped, "record", "records")} beyond that passed by. `}
        {tail.paused && <strong class="warn">Paused.</strong>}
      </p>
      {tail.entries.length === 0 ? (
        <Empty>
          <p>
            {tail.paused
              ? "Paused before a record came."
              : `Waiting for the next record of ${tail.topic}. Earlier ones are read with a consumer.`}
          </p>
        </Empty>
      ) : (
        <ol class="records records-tail" tabIndex={0} aria-label={`Records of ${tail.topic}, newest first`}>
          {tail.entries.map((entry) => (
            <Entry key={entry.key} entry={entry} open={entry.key === openKey} onToggle={() => unfold(entry.key)} />
          ))}
        </ol>
      )}
    </Section>
  );
}

function Entry({ entry, open, onToggle }: { entry: TailEntry; open: boolean; onToggle: () => void }) {
  if (entry.kind === "break") return <li class="record record-break">{entry.sentence}</li>;
  const record = entry.record;
  return (
    <li class={open ? "record record-open" : "record"}>
      <button class="record-line" type="button" aria-expanded={open} onClick={onToggle}>
        <span class="record-time">{record.timestampMs === null ? NOT_KNOWN : clockTime(record.timestampMs)}</span>
        <span class="record-place">
          {record.partition}:{count(record.offset)}
        </span>
        <span class="record-key">{keyText(record)}</span>
        <span class="record-value">{onePayloadLine(record.value, record.encoding, LINE_CHARACTERS)}</span>
      </button>
      {open && (
        <div class="record-body">
          <dl class="facts">
            <div>
              <dt>Partition</dt>
              <dd>{record.partition}</dd>
            </div>
            <div>
              <dt>Offset</dt>
              <dd>{count(record.offset)}</dd>
            </div>
            <div>
              <dt>Key</dt>
              <dd>{keyText(record)}</dd>
            </div>
          </dl>
          {record.value === null ? (
            <p class="muted">The value is null (a tombstone).</p>
          ) : (
            <Payload payload={record.value} encoding={record.encoding} />
          )}
          {record.truncated && (
            <p class="muted">The value is longer than the node shows here; a consumer reads all of it.</p>
          )}
        </div>
      )}
    </li>
  );
}

function keyText(record: TailRecord): string {
  return record.key === null ? "no key" : onePayloadLine(record.key, record.keyEncoding, KEY_CHARACTERS);
}
