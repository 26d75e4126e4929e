/** Connected, lost since, found again. */
import { clockTime, duration } from "../format/time.ts";
import { nowMs } from "../state/clock.ts";
import { isRestoredNews, type Connection } from "../state/connection.ts";
import type { Dashboard } from "../state/dashboard.ts";

export function ConnectionStatus({ dashboard }: { dashboard: Dashboard }) {
  const connection = dashboard.connection.value;
  const lost = connection.phase === "lost";
  return (
    <div class={`connection connection-${connection.phase}`} data-connection={connection.phase}>
      {/* Only the sentence is announced; the countdown beside it would never stop talking. */}
      <span role="status">
        <span class="dot" aria-hidden="true" />
        {sentence(connection, nowMs.value)}
      </span>
      {lost && (
        <>
          <span class="countdown">{countdown(connection.nextAttemptAtMs, nowMs.value)}</span>
          <button
            class="button button-small"
            type="button"
            onClick={() => dashboard.retryNow()}
            disabled={connection.nextAttemptAtMs === null}
          >
            Try now
          </button>
        </>
      )}
    </div>
  );
}

function sentence(connection: Connection, now: number): string {
  switch (connection.phase) {
    case "connecting":
      return "Connecting…";
    case "connected":
      if (connection.restored === null || !isRestoredNews(connection, now)) return "Connected";
      return `Connection found again at ${clockTime(connection.restored.atMs)}, after ${duration(
        (connection.restored.atMs - connection.restored.lostAtMs) / 1000,
      )}`;
    case "lost":
      return connection.everConnected
        ? `Connection lost since ${clockTime(connection.sinceMs)}`
        : `No connection to the node since ${clockTime(connection.sinceMs)}`;
  }
}

function countdown(nextAttemptAtMs: number | null, now: number): string {
  if (nextAttemptAtMs === null) return "trying…";
  return `next attempt in ${Math.max(0, Math.ceil((nextAttemptAtMs - now) / 1000))} s`;
}
