/** Numbers as people read them; the unit is always said by the caller or by the function's name. */

const whole = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 0 });
const oneDecimal = new Intl.NumberFormat("en-GB", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const upToOneDecimal = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 1 });

export const NOT_KNOWN = "–";

export function count(value: number | null): string {
  return value === null ? NOT_KNOWN : whole.format(value);
}

/** Per-second rates: one decimal while it still says something. */
export function rate(value: number | null): string {
  if (value === null) return NOT_KNOWN;
  if (value === 0) return "0";
  return Math.abs(value) < 9.95 ? oneDecimal.format(value) : whole.format(value);
}

/** Readings of a sensor, as precise as they came up to one decimal. */
export function reading(value: number | null): string {
  return value === null ? NOT_KNOWN : upToOneDecimal.format(value);
}

/** Axis labels: `950`, `1.5k`, `3M`. */
export function compact(value: number): string {
  const magnitude = Math.abs(value);
  if (magnitude >= 1e9) return `${upToOneDecimal.format(value / 1e9)}G`;
  if (magnitude >= 1e6) return `${upToOneDecimal.format(value / 1e6)}M`;
  if (magnitude >= 1e3) return `${upToOneDecimal.format(value / 1e3)}k`;
  return String(Number(value.toPrecision(3)));
}

const BYTE_UNITS = ["B", "KiB", "MiB", "GiB", "TiB"] as const;

export function bytes(value: number | null): string {
  if (value === null) return NOT_KNOWN;
  let amount = value;
  let unit = 0;
  while (Math.abs(amount) >= 1024 && unit < BYTE_UNITS.length - 1) {
    amount /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || Math.abs(amount) >= 99.95 ? whole.format(amount) : oneDecimal.format(amount);
  return `${digits} ${BYTE_UNITS[unit]}`;
}

/** A share of 1. What is above zero never reads as zero, and what is below all never as all. */
export function percent(share: number): string {
  const value = share * 100;
  if (value === 0) return "0 %";
  if (value < 0.1) return "< 0.1 %";
  if (value < 100 && value > 99.9) return "> 99.9 %";
  return `${value < 9.95 ? oneDecimal.format(value) : whole.format(value)} %`;
}

export function plural(value: number, one: string, many: string): string {
  return `${count(value)} ${value === 1 ? one : many}`;
}
