import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Session, type TokenStorage } from "./session.ts";

class MemoryStorage implements TokenStorage {
  readonly items = new Map<string, string>();
  getItem(key: string) {
    return this.items.get(key) ?? null;
  }
  setItem(key: string, value: string) {
    this.items.set(key, value);
  }
  removeItem(key: string) {
    this.items.delete(key);
  }
}

const credentials = { clientId: "demo", clientSecret: "s3cret" };
let storage: MemoryStorage;
let answers: (() => Response)[];
let asked: unknown[];

const granted =
  (token: string, expiresInS = 100) =>
  () =>
    Response.json({ access_token: token, token_type: "Bearer", expires_in: expiresInS });
const refused = () => Response.json({ error: "unknown user or wrong secret" }, { status: 401 });
const unreachable = () => {
  throw new TypeError("fetch failed");
};

function session(): Session {
  return new Session(storage, async (_input, init) => {
    asked.push(JSON.parse(String(init?.body)));
    const answer = answers.shift();
    if (!answer) throw new Error("asked once too often");
    return answer();
  });
}

beforeEach(() => {
  vi.useFakeTimers();
  storage = new MemoryStorage();
  answers = [];
  asked = [];
});
afterEach(() => void vi.useRealTimers());

test("a sign-in leaves the token, but never the secret, in storage", async () => {
  const one = session();
  answers.push(granted("t1"));
  await one.signIn(credentials);
  expect(one.state.value).toMatchObject({ kind: "signed-in", clientId: "demo", renewable: true });
  expect(asked).toEqual([{ client_id: "demo", client_secret: "s3cret" }]);
  expect([...storage.items.values()].join()).toContain("t1");
  expect([...storage.items.values()].join()).not.toContain("s3cret");
});

test("a refused sign-in says so and keeps the client id for the form", async () => {
  const one = session();
  answers.push(refused);
  await one.signIn(credentials);
  expect(one.state.value).toEqual({
    kind: "signed-out",
    clientId: "demo",
    reason: "The node does not accept this client id and secret.",
  });
});

test("an unreachable node is not mistaken for a wrong secret", async () => {
  const one = session();
  answers.push(unreachable);
  await one.signIn(credentials);
  expect(one.state.value).toMatchObject({ kind: "signed-out", reason: expect.stringContaining("did not answer") });
});

test("other refusals keep the node's own words", async () => {
  const one = session();
  answers.push(() => Response.json({ error: "too many failed sign-ins" }, { status: 429 }));
  await one.signIn(credentials);
  expect(one.state.value).toMatchObject({
    reason: "The node could not sign you in (HTTP 429): too many failed sign-ins",
  });
});

test("the token is renewed before it expires", async () => {
  const one = session();
  answers.push(granted("t1", 100), granted("t2", 100));
  await one.signIn(credentials);
  await vi.advanceTimersByTimeAsync(79_000);
  expect(one.token).toBe("t1");
  await vi.advanceTimersByTimeAsync(2_000);
  expect(one.token).toBe("t2");
});

test("a renewal that finds no node is tried again and the session stays", async () => {
  const one = session();
  answers.push(granted("t1", 100), unreachable, granted("t2", 100));
  await one.signIn(credentials);
  await vi.advanceTimersByTimeAsync(81_000);
  expect(one.state.value.kind).toBe("signed-in");
  await vi.advanceTimersByTimeAsync(5_000);
  expect(one.token).toBe("t2");
});

test("a token found after a reload is used until it expires, and its end is explained", async () => {
  const before = session();
  answers.push(granted("t1", 100));
  await before.signIn(credentials);
  const after = session();
  after.resume();
  expect(after.token).toBe("t1");
  expect(after.state.value).toMatchObject({ kind: "signed-in", renewable: false });
  vi.clearAllTimers();
  const again = session();
  again.resume();
  await vi.advanceTimersByTimeAsync(101_000);
  expect(again.state.value).toMatchObject({
    kind: "signed-out",
    reason: expect.stringMatching(/ended at \d\d:\d\d:\d\d/),
  });
  expect(storage.items.size).toBe(0);
});

test("an expired token in storage is forgotten, and so is nonsense", () => {
  storage.setItem("holdfast.session", JSON.stringify({ token: "t", clientId: "demo", expiresAtMs: Date.now() - 1 }));
  const one = session();
  one.resume();
  expect(one.token).toBeNull();
  storage.setItem("holdfast.session", "{");
  one.resume();
  expect(one.state.value.kind).toBe("signed-out");
});

test("a refused token is replaced once for everybody who noticed", async () => {
  const one = session();
  answers.push(granted("t1"), granted("t2"));
  await one.signIn(credentials);
  expect(await Promise.all([one.refused(), one.refused()])).toEqual([true, true]);
  expect(one.token).toBe("t2");
  expect(asked).toHaveLength(2);
});

test("a refused token without credentials ends the session with a sentence", async () => {
  storage.setItem(
    "holdfast.session",
    JSON.stringify({ token: "t", clientId: "demo", expiresAtMs: Date.now() + 60_000 }),
  );
  const one = session();
  one.resume();
  expect(await one.refused()).toBe(false);
  expect(one.state.value).toEqual({
    kind: "signed-out",
    clientId: "demo",
    reason: "The node no longer accepts this session. Sign in again.",
  });
});

test("credentials that stopped working end the session", async () => {
  const one = session();
  answers.push(granted("t1"), refused);
  await one.signIn(credentials);
  expect(await one.refused()).toBe(false);
  expect(one.state.value).toMatchObject({
    kind: "signed-out",
    reason: expect.stringContaining("could not be renewed"),
  });
});

test("signing out while a renewal is under way stays signed out", async () => {
  const one = session();
  answers.push(granted("t1"), granted("t2"));
  await one.signIn(credentials);
  const renewal = one.refused();
  one.signOut();
  expect(await renewal).toBe(false);
  expect(one.token).toBeNull();
  expect(one.state.value.kind).toBe("signed-out");
});
