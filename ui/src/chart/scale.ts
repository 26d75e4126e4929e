/** Arithmetic of axes and lines; knows nothing of the page. */
import type { Point } from "../state/history.ts";

/** A linear map from [from, to] onto [start, end]. */
export function linear(from: number, to: number, start: number, end: number): (value: number) => number {
  const span = to - from || 1;
  return (value) => start + ((value - from) / span) * (end - start);
}

/** Ticks from zero to at least `max` in steps of 1, 2 or 5 times a power of ten; the last one is the axis' end. */
export function valueTicks(max: number, about: number): number[] {
  const highest = max > 0 ? max : 1;
  const rough = highest / about;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = ([1, 2, 5, 10].find((factor) => factor * power >= rough) ?? 10) * power;
  const steps = Math.ceil(highest / step - 1e-9);
  // Multiplying rather than adding up keeps 0.3 from becoming 0.30000000000000004 twice over.
  return Array.from({ length: steps + 1 }, (_, index) => Number((index * step).toPrecision(12)));
}

const TIME_STEPS_S = [5, 10, 15, 30, 60, 120, 300, 600];

/** Round instants within [from, to], no more than `most` of them. */
export function timeTicks(fromMs: number, toMs: number, most: number): number[] {
  const spanS = (toMs - fromMs) / 1000;
  const stepMs = (TIME_STEPS_S.find((step) => spanS / step <= most) ?? 600) * 1000;
  const ticks: number[] = [];
  for (let at = Math.ceil(fromMs / stepMs) * stepMs; at <= toMs; at += stepMs) ticks.push(at);
  return ticks;
}

/** An SVG path; null values lift the pen. A lone point between two gaps becomes a dot. */
export function linePath(points: readonly Point[], x: (value: number) => number, y: (value: number) => number): string {
  let path = "";
  let drawing = false;
  points.forEach((point, index) => {
    if (point.y === null) {
      drawing = false;
      return;
    }
    const at = `${x(point.x).toFixed(1)} ${y(point.y).toFixed(1)}`;
    const alone = !drawing && (points[index + 1]?.y ?? null) === null;
    path += alone ? `M${at}h0` : `${drawing ? "L" : "M"}${at}`;
    drawing = true;
  });
  return path;
}

/** Each value as the mean of itself and those before it, `over` in all; never across a gap. */
export function smoothed(points: readonly Point[], over: number): Point[] {
  const window: number[] = [];
  return points.map(({ x, y }) => {
    if (y === null) {
      window.length = 0;
      return { x, y };
    }
    window.push(y);
    if (window.length > over) window.shift();
    return { x, y: window.reduce((sum, value) => sum + value, 0) / window.length };
  });
}

/** The value nearest to `x` within `tolerance`, or null where nothing was heard. */
export function valueNear(points: readonly Point[], x: number, tolerance: number): number | null {
  let best: Point | null = null;
  for (const point of points) {
    if (point.y !== null && (best === null || Math.abs(point.x - x) < Math.abs(best.x - x))) best = point;
  }
  return best !== null && Math.abs(best.x - x) <= tolerance ? best.y : null;
}
