/** A command to type, with a button that copies it. */
import { useState } from "preact/hooks";

export function Command({ text, note }: { text: string; note?: string }) {
  return (
    <>
      <div class="command">
        <pre tabIndex={0}>{text}</pre>
        <CopyButton text={text} what="command" />
      </div>
      {note !== undefined && <p class="command-note">{note}</p>}
    </>
  );
}

/** Offered only where the browser allows it: on plain HTTP beyond localhost there is no clipboard. */
export function CopyButton({ text, what }: { text: string; what: string }) {
  const [said, setSaid] = useState("Copy");
  if (!("clipboard" in navigator)) return null;
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setSaid("Copied");
    } catch {
      setSaid("Not allowed");
    }
    setTimeout(() => setSaid("Copy"), 2_000);
  };
  return (
    <button class="button button-small" type="button" onClick={() => void copy()} aria-label={`Copy ${what}`}>
      <span aria-live="polite">{said}</span>
    </button>
  );
}
