import { expect, test } from "vitest";
import { bytes, compact, count, percent, plural, rate, reading } from "./number.ts";
import { hexDump, onePayloadLine, showPayload, visible } from "./payload.ts";
import { clockTime, dateTime, duration, instant } from "./time.ts";

test("counts are grouped, the unknown is a dash", () => {
  expect(count(1_234_567)).toBe("1,234,567");
  expect(count(null)).toBe("–");
});

test("rates keep a decimal while it says something", () => {
  expect([0, 0.3, 9.94, 9.96, 1_234.5].map(rate)).toEqual(["0", "0.3", "9.9", "10", "1,235"]);
});

test("axis labels are short", () => {
  expect([0, 0.5, 950, 1_500, 3_000_000, 2e9].map(compact)).toEqual(["0", "0.5", "950", "1.5k", "3M", "2G"]);
});

test("bytes carry binary units", () => {
  expect([0, 1023, 1024, 1536, 5 * 1024 ** 3].map(bytes)).toEqual(["0 B", "1,023 B", "1.0 KiB", "1.5 KiB", "5.0 GiB"]);
});

test("a share above zero never reads as zero, and almost all never as all", () => {
  expect([0, 0.0001, 0.004, 0.126, 0.9999, 1].map(percent)).toEqual([
    "0 %",
    "< 0.1 %",
    "0.4 %",
    "13 %",
    "> 99.9 %",
    "100 %",
  ]);
});

test("readings and plurals", () => {
  expect([42, 41.96, 41.25].map(reading)).toEqual(["42", "42", "41.3"]);
  expect(plural(1, "record", "records")).toBe("1 record");
  expect(plural(1_000, "record", "records")).toBe("1,000 records");
});

test("durations name their two largest units", () => {
  expect([0, 9, 61, 3_600, 3_725, 273_840].map(duration)).toEqual([
    "0 s",
    "9 s",
    "1 min 1 s",
    "1 h",
    "1 h 2 min",
    "3 d 4 h",
  ]);
  expect(duration(-5)).toBe("0 s");
});

test("today is told by the clock, other days with their date", () => {
  const noon = new Date(2026, 4, 3, 12, 0, 7).getTime();
  expect(clockTime(noon)).toBe("12:00:07");
  expect(dateTime(noon, noon + 60_000)).toBe("12:00:07");
  expect(dateTime(noon, noon + 86_400_000)).toBe("2026-05-03 12:00:07");
});

test("an instant that cannot be read is shown as it came", () => {
  expect(instant("yesterday")).toBe("yesterday");
  expect(instant(null)).toBe("–");
});

test("characters that hide or reorder are made visible", () => {
  expect(visible("a\u202eb\u0000c\u200b\td\r\ne")).toBe("a⟨U+202E⟩b⟨U+0000⟩c⟨U+200B⟩\td\ne");
  expect(visible("<script>alert(1)</script>")).toBe("<script>alert(1)</script>");
});

test("bytes that are not text are dumped", () => {
  expect(hexDump(Uint8Array.from([0x00, 0x48, 0x69, 0xff]))).toBe(`000000  ${"00 48 69 ff".padEnd(47)}  .Hi.`);
  expect(hexDump(new Uint8Array(17)).split("\n")).toHaveLength(2);
});

test("long payloads are cut and say by how much", () => {
  expect(showPayload("x".repeat(10), "utf-8", 4)).toEqual({ text: "xxxx", left: 6, leftUnit: "characters" });
  expect(showPayload(btoa("abcdef"), "base64", 4)).toMatchObject({ left: 2, leftUnit: "bytes" });
  expect(showPayload("not base64 !", "base64", 100).text).toBe("not base64 !");
});

test("a list shows one line", () => {
  expect(onePayloadLine('{\n  "a": 1\n}', "utf-8", 100)).toBe('{ "a": 1 }');
  expect(onePayloadLine("abcdef", "utf-8", 3)).toBe("abc…");
  expect(onePayloadLine(btoa("abc"), "base64", 100)).toBe("3 bytes, not text");
  expect(onePayloadLine(null, "utf-8", 100)).toBe("null");
});
