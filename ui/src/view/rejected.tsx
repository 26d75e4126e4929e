/** Rejected records, newest first, with reasons and the bytes that were sent. */
import { useState } from "preact/hooks";
import { count, plural } from "../format/number.ts";
import { instant } from "../format/time.ts";
import type { RejectedRecord } from "../node/messages.ts";
import type { Dashboard } from "../state/dashboard.ts";
import { filterRejected, type Rejected } from "../state/rejected.ts";
import { Command } from "./command.tsx";
import { MQTT_NOTE, publishBadCommand } from "./examples.ts";
import { Payload } from "./payload.tsx";
import { Empty, Section, Waiting } from "./section.tsx";

export function RejectedRecords({ dashboard }: { dashboard: Dashboard }) {
  const [query, setQuery] = useState("");
  const [openId, setOpenId] = useState<string | null>(null);
  const [held, setHeld] = useState<Rejected | null>(null);
  const records = dashboard.rejected.value;
  const listed = held ?? records ?? [];
  const shown = filterRejected(listed, query);
  const fresh = held === null || records === null ? 0 : newerThan(records, held);

  // While one record is being read, newer ones wait: a list must not move under a reader.
  const unfold = (id: string | null) => {
    setOpenId(id);
    setHeld(id === null ? null : (held ?? records));
  };
  const filter = (
    <label class="inline-label">
      <span>Filter</span>
      <input
        type="search"
        value={query}
        onInput={(event) => setQuery(event.currentTarget.value)}
        placeholder="topic or reason"
      />
    </label>
  );
  return (
    <Section
      id="rejected"
      room="invalid"
      title="Rejected records"
      dashboard={dashboard}
      aside={records !== null && records.length > 0 ? filter : undefined}
    >
      {records === null && <Waiting what="the latest rejected records" />}
      {records !== null && listed.length === 0 && (
        <Empty>
          <p>No record has been rejected. To see how one looks:</p>
          <Command text={publishBadCommand()} note={MQTT_NOTE} />
        </Empty>
      )}
      {listed.length > 0 && (
        <>
          <div class="held">
            {fresh > 0 && (
              <button class="button button-small" type="button" onClick={() => setHeld(records)}>
                Show {plural(fresh, "newer record", "newer records")}
              </button>
            )}
          </div>
          {shown.length === 0 ? (
            <p class="empty muted">None of the {count(listed.length)} records listed fits the filter.</p>
          ) : (
            <ol class="records" tabIndex={0} aria-label="Rejected records, newest first">
              {shown.map((record) => (
                <Row
                  key={record.id}
                  record={record}
                  open={record.id === openId}
                  onToggle={() => unfold(record.id === openId ? null : record.id)}
                />
              ))}
            </ol>
          )}
          <Older dashboard={dashboard} listed={listed.length} onLoad={() => setHeld(null)} />
        </>
      )}
    </Section>
  );
}

function newerThan(records: Rejected, held: Rejected): number {
  const known = new Set(held.map((record) => record.id));
  const first = records.findIndex((record) => known.has(record.id));
  return first === -1 ? records.length : first;
}

function Row({ record, open, onToggle }: { record: RejectedRecord; open: boolean; onToggle: () => void }) {
  const source = record.source;
  return (
    <li class={open ? "record record-open" : "record"}>
      <button class="record-line" type="button" aria-expanded={open} onClick={onToggle}>
        <time class="record-time" dateTime={record.receivedAt}>
          {instant(record.receivedAt)}
        </time>
        <span class="record-kind">{record.kind ?? "no kind"}</span>
        <span class="record-reason">
          {record.errors.length === 0
            ? "no reason given"
            : record.errors.map((error) => (
                <span key={error.code + error.message} class="reason">
                  <code>{error.code}</code> {error.message}
                </span>
              ))}
        </span>
      </button>
      {open && (
        <div class="record-body">
          <dl class="facts">
            <Fact name="Received" value={record.receivedAt} />
            {record.mqttTopic !== null && <Fact name="MQTT topic" value={record.mqttTopic} />}
            {source !== null && (
              <Fact name="Source" value={`${source.topic}, partition ${source.partition}, offset ${source.offset}`} />
            )}
            <Fact name="Record id" value={record.id} />
          </dl>
          <h3 class="visually-hidden">Payload as received</h3>
          <Payload payload={record.payload} encoding={record.encoding} />
          {record.truncated && (
            <p class="muted">
              The payload is longer than the node shows here; all of it lies in the log at the source named above.
            </p>
          )}
        </div>
      )}
    </li>
  );
}

function Fact({ name, value }: { name: string; value: string }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{value}</dd>
    </div>
  );
}

function Older({ dashboard, listed, onLoad }: { dashboard: Dashboard; listed: number; onLoad: () => void }) {
  const older = dashboard.older.value;
  const load = () => {
    onLoad();
    void dashboard.loadOlderRejected();
  };
  return (
    <p class="older">
      <span class="muted">
        {plural(listed, "record", "records")} listed{older.end !== null && `, ${older.end}`}
      </span>
      {older.error !== null && <span class="bad"> {older.error}</span>}{" "}
      {older.end === null && (
        <button class="button button-small" type="button" disabled={older.busy} onClick={load}>
          {older.busy ? "Loading…" : "Load older"}
        </button>
      )}
    </p>
  );
}
