/** Requests to the node on behalf of the signed-in client. */
import { asObject, asText } from "./json.ts";
import type { Session } from "./session.ts";

/** An answer other than success, with the node's own sentence where it gave one. */
export class HttpError extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

/** Health must be readable when the log has failed (503) and needs no token. */
export async function fetchHealth(request: typeof fetch): Promise<unknown> {
  const response = await request("/health", { headers: { accept: "application/json" } });
  return (await response.json()) as unknown;
}

export async function fetchAuthorised(session: Session, request: typeof fetch, path: string): Promise<unknown> {
  let response = await send(session, request, path);
  if (response.status === 401 && (await session.refused())) {
    response = await send(session, request, path);
  }
  const body: unknown = await response.json().catch(() => undefined);
  if (!response.ok) {
    throw new HttpError(response.status, asText(asObject(body)["error"], `The node answered HTTP ${response.status}.`));
  }
  return body;
}

function send(session: Session, request: typeof fetch, path: string): Promise<Response> {
  return request(path, {
    headers: { accept: "application/json", authorization: `Bearer ${session.token ?? ""}` },
  });
}
