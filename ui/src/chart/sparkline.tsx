/** A line without axes, for the shape of a value beside its number. */
import type { Point } from "../state/history.ts";
import { linear, linePath } from "./scale.ts";

interface Props {
  points: readonly Point[];
  from: number;
  to: number;
  width: number;
  height: number;
  /** The height stands for at least this much, so that a little noise does not look like a mountain. */
  least?: number;
  class?: string;
}

/** Purely visual: the number it belongs to stands beside it. */
export function Sparkline({ points, from, to, width, height, least = 0, class: extra = "" }: Props) {
  const highest = points.reduce((max, point) => Math.max(max, point.y ?? 0), least);
  const x = linear(from, to, 1, width - 2);
  const y = linear(0, highest || 1, height - 1.5, 2);
  return (
    <svg
      class={`sparkline ${extra}`}
      viewBox={`0 0 ${width} ${height}`}
      width={width}
      height={height}
      aria-hidden="true"
    >
      <path class="sparkline-base" d={`M0 ${height - 0.5}H${width}`} />
      <path class="sparkline-line" d={linePath(points, x, y)} />
    </svg>
  );
}
