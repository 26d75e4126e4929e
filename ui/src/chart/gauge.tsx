/** A dial from zero to `max`. */
import { reading } from "../format/number.ts";

interface Props {
  label: string;
  value: number;
  max: number;
  unit: string;
}

/** Degrees from the lower left over the top to the lower right; SVG counts clockwise from east. */
const START = 150;
const SWEEP = 240;
const CENTRE_X = 120;
const CENTRE_Y = 112;
const RADIUS = 92;
const TICKS = 6;

export function Gauge({ label, value, max, unit }: Props) {
  const share = Math.min(1, Math.max(0, value / max));
  const ticks = Array.from({ length: TICKS + 1 }, (_, index) => index / TICKS);
  return (
    <svg
      class="gauge"
      viewBox="0 0 240 180"
      role="meter"
      aria-label={label}
      aria-valuemin={0}
      aria-valuemax={max}
      aria-valuenow={value}
      aria-valuetext={`${reading(value)} ${unit}`}
    >
      <path class="gauge-track" d={arc(RADIUS)} pathLength={100} />
      <path
        class="gauge-value"
        d={arc(RADIUS)}
        pathLength={100}
        stroke-dasharray="100 200"
        stroke-dashoffset={100 - share * 100}
      />
      {ticks.map((tick) => {
        const inner = onCircle(RADIUS - 13, tick);
        const outer = onCircle(RADIUS - 8, tick);
        const text = onCircle(RADIUS - 26, tick);
        return (
          <g key={tick}>
            <line class="gauge-tick" x1={inner.x} y1={inner.y} x2={outer.x} y2={outer.y} />
            <text class="gauge-number" x={text.x} y={text.y + 4} text-anchor="middle">
              {Math.round(max * tick)}
            </text>
          </g>
        );
      })}
      <text class="gauge-reading" x={CENTRE_X} y={CENTRE_Y + 12} text-anchor="middle">
        {reading(value)}
      </text>
      <text class="gauge-unit" x={CENTRE_X} y={CENTRE_Y + 34} text-anchor="middle">
        {unit}
      </text>
    </svg>
  );
}

function onCircle(radius: number, share: number): { x: number; y: number } {
  const angle = ((START + SWEEP * share) * Math.PI) / 180;
  return { x: CENTRE_X + radius * Math.cos(angle), y: CENTRE_Y + radius * Math.sin(angle) };
}

function arc(radius: number): string {
  const from = onCircle(radius, 0);
  const to = onCircle(radius, 1);
  return `M${from.x} ${from.y}A${radius} ${radius} 0 1 1 ${to.x} ${to.y}`;
}
