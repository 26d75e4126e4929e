/**
 * Credentials handed over in the address: `#client_id=..&client_secret=..`.
 *
 * The fragment never leaves the browser, which is why the link uses it rather than the query.
 */

export interface Credentials {
  clientId: string;
  clientSecret: string;
}

/** Whether the fragment was meant to carry credentials, complete or not: then it must be stripped. */
export function carriesCredentials(fragment: string): boolean {
  return /(^#?|&)client_(id|secret)=/.test(fragment);
}

/** Null unless both halves are there. */
export function readCredentials(fragment: string): Credentials | null {
  const values = new Map<string, string>();
  for (const pair of fragment.replace(/^#/, "").split("&")) {
    const at = pair.indexOf("=");
    if (at > 0) values.set(pair.slice(0, at), decode(pair.slice(at + 1)));
  }
  const clientId = values.get("client_id");
  const clientSecret = values.get("client_secret");
  return clientId && clientSecret ? { clientId, clientSecret } : null;
}

/** Unlike URLSearchParams this leaves "+" alone: a base64 secret may hold it unescaped. */
function decode(value: string): string {
  try {
    return decodeURIComponent(value);
  } catch {
    return value;
  }
}
