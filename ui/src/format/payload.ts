/**
 * Payloads as text a person can trust.
 *
 * A payload is written by a stranger. It is only ever shown as text, and characters that would
 * hide, reorder or move what is around them are made visible.
 */
import type { Encoding } from "../node/messages.ts";

/** C0 and C1 controls but tab and line breaks, bidirectional controls, zero-width and line separators. */
const DECEPTIVE = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

export function visible(text: string): string {
  return text.replaceAll("\r\n", "\n").replace(DECEPTIVE, (character) => {
    const code = character.codePointAt(0) ?? 0;
    return `⟨U+${code.toString(16).toUpperCase().padStart(4, "0")}⟩`;
  });
}

export interface Shown {
  text: string;
  /** Bytes or characters left out at the end. */
  left: number;
  leftUnit: "characters" | "bytes";
}

/** The payload for display, at most `max` characters or bytes of it. */
export function showPayload(payload: string, encoding: Encoding, max: number): Shown {
  if (encoding === "base64") {
    const bytes = decodeBase64(payload);
    if (bytes !== null) {
      return { text: hexDump(bytes.subarray(0, max)), left: Math.max(0, bytes.length - max), leftUnit: "bytes" };
    }
  }
  return { text: visible(payload.slice(0, max)), left: Math.max(0, payload.length - max), leftUnit: "characters" };
}

/** One line for a list. */
export function onePayloadLine(payload: string | null, encoding: Encoding, max: number): string {
  if (payload === null) return "null";
  if (encoding === "base64") {
    const bytes = decodeBase64(payload);
    if (bytes !== null) return `${bytes.length} bytes, not text`;
  }
  const line = visible(payload.slice(0, max)).replace(/\s+/g, " ");
  return payload.length > max ? `${line}…` : line;
}

function decodeBase64(text: string): Uint8Array | null {
  try {
    return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  } catch {
    return null;
  }
}

const ROW_BYTES = 16;

/** Offset, hexadecimal and printable ASCII, sixteen bytes a line. */
export function hexDump(bytes: Uint8Array): string {
  const lines: string[] = [];
  for (let at = 0; at < bytes.length; at += ROW_BYTES) {
    const row = [...bytes.subarray(at, at + ROW_BYTES)];
    const hex = row.map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
    const printable = row.map((byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : ".")).join("");
    lines.push(`${at.toString(16).padStart(6, "0")}  ${hex.padEnd(ROW_BYTES * 3 - 1)}  ${printable}`);
  }
  return lines.join("\n");
}
