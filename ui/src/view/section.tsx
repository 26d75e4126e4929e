/** A titled part of the page, which says so when what it shows is old. */
import type { ComponentChildren } from "preact";
import { clockTime } from "../format/time.ts";
import { staleSince } from "../state/connection.ts";
import type { Dashboard } from "../state/dashboard.ts";

interface Props {
  id: string;
  title: string;
  dashboard: Dashboard;
  /** The room that feeds it, whose trouble is told here. */
  room?: string;
  /** Beside the title: what the numbers are, or a control. */
  aside?: ComponentChildren;
  children: ComponentChildren;
}

export function Section({ id, title, dashboard, room, aside, children }: Props) {
  const since = staleSince(dashboard.connection.value);
  const trouble = room === undefined ? undefined : dashboard.troubles.value.get(room);
  return (
    <section class={`section section-${id}`} id={id} aria-labelledby={`${id}-title`}>
      <header class="section-head">
        <h2 id={`${id}-title`}>{title}</h2>
        {since !== null && <span class="stale-mark">stale since {clockTime(since)}</span>}
        {aside !== undefined && aside !== false && <div class="section-aside">{aside}</div>}
      </header>
      {trouble !== undefined && (
        <p class="notice notice-warn section-notice" role="status">
          The node says: {trouble}.
        </p>
      )}
      {children}
    </section>
  );
}

/** A table may be wider than a phone; then it scrolls by itself, also by keyboard. */
export function Scroll({ label, children }: { label: string; children: ComponentChildren }) {
  return (
    <div class="scroll" role="region" aria-label={label} tabIndex={0}>
      {children}
    </div>
  );
}

export function Empty({ children }: { children: ComponentChildren }) {
  return <div class="empty">{children}</div>;
}

export function Waiting({ what }: { what: string }) {
  return <p class="empty muted">Waiting for {what}…</p>;
}
