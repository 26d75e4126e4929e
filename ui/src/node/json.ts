/**
 * Readers for JSON that came over the wire.
 *
 * Nothing is believed about the shape of what arrives: a newer or older node may add, drop or
 * retype a field, and the page must go on with what it can read.
 */

export type JsonObject = Record<string, unknown>;

export function asObject(value: unknown): JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as JsonObject) : {};
}

export function asArray(value: unknown): unknown[] {
  return Array.isArray(value) ? value : [];
}

export function asText(value: unknown, otherwise = ""): string {
  return typeof value === "string" ? value : otherwise;
}

export function asTextOrNull(value: unknown): string | null {
  return typeof value === "string" && value !== "" ? value : null;
}

/** A finite number, or null: `NaN` and infinities would poison sums and scales. */
export function asNumberOrNull(value: unknown): number | null {
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}

export function asNumber(value: unknown, otherwise = 0): number {
  return asNumberOrNull(value) ?? otherwise;
}

/** Identifiers may be numbers or strings on the wire; the page only compares them. */
export function asIdentifier(value: unknown): string {
  return typeof value === "number" || typeof value === "string" ? String(value) : "";
}

export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}
