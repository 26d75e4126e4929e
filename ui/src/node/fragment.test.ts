import { expect, test } from "vitest";
import { carriesCredentials, readCredentials } from "./fragment.ts";

test("both halves are read, in any order and percent-decoded", () => {
  expect(readCredentials("#client_secret=a%2Fb%3D&client_id=demo")).toEqual({ clientId: "demo", clientSecret: "a/b=" });
});

test("a plus sign is itself, not a space", () => {
  expect(readCredentials("#client_id=x&client_secret=a+b")?.clientSecret).toBe("a+b");
});

test("a stray percent sign does not throw", () => {
  expect(readCredentials("#client_id=x&client_secret=100%")?.clientSecret).toBe("100%");
});

test("half of the credentials is none, but still has to be stripped", () => {
  expect(readCredentials("#client_secret=s")).toBeNull();
  expect(carriesCredentials("#client_secret=s")).toBe(true);
});

test("a link to a section carries none", () => {
  expect(carriesCredentials("#rejected")).toBe(false);
  expect(readCredentials("#rejected")).toBeNull();
});
