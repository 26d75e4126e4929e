/** Times in the reader's own zone, on a 24-hour clock. */

const clock = new Intl.DateTimeFormat("en-GB", {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  hourCycle: "h23",
});
const day = new Intl.DateTimeFormat("en-CA", { year: "numeric", month: "2-digit", day: "2-digit" });

export function clockTime(ms: number): string {
  return clock.format(ms);
}

/** The clock alone for today, with the date before it otherwise. */
export function dateTime(ms: number, nowMs: number = Date.now()): string {
  const date = day.format(ms);
  return date === day.format(nowMs) ? clockTime(ms) : `${date} ${clockTime(ms)}`;
}

/** Instants as the node writes them (RFC 3339); what cannot be read is shown as it came. */
export function instant(text: string | null, nowMs: number = Date.now()): string {
  if (text === null || text === "") return "–";
  const ms = Date.parse(text);
  return Number.isNaN(ms) ? text : dateTime(ms, nowMs);
}

/** The two largest units: `3 d 4 h`, `12 min 4 s`, `9 s`. */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds));
  const parts: [number, string][] = [
    [Math.floor(whole / 86_400), "d"],
    [Math.floor(whole / 3_600) % 24, "h"],
    [Math.floor(whole / 60) % 60, "min"],
    [whole % 60, "s"],
  ];
  const first = parts.findIndex(([amount]) => amount > 0);
  if (first === -1) return "0 s";
  return parts
    .slice(first, first + 2)
    .filter(([amount], index) => index === 0 || amount > 0)
    .map(([amount, unit]) => `${amount} ${unit}`)
    .join(" ");
}
