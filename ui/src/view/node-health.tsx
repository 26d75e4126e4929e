/** The node in one line of figures. */
import type { ComponentChildren } from "preact";
import { bytes, count, NOT_KNOWN, rate } from "../format/number.ts";
import { duration } from "../format/time.ts";
import type { Dashboard } from "../state/dashboard.ts";
import { counterRate } from "../state/history.ts";

export function NodeHealth({ dashboard }: { dashboard: Dashboard }) {
  const health = dashboard.health.value;
  const overview = dashboard.overview.value;
  const history = dashboard.history.value;
  const log = overview?.log;
  const recordsPerS = counterRate(history, (counters) => counters.records);
  const syncsPerS = counterRate(history, (counters) => counters.fdatasyncs);
  const payloadPerS = counterRate(history, (counters) => counters.payloadBytes);
  const state = overview?.log.state || health?.log.state || "";
  const accepting = state.toLowerCase() === "accepting";
  return (
    <section class="node" id="node" aria-label="Node health">
      <dl class="figures">
        <Figure name="Log" tone={state === "" ? "" : accepting ? "good" : "bad"}>
          {state === "" ? NOT_KNOWN : sentenceCase(state)}
        </Figure>
        <Figure name="Durability" note={health?.log.durability === "fsync" ? "acknowledged means on disk" : undefined}>
          {health?.log.durability || NOT_KNOWN}
        </Figure>
        <Figure name="Records in" unit="/s" note={log && `${count(log.records)} in all`}>
          {rate(recordsPerS)}
        </Figure>
        <Figure name="fdatasyncs" unit="/s" note={log && `${count(log.fdatasyncs)} in all`}>
          {rate(syncsPerS)}
        </Figure>
        <Figure name="Payload" unit="/s" note={log && `${bytes(log.payloadBytes)} in all`}>
          {payloadPerS === null ? NOT_KNOWN : bytes(payloadPerS)}
        </Figure>
        <Figure name="Written / payload" note={log && `${bytes(log.writtenBytes)} in all`}>
          {log && log.payloadBytes > 0 ? `${(log.writtenBytes / log.payloadBytes).toFixed(2)}` : NOT_KNOWN}
        </Figure>
        <Figure
          name="MQTT connections"
          note={overview ? `${count(overview.mqtt.receivedTotal)} messages received` : undefined}
        >
          {count(overview?.mqtt.connections ?? health?.mqttConnections ?? null)}
        </Figure>
        <Figure name="Uptime" note={health?.leaderEpoch != null ? `leader epoch ${health.leaderEpoch}` : undefined}>
          {health === null ? NOT_KNOWN : duration(health.uptimeS)}
        </Figure>
        <Figure
          name="Version"
          note={
            health && (
              <span class="cluster" title={health.clusterId}>
                cluster {health.clusterId.slice(0, 8)}
              </span>
            )
          }
        >
          {health?.version || NOT_KNOWN}
        </Figure>
      </dl>
    </section>
  );
}

interface FigureProps {
  name: string;
  unit?: string;
  note?: ComponentChildren;
  tone?: "good" | "bad" | "";
  children: ComponentChildren;
}

function Figure({ name, unit, note, tone = "", children }: FigureProps) {
  return (
    <div class={`figure ${tone === "" ? "" : `figure-${tone}`}`}>
      <dt>{name}</dt>
      <dd>
        <span class="figure-value">{children}</span>
        {unit !== undefined && <span class="figure-unit">{unit}</span>}
        {note !== undefined && note !== null && <span class="figure-note">{note}</span>}
      </dd>
    </div>
  );
}

function sentenceCase(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
