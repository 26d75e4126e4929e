import { expect, test } from "vitest";
import { connectionAfter, initialConnection, isRestoredNews, staleSince, type Connection } from "./connection.ts";

const connected: Connection = { phase: "connected", restored: null };

test("the first connection is no news and nothing is stale", () => {
  const state = connectionAfter(initialConnection, { type: "connected", atMs: 5 }, 5);
  expect(state).toEqual(connected);
  expect(staleSince(state)).toBeNull();
});

test("data is stale since the node was last heard, not since the loss was noticed", () => {
  const state = connectionAfter(connected, { type: "lost", lastHeardMs: 1_000 }, 7_000);
  expect(staleSince(state)).toBe(1_000);
});

test("failed attempts do not move the time of the loss", () => {
  let state = connectionAfter(connected, { type: "lost", lastHeardMs: 1_000 }, 2_000);
  state = connectionAfter(state, { type: "scheduled", attempt: 1, atMs: 2_500 }, 2_000);
  expect(state).toMatchObject({ sinceMs: 1_000, nextAttemptAtMs: 2_500 });
  state = connectionAfter(state, { type: "attempt" }, 2_500);
  expect(state).toMatchObject({ nextAttemptAtMs: null });
  state = connectionAfter(state, { type: "lost", lastHeardMs: 1_000 }, 3_000);
  expect(state).toMatchObject({ phase: "lost", sinceMs: 1_000, everConnected: true });
});

test("found again tells how long it was gone, for a while", () => {
  const lost = connectionAfter(connected, { type: "lost", lastHeardMs: 1_000 }, 2_000);
  const state = connectionAfter(lost, { type: "connected", atMs: 61_000 }, 61_000);
  expect(state).toEqual({ phase: "connected", restored: { lostAtMs: 1_000, atMs: 61_000 } });
  expect(isRestoredNews(state, 62_000)).toBe(true);
  expect(isRestoredNews(state, 80_000)).toBe(false);
});

test("a node never reached has no old data to mark", () => {
  const lost = connectionAfter(initialConnection, { type: "lost", lastHeardMs: null }, 2_000);
  expect(lost).toMatchObject({ phase: "lost", everConnected: false, sinceMs: 2_000 });
  expect(staleSince(lost)).toBeNull();
  expect(connectionAfter(lost, { type: "connected", atMs: 3_000 }, 3_000)).toEqual(connected);
});
