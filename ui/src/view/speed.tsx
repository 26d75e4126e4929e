/** The dial of one sensor with its last two minutes. */
import { useState } from "preact/hooks";
import { Gauge } from "../chart/gauge.tsx";
import { Sparkline } from "../chart/sparkline.tsx";
import { plural, reading } from "../format/number.ts";
import { clockTime, duration } from "../format/time.ts";
import { nowMs } from "../state/clock.ts";
import type { Dashboard } from "../state/dashboard.ts";
import { dialMax, sensorNames, SENSORS_MAX, SPEED_HISTORY_MS, type Sensor } from "../state/speed.ts";
import { Command } from "./command.tsx";
import { MQTT_NOTE, publishSpeedCommand } from "./examples.ts";
import { Empty, Section, Waiting } from "./section.tsx";

const UNIT = "km/h";
/** A reading older than this is no longer what the sensor measures now. */
const QUIET_AFTER_MS = 15_000;

export function Speed({ dashboard }: { dashboard: Dashboard }) {
  const [wanted, setWanted] = useState<string | null>(null);
  const sensors = dashboard.sensors.value;
  if (sensors === null) {
    return (
      <Section id="speed" room="speed" title="Speed" dashboard={dashboard}>
        <Waiting what="the sensors" />
      </Section>
    );
  }
  const names = sensorNames(sensors);
  const chosen = wanted !== null && sensors.has(wanted) ? wanted : names[0];
  const sensor = chosen === undefined ? undefined : sensors.get(chosen);
  if (chosen === undefined || sensor === undefined) {
    return (
      <Section id="speed" room="speed" title="Speed" dashboard={dashboard}>
        <Empty>
          <p>No speed reading yet. To send one:</p>
          <Command text={publishSpeedCommand()} note={MQTT_NOTE} />
        </Empty>
      </Section>
    );
  }
  const chooser = (
    <label class="inline-label">
      <span>Sensor</span>
      <select value={chosen} onChange={(event) => setWanted(event.currentTarget.value)}>
        {names.map((name) => (
          <option key={name} value={name}>
            {name}
          </option>
        ))}
      </select>
    </label>
  );
  return (
    <Section id="speed" room="speed" title="Speed" dashboard={dashboard} aside={chooser}>
      <Gauge label={`Speed of ${chosen}`} value={sensor.latest.speed} max={dialMax(sensor)} unit={UNIT} />
      <SpeedHistory sensor={sensor} />
      {names.length >= SENSORS_MAX && (
        <p class="muted">The first {plural(SENSORS_MAX, "sensor", "sensors")} are listed.</p>
      )}
    </Section>
  );
}

function SpeedHistory({ sensor }: { sensor: Sensor }) {
  const now = nowMs.value;
  const to = Math.max(now, sensor.heardAtMs);
  const values = sensor.history.flatMap((point) => (point.y === null ? [] : [point.y]));
  const quiet = now - sensor.heardAtMs > QUIET_AFTER_MS;
  const at = sensor.latest.tsMs ?? sensor.heardAtMs;
  return (
    <div class="speed-history">
      <Sparkline
        points={sensor.history}
        from={to - SPEED_HISTORY_MS}
        to={to}
        width={240}
        height={44}
        class="sparkline-wide"
      />
      <p class="muted speed-facts">
        <span>
          2 min: {reading(Math.min(...values))} to {reading(Math.max(...values))} {UNIT}
        </span>
        <span class={quiet ? "warn" : ""}>
          {quiet ? `no reading for ${duration((now - sensor.heardAtMs) / 1000)}` : `read at ${clockTime(at)}`}
        </span>
      </p>
    </div>
  );
}
