/** The page: sign-in, or the dashboard for as long as a session lasts. */
import { useEffect, useMemo } from "preact/hooks";
import type { Session } from "../node/session.ts";
import { Dashboard } from "../state/dashboard.ts";
import { DashboardPage } from "./dashboard-page.tsx";
import { SignIn } from "./sign-in.tsx";

export function App({ session }: { session: Session }) {
  const state = session.state.value;
  return state.kind === "signed-in" ? <Running session={session} /> : <SignIn session={session} state={state} />;
}

function Running({ session }: { session: Session }) {
  const dashboard = useMemo(
    () =>
      new Dashboard({
        session,
        request: (input, init) => window.fetch(input, init),
        openSocket: () =>
          new WebSocket(`${window.location.protocol === "https:" ? "wss" : "ws"}://${window.location.host}/ws/live`),
      }),
    [session],
  );
  useEffect(() => {
    const retry = () => dashboard.retryNow();
    // Timers sleep in hidden tabs: who looks again should not wait for one.
    const looked = () => {
      if (!document.hidden) retry();
    };
    dashboard.start();
    window.addEventListener("online", retry);
    document.addEventListener("visibilitychange", looked);
    return () => {
      window.removeEventListener("online", retry);
      document.removeEventListener("visibilitychange", looked);
      dashboard.stop();
    };
  }, [dashboard]);
  return <DashboardPage dashboard={dashboard} session={session} />;
}
