/** What is known about the connection, as a person should hear it. */
import type { LiveEvent } from "../node/live.ts";

export type Connection =
  | { phase: "connecting" }
  | { phase: "connected"; restored: { lostAtMs: number; atMs: number } | null }
  | {
      phase: "lost";
      /** When the node was last heard, or when the first attempt failed. */
      sinceMs: number;
      everConnected: boolean;
      /** Null while an attempt is under way. */
      nextAttemptAtMs: number | null;
    };

export const initialConnection: Connection = { phase: "connecting" };

export function connectionAfter(state: Connection, event: LiveEvent, nowMs: number): Connection {
  switch (event.type) {
    case "attempt":
      return state.phase === "lost" ? { ...state, nextAttemptAtMs: null } : state;
    case "connected":
      return {
        phase: "connected",
        restored: state.phase === "lost" && state.everConnected ? { lostAtMs: state.sinceMs, atMs: event.atMs } : null,
      };
    case "lost":
      // Further failed attempts belong to the same loss.
      if (state.phase === "lost") return state;
      return {
        phase: "lost",
        sinceMs: event.lastHeardMs ?? nowMs,
        everConnected: state.phase === "connected",
        nextAttemptAtMs: null,
      };
    case "scheduled":
      return state.phase === "lost" ? { ...state, nextAttemptAtMs: event.atMs } : state;
  }
}

/** The good news stays long enough to be read, then makes room. */
const RESTORED_SHOWN_MS = 15_000;

export function isRestoredNews(state: Connection, nowMs: number): boolean {
  return state.phase === "connected" && state.restored !== null && nowMs - state.restored.atMs < RESTORED_SHOWN_MS;
}

/** The time since which the data on the page is not being refreshed, or null while it is. */
export function staleSince(state: Connection): number | null {
  return state.phase === "lost" && state.everConnected ? state.sinceMs : null;
}
