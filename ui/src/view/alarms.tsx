/** What needs a person now. */
import type { Session } from "../node/session.ts";
import { clockTime } from "../format/time.ts";
import { nowMs } from "../state/clock.ts";
import { isFailed, type Dashboard } from "../state/dashboard.ts";

/** A session that cannot be renewed is announced this long before it ends. */
const ENDING_SOON_MS = 5 * 60_000;

/** Health is asked every five seconds and the overview speaks every second: whoever says it first is believed. */
export function failedLog(dashboard: Dashboard): { reason: string | null } | null {
  const health = dashboard.health.value;
  const failed = isFailed(health?.log.state) || isFailed(dashboard.overview.value?.log.state);
  return failed ? { reason: health?.log.reason ?? null } : null;
}

export function Alarms({ dashboard, session }: { dashboard: Dashboard; session: Session }) {
  const failed = failedLog(dashboard);
  const health = dashboard.health.value;
  return (
    <div class="alarms">
      <div role="alert">
        {failed !== null && (
          <div class="alarm">
            <strong class="alarm-title">The log has failed. This node accepts no more records.</strong>
            {failed.reason !== null && (
              <p>
                Reason: <code>{failed.reason}</code>
              </p>
            )}
            <p>
              Producers and devices get errors and keep what they have not had acknowledged. The node does not recover
              by itself: check the disk, then restart it.
            </p>
          </div>
        )}
        {failed === null && health !== null && !health.ok && (
          <div class="alarm">
            <strong class="alarm-title">The node reports that it is not healthy.</strong>
            <p>
              The log's state is {health.log.state || "unknown"}. Which part failed stands in{" "}
              <a href="/health">/health</a>.
            </p>
          </div>
        )}
      </div>
      <SessionEnding session={session} />
    </div>
  );
}

function SessionEnding({ session }: { session: Session }) {
  const state = session.state.value;
  if (state.kind !== "signed-in" || state.renewable || state.expiresAtMs - nowMs.value > ENDING_SOON_MS) return null;
  return (
    <p class="notice notice-warn" role="status">
      This session ends at {clockTime(state.expiresAtMs)}. After a reload the page no longer holds the secret and cannot
      renew it.{" "}
      <button class="button button-small" type="button" onClick={() => session.signOut()}>
        Sign in again
      </button>
    </p>
  );
}
