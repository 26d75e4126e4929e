/**
 * Who is signed in, and the token that proves it.
 *
 * The token lives in sessionStorage, so that a reload does not ask again. The client secret is
 * kept in memory only: it outlives no reload, and a token found after a reload can be used but not
 * renewed. Knows nothing of views; what it has to say to a person is in its state's `reason`.
 */
import { signal } from "@preact/signals";
import { clockTime } from "../format/time.ts";
import type { Credentials } from "./fragment.ts";
import { asNumber, asObject, asText, parseJson } from "./json.ts";

export type SessionState =
  | { kind: "signed-out"; reason: string | null; clientId: string }
  | { kind: "signing-in"; clientId: string }
  | { kind: "signed-in"; clientId: string; expiresAtMs: number; renewable: boolean };

export interface TokenStorage {
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
  removeItem(key: string): void;
}

interface Stored {
  token: string;
  clientId: string;
  expiresAtMs: number;
}

type AuthAnswer =
  | { kind: "granted"; token: string; expiresInS: number }
  | { kind: "refused"; sentence: string }
  | { kind: "unreachable"; sentence: string };

const STORAGE_KEY = "holdfast.session";
/** A token is renewed after this share of its life, which leaves time for several attempts. */
const RENEW_AT_SHARE = 0.8;
const RENEW_RETRY_MS = 5_000;
/** setTimeout wraps to zero beyond 2^31 ms. */
const TIMER_MS_MAX = 2_000_000_000;

export class Session {
  readonly state = signal<SessionState>({ kind: "signed-out", reason: null, clientId: "" });

  private credentials: Credentials | null = null;
  private current: Stored | null = null;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private renewing: Promise<boolean> | null = null;
  private readonly storage: TokenStorage;
  private readonly request: typeof fetch;

  constructor(storage: TokenStorage, request: typeof fetch) {
    this.storage = storage;
    this.request = request;
  }

  get token(): string | null {
    return this.current?.token ?? null;
  }

  /** Takes up a token that an earlier load of this page left behind. */
  resume(): void {
    const stored = asObject(parseJson(this.storage.getItem(STORAGE_KEY) ?? ""));
    const token = asText(stored["token"]);
    const expiresAtMs = asNumber(stored["expiresAtMs"]);
    if (token === "" || expiresAtMs <= Date.now()) {
      this.storage.removeItem(STORAGE_KEY);
      return;
    }
    this.adopt({ token, clientId: asText(stored["clientId"]), expiresAtMs });
  }

  async signIn(credentials: Credentials): Promise<void> {
    this.forget();
    this.state.value = { kind: "signing-in", clientId: credentials.clientId };
    const answer = await this.authenticate(credentials);
    if (answer.kind === "granted") {
      this.credentials = credentials;
      this.grant(answer, credentials.clientId);
    } else {
      this.state.value = { kind: "signed-out", reason: answer.sentence, clientId: credentials.clientId };
    }
  }

  signOut(reason: string | null = null): void {
    const clientId = this.current?.clientId ?? "";
    this.forget();
    this.state.value = { kind: "signed-out", reason, clientId };
  }

  /**
   * The node refused the token. True when a fresh one was obtained with the credentials still in
   * memory; otherwise the session is over, unless the node could not be asked.
   */
  refused(): Promise<boolean> {
    return this.renew("The node no longer accepts this session. Sign in again.");
  }

  /** Several callers may learn of an expired token at once; they share one renewal. */
  private renew(sentenceWithoutCredentials: string): Promise<boolean> {
    this.renewing ??= this.renewOnce(sentenceWithoutCredentials).finally(() => {
      this.renewing = null;
    });
    return this.renewing;
  }

  private async renewOnce(sentenceWithoutCredentials: string): Promise<boolean> {
    const credentials = this.credentials;
    if (credentials === null) {
      this.signOut(sentenceWithoutCredentials);
      return false;
    }
    const answer = await this.authenticate(credentials);
    // Signed out, or in as somebody else, while the node was thinking.
    if (this.credentials !== credentials) return false;
    switch (answer.kind) {
      case "granted":
        this.grant(answer, credentials.clientId);
        return true;
      case "refused":
        this.signOut(`The session could not be renewed. ${answer.sentence}`);
        return false;
      case "unreachable":
        this.schedule(RENEW_RETRY_MS);
        return false;
    }
  }

  private async authenticate(credentials: Credentials): Promise<AuthAnswer> {
    let response: Response;
    try {
      response = await this.request("/auth", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ client_id: credentials.clientId, client_secret: credentials.clientSecret }),
      });
    } catch {
      return { kind: "unreachable", sentence: "The node did not answer. Check that it is running, then try again." };
    }
    const body = asObject(await response.json().catch(() => undefined));
    const token = asText(body["access_token"]);
    if (response.ok && token !== "") {
      return { kind: "granted", token, expiresInS: asNumber(body["expires_in"], 3600) };
    }
    if (response.status === 401 || response.status === 403) {
      return { kind: "refused", sentence: "The node does not accept this client id and secret." };
    }
    const said = asText(body["error"]);
    return {
      kind: "unreachable",
      sentence: `The node could not sign you in (HTTP ${response.status})${said === "" ? "." : `: ${said}`}`,
    };
  }

  private grant(answer: { token: string; expiresInS: number }, clientId: string): void {
    const stored = { token: answer.token, clientId, expiresAtMs: Date.now() + answer.expiresInS * 1000 };
    try {
      this.storage.setItem(STORAGE_KEY, JSON.stringify(stored));
    } catch {
      // Storage may be forbidden or full; the token then lives as long as this page.
    }
    this.adopt(stored);
  }

  private adopt(stored: Stored): void {
    this.current = stored;
    const renewable = this.credentials !== null;
    this.state.value = {
      kind: "signed-in",
      clientId: stored.clientId,
      expiresAtMs: stored.expiresAtMs,
      renewable,
    };
    const leftMs = stored.expiresAtMs - Date.now();
    this.schedule(renewable ? leftMs * RENEW_AT_SHARE : leftMs);
  }

  private schedule(delayMs: number): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => void this.due(), Math.min(Math.max(delayMs, 0), TIMER_MS_MAX));
  }

  private async due(): Promise<void> {
    const current = this.current;
    if (current === null) return;
    if (this.credentials !== null) {
      await this.renew("");
    } else if (Date.now() >= current.expiresAtMs) {
      this.signOut(`This session ended at ${clockTime(current.expiresAtMs)}. Sign in again.`);
    } else {
      this.schedule(current.expiresAtMs - Date.now());
    }
  }

  private forget(): void {
    clearTimeout(this.timer);
    this.credentials = null;
    this.current = null;
    this.storage.removeItem(STORAGE_KEY);
  }
}
