/**
 * Lines over time with axes, gaps and a cursor.
 *
 * The cursor follows pointer or arrow keys and is owned by the caller, whose legend shows the
 * values there.
 */
import { compact } from "../format/number.ts";
import { clockTime } from "../format/time.ts";
import type { Point } from "../state/history.ts";
import { linear, linePath, timeTicks, valueTicks } from "./scale.ts";
import { useWidth } from "./use-width.ts";

export interface Line {
  name: string;
  /** Colour slot, or null for what is drawn in grey. */
  slot: number | null;
  points: readonly Point[];
}

interface Props {
  label: string;
  lines: readonly Line[];
  from: number;
  to: number;
  gaps: readonly { from: number; to: number }[];
  cursor: number | null;
  onCursor: (x: number | null) => void;
}

const HEIGHT = 232;
const LEFT = 44;
const RIGHT = 8;
const TOP = 10;
const BOTTOM = 22;
const KEY_STEP_MS = 1_000;

export function LineChart({ label, lines, from, to, gaps, cursor, onCursor }: Props) {
  const [ref, width] = useWidth<HTMLDivElement>(640);
  const right = width - RIGHT;
  const bottom = HEIGHT - BOTTOM;
  const highest = lines.reduce(
    (max, line) => line.points.reduce((most, point) => Math.max(most, point.y ?? 0), max),
    0,
  );
  const ticks = valueTicks(highest, 4);
  const x = linear(from, to, LEFT, right);
  const y = linear(0, ticks.at(-1) ?? 1, bottom, TOP);

  const pointed = (event: PointerEvent) => {
    const box = ref.current?.getBoundingClientRect();
    if (!box) return;
    const at = from + ((event.clientX - box.left - LEFT) / (right - LEFT)) * (to - from);
    onCursor(at < from || at > to ? null : at);
  };
  const pressed = (event: KeyboardEvent) => {
    const step = event.key === "ArrowLeft" ? -KEY_STEP_MS : event.key === "ArrowRight" ? KEY_STEP_MS : 0;
    if (step !== 0) {
      event.preventDefault();
      const stride = event.shiftKey ? step * 10 : step;
      onCursor(Math.min(to, Math.max(from, (cursor ?? to) + stride)));
    } else if (event.key === "Escape") {
      onCursor(null);
    }
  };

  return (
    <div
      class="chart"
      ref={ref}
      role="img"
      aria-label={label}
      tabIndex={0}
      onPointerMove={pointed}
      onPointerDown={pointed}
      onPointerLeave={() => onCursor(null)}
      onBlur={() => onCursor(null)}
      onKeyDown={pressed}
    >
      <svg width={width} height={HEIGHT} viewBox={`0 0 ${width} ${HEIGHT}`} aria-hidden="true">
        {gaps.map((gap) => (
          <g key={gap.from}>
            <rect
              class="chart-gap"
              x={x(gap.from)}
              y={TOP}
              width={Math.max(1, x(gap.to) - x(gap.from))}
              height={bottom - TOP}
            />
            {x(gap.to) - x(gap.from) > 60 && (
              <text class="chart-gap-label" x={(x(gap.from) + x(gap.to)) / 2} y={TOP + 14} text-anchor="middle">
                no data
              </text>
            )}
          </g>
        ))}
        {ticks.map((tick) => (
          <g key={tick}>
            <line class={tick === 0 ? "chart-base" : "chart-grid"} x1={LEFT} x2={right} y1={y(tick)} y2={y(tick)} />
            <text class="chart-tick" x={LEFT - 6} y={y(tick) + 4} text-anchor="end">
              {compact(tick)}
            </text>
          </g>
        ))}
        {timeTicks(from, to, Math.max(2, Math.floor(width / 110))).map((tick) => (
          <g key={tick}>
            <line class="chart-base" x1={x(tick)} x2={x(tick)} y1={bottom} y2={bottom + 4} />
            <text
              class="chart-tick"
              x={Math.min(Math.max(x(tick), LEFT + 16), right - 24)}
              y={HEIGHT - 5}
              text-anchor="middle"
            >
              {clockTime(tick)}
            </text>
          </g>
        ))}
        {lines.map((line) => (
          <path key={line.name} class={`chart-line ${slotClass(line.slot)}`} d={linePath(line.points, x, y)} />
        ))}
        {cursor !== null && cursor >= from && (
          <line class="chart-cursor" x1={x(cursor)} x2={x(cursor)} y1={TOP} y2={bottom} />
        )}
      </svg>
    </div>
  );
}

export function slotClass(slot: number | null): string {
  return slot === null ? "slot-rest" : `slot-${slot}`;
}
