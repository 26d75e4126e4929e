/** The signed-in page: its order, its staleness and its title. */
import { useEffect } from "preact/hooks";
import type { Session } from "../node/session.ts";
import { staleSince } from "../state/connection.ts";
import type { Dashboard } from "../state/dashboard.ts";
import { Alarms, failedLog } from "./alarms.tsx";
import { Arrivals } from "./arrivals.tsx";
import { Groups } from "./groups.tsx";
import { Header } from "./header.tsx";
import { NodeHealth } from "./node-health.tsx";
import { QualityTable } from "./quality.tsx";
import { RejectedRecords } from "./rejected.tsx";
import { Speed } from "./speed.tsx";
import { LiveTail } from "./tail.tsx";
import { Topics } from "./topics.tsx";

export function DashboardPage({ dashboard, session }: { dashboard: Dashboard; session: Session }) {
  const stale = staleSince(dashboard.connection.value) !== null;
  return (
    <>
      <Title dashboard={dashboard} />
      <Header dashboard={dashboard} session={session} />
      <main class={stale ? "page stale" : "page"} id="main" tabIndex={-1}>
        <Alarms dashboard={dashboard} session={session} />
        <NodeHealth dashboard={dashboard} />
        <Arrivals dashboard={dashboard} />
        <Speed dashboard={dashboard} />
        <Topics dashboard={dashboard} />
        <Groups dashboard={dashboard} />
        <QualityTable dashboard={dashboard} />
        <RejectedRecords dashboard={dashboard} />
        <LiveTail dashboard={dashboard} />
      </main>
    </>
  );
}

/** The tab tells the worst news even when the page is not in front. */
function Title({ dashboard }: { dashboard: Dashboard }) {
  const failed = failedLog(dashboard) !== null;
  const lost = dashboard.connection.value.phase === "lost";
  const title = failed ? "LOG FAILED – Holdfast" : lost ? "Connection lost – Holdfast" : "Holdfast";
  useEffect(() => {
    document.title = title;
  }, [title]);
  return null;
}
