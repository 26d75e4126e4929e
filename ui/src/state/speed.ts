/** The latest reading and a short history of every sensor. */
import type { SpeedReading } from "../node/messages.ts";
import type { Point } from "./history.ts";

export interface Sensor {
  latest: SpeedReading;
  /** When the page heard it, on the page's clock: what staleness is judged by. */
  heardAtMs: number;
  history: readonly Point[];
}

export type Sensors = ReadonlyMap<string, Sensor>;

export const SPEED_HISTORY_MS = 2 * 60_000;
const READINGS_MAX = 600;
export const SENSORS_MAX = 1_000;
/** A line over a longer silence would claim readings that nobody made. */
const BREAK_AFTER_MS = 15_000;

export function readSpeeds(sensors: Sensors, readings: readonly SpeedReading[], nowMs: number): Sensors {
  if (readings.length === 0) return sensors;
  const next = new Map(sensors);
  for (const reading of readings) {
    const known = next.get(reading.sensorId);
    if (!known && next.size >= SENSORS_MAX) continue;
    // After a reconnection the node tells again what it told before: nobody measured anything then.
    if (known && reading.snapshot && isSame(known.latest, reading)) continue;
    next.set(reading.sensorId, {
      latest: reading,
      heardAtMs: nowMs,
      history: extend(known?.history ?? [], nowMs, reading.speed),
    });
  }
  return next;
}

function isSame(a: SpeedReading, b: SpeedReading): boolean {
  return a.speed === b.speed && a.tsMs === b.tsMs;
}

function extend(history: readonly Point[], x: number, y: number): Point[] {
  const kept = history.filter((point) => point.x >= x - SPEED_HISTORY_MS);
  const last = kept.at(-1);
  if (last && x - last.x > BREAK_AFTER_MS) kept.push({ x: last.x + 1, y: null });
  return [...kept, { x, y }].slice(-READINGS_MAX);
}

/** The first of the steps that holds everything seen, so that the dial does not breathe. */
export function dialMax(sensor: Sensor): number {
  const highest = sensor.history.reduce((max, point) => Math.max(max, point.y ?? 0), sensor.latest.speed);
  return [60, 120, 180, 240, 400, 800].find((step) => highest <= step) ?? Math.ceil(highest / 500) * 500;
}

export function sensorNames(sensors: Sensors): string[] {
  return [...sensors.keys()].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
}
