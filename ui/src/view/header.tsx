/** The bar that never leaves: what this is, where to go, and whether the page is connected. */
import type { Session } from "../node/session.ts";
import type { Dashboard } from "../state/dashboard.ts";
import { ConnectionStatus } from "./connection-status.tsx";

const SECTIONS = [
  ["arriving", "Arriving"],
  ["speed", "Speed"],
  ["topics", "Topics"],
  ["groups", "Groups"],
  ["quality", "Quality"],
  ["rejected", "Rejected"],
  ["tail", "Tail"],
] as const;

export function Header({ dashboard, session }: { dashboard: Dashboard; session: Session }) {
  const state = session.state.value;
  return (
    <header class="bar">
      <a class="skip" href="#main">
        Skip to content
      </a>
      <div class="bar-row">
        <h1 class="brand">
          <img src="/favicon.svg" alt="" width={22} height={22} /> Holdfast
        </h1>
        <nav class="jump" aria-label="Sections">
          {SECTIONS.map(([id, name]) => (
            <a key={id} href={`#${id}`}>
              {name}
            </a>
          ))}
        </nav>
        <ConnectionStatus dashboard={dashboard} />
        <div class="account">
          {state.kind === "signed-in" && <span class="muted account-name">{state.clientId}</span>}
          <button class="button button-small" type="button" onClick={() => session.signOut()}>
            Sign out
          </button>
        </div>
      </div>
    </header>
  );
}
