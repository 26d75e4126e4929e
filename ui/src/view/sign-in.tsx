/** The way in: client id and secret. */
import { useEffect } from "preact/hooks";
import type { Session, SessionState } from "../node/session.ts";
import { Command } from "./command.tsx";

interface Props {
  session: Session;
  state: Exclude<SessionState, { kind: "signed-in" }>;
}

export function SignIn({ session, state }: Props) {
  const busy = state.kind === "signing-in";
  const reason = state.kind === "signed-out" ? state.reason : null;
  useEffect(() => {
    document.title = "Sign in – Holdfast";
  }, []);
  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    const form = new FormData(event.currentTarget as HTMLFormElement);
    void session.signIn({
      clientId: String(form.get("client_id") ?? "").trim(),
      clientSecret: String(form.get("client_secret") ?? ""),
    });
  };
  return (
    <main class="sign-in">
      <form class="sign-in-card" onSubmit={submit} aria-busy={busy}>
        <h1>
          <img src="/favicon.svg" alt="" width={28} height={28} /> Holdfast
        </h1>
        <p class="muted">Sign in to this node with a client id and its secret.</p>
        <div role="alert">{reason !== null && <p class="notice notice-bad">{reason}</p>}</div>
        <label>
          Client id
          <input
            name="client_id"
            autocomplete="username"
            required
            autoFocus={state.clientId === ""}
            defaultValue={state.clientId}
            spellcheck={false}
            autocapitalize="none"
          />
        </label>
        <label>
          Client secret
          <input
            name="client_secret"
            type="password"
            autocomplete="current-password"
            required
            autoFocus={state.clientId !== ""}
          />
        </label>
        <button class="button button-main" type="submit" disabled={busy}>
          {busy ? "Signing in…" : "Sign in"}
        </button>
        <details class="sign-in-help">
          <summary>I have no client id</summary>
          <p>While the node is stopped, this makes one and prints its secret once:</p>
          <Command text="holdfast users create NAME" />
        </details>
      </form>
    </main>
  );
}
