/** The live chart: records per second by topic. */
import { useRef, useState } from "preact/hooks";
import { LineChart, slotClass, type Line } from "../chart/line-chart.tsx";
import { valueNear } from "../chart/scale.ts";
import { rate } from "../format/number.ts";
import { clockTime } from "../format/time.ts";
import { assignSlots, rankByRate, type Slots } from "../state/colours.ts";
import type { Dashboard } from "../state/dashboard.ts";
import { GAP_MS, gapsOf, seriesOf, type History, type Sample } from "../state/history.ts";
import { Command } from "./command.tsx";
import { MQTT_NOTE, publishCommand } from "./examples.ts";
import { Empty, Section, Waiting } from "./section.tsx";
import { isInternal } from "./topics.tsx";

const RANGES_MIN = [2, 5, 15] as const;
const NARROWEST_MS = 60_000;

export function Arrivals({ dashboard }: { dashboard: Dashboard }) {
  const [minutes, setMinutes] = useState<number>(5);
  const [cursor, setCursor] = useState<number | null>(null);
  const slots = useRef<Slots>(new Map());

  const history = dashboard.history.value;
  const last = history.at(-1);
  const range = (
    <fieldset class="choice">
      <legend class="visually-hidden">Time shown</legend>
      {RANGES_MIN.map((value) => (
        <label key={value}>
          <input type="radio" name="range" checked={minutes === value} onChange={() => setMinutes(value)} />
          <span>{value} min</span>
        </label>
      ))}
    </fieldset>
  );
  if (!last) {
    return (
      <Section id="arriving" title="Arriving" dashboard={dashboard}>
        <Waiting what="the first second of the live overview" />
      </Section>
    );
  }

  const to = last.tsMs;
  // A page just opened has little to show: the chart begins narrow and widens to the range chosen.
  const first = history[0]?.tsMs ?? to;
  const from = Math.max(to - minutes * 60_000, Math.min(first, to - NARROWEST_MS));
  const shown = history.filter((sample) => sample.tsMs >= from);
  const details = dashboard.topicDetails.value;
  const ranked = rankByRate(shown, (name) => !isInternal(name, details));
  slots.current = assignSlots(slots.current, ranked);
  const lines = linesOf(history, from, ranked, slots.current);
  const label = `Records per second by topic over the last ${minutes} minutes, arrow keys move the cursor. Now: ${
    lines.map((line) => `${line.name} ${rate(lastValue(line))}`).join(", ") || "nothing arrives"
  }`;
  return (
    <Section id="arriving" title="Arriving" dashboard={dashboard} aside={<>records/s per topic {range}</>}>
      <div class="arriving-body">
        <LineChart
          label={label}
          lines={lines}
          from={from}
          to={to}
          gaps={gapsOf(history, from)}
          cursor={cursor}
          onCursor={setCursor}
        />
        {lines.length === 0 ? (
          <Empty>
            <p>No record has arrived in the time shown. To send one:</p>
            <Command text={publishCommand()} note={MQTT_NOTE} />
          </Empty>
        ) : (
          <Legend lines={lines} cursor={cursor} />
        )}
      </div>
    </Section>
  );
}

function linesOf(history: History, from: number, ranked: readonly string[], slots: Slots): Line[] {
  // In the order of their colours: by rank, two equally busy topics would change places all the time.
  const drawn = [...slots].sort(([, a], [, b]) => a - b).map(([name]) => name);
  const rest = ranked.filter((name) => !slots.has(name));
  const lines: Line[] = drawn.map((name) => ({
    name,
    slot: slots.get(name) ?? null,
    points: seriesOf(history, from, (sample) => sample.rates.get(name) ?? null),
  }));
  if (rest.length > 0) {
    const sum = (sample: Sample) =>
      sample.rates.size === 0 ? null : rest.reduce((total, name) => total + (sample.rates.get(name) ?? 0), 0);
    lines.push({ name: `${rest.length} other topics`, slot: null, points: seriesOf(history, from, sum) });
  }
  return lines;
}

function lastValue(line: Line): number | null {
  return line.points.at(-1)?.y ?? null;
}

function Legend({ lines, cursor }: { lines: readonly Line[]; cursor: number | null }) {
  return (
    <table class="table legend">
      <caption class="visually-hidden">Records per second by topic</caption>
      <thead>
        <tr>
          <th scope="col">Topic</th>
          <th scope="col" class="number">
            {cursor === null ? "Now" : `At ${clockTime(cursor)}`}
          </th>
          <th scope="col" class="number">
            Mean
          </th>
          <th scope="col" class="number">
            Peak
          </th>
        </tr>
      </thead>
      <tbody>
        {lines.map((line) => {
          const values = line.points.flatMap((point) => (point.y === null ? [] : [point.y]));
          const sum = values.reduce((total, value) => total + value, 0);
          return (
            <tr key={line.name}>
              <th scope="row" title={line.name}>
                <svg class="swatch" viewBox="0 0 22 8" width={22} height={8} aria-hidden="true">
                  <path class={`chart-line ${slotClass(line.slot)}`} d="M1 4H21" />
                </svg>
                {line.name}
              </th>
              <td class="number strong">
                {rate(cursor === null ? lastValue(line) : valueNear(line.points, cursor, GAP_MS / 2))}
              </td>
              <td class="number">{rate(values.length > 0 ? sum / values.length : null)}</td>
              <td class="number">{rate(values.length > 0 ? Math.max(...values) : null)}</td>
            </tr>
          );
        })}
      </tbody>
    </table>
  );
}
