/** One payload, as text, whatever it is. */
import { useState } from "preact/hooks";
import { showPayload } from "../format/payload.ts";
import { count } from "../format/number.ts";
import type { Encoding } from "../node/messages.ts";
import { CopyButton } from "./command.tsx";

const SHOWN_FIRST = 4_096;
/** A payload may be as large as a record; the page shows no more than this of it. */
const SHOWN_MAX = 262_144;

export function Payload({ payload, encoding }: { payload: string; encoding: Encoding }) {
  const [max, setMax] = useState(SHOWN_FIRST);
  if (payload === "") return <p class="muted">The payload is empty.</p>;
  const shown = showPayload(payload, encoding, max);
  return (
    <div class="payload">
      <pre tabIndex={0} aria-label="Payload">
        {shown.text}
      </pre>
      <div class="payload-actions">
        {shown.left > 0 && max === SHOWN_FIRST && (
          <button class="button button-small" type="button" onClick={() => setMax(SHOWN_MAX)}>
            Show {count(shown.left)} more {shown.leftUnit}
          </button>
        )}
        {shown.left > 0 && max === SHOWN_MAX && (
          <span class="muted">
            {count(shown.left)} more {shown.leftUnit} are not shown
          </span>
        )}
        <CopyButton text={payload} what={encoding === "base64" ? "payload as base64" : "payload"} />
      </div>
    </div>
  );
}
