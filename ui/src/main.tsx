/** Start: credentials out of the address, session, page. */
import { render } from "preact";
import { App } from "./view/app.tsx";
import { carriesCredentials, readCredentials } from "./node/fragment.ts";
import { Session } from "./node/session.ts";
import { startClock } from "./state/clock.ts";
import "./style/base.css";
import "./style/parts.css";
import "./style/sections.css";

const session = new Session(window.sessionStorage, (input, init) => window.fetch(input, init));

/** Strips first: a secret must not stay in the address bar, the history or a screenshot, whatever comes next. */
function takeCredentials(): boolean {
  const fragment = window.location.hash;
  if (!carriesCredentials(fragment)) return false;
  window.history.replaceState(null, "", window.location.pathname + window.location.search);
  const credentials = readCredentials(fragment);
  if (credentials) void session.signIn(credentials);
  return credentials !== null;
}

if (!takeCredentials()) session.resume();
// A link opened in a tab that already shows the page changes nothing but the fragment.
window.addEventListener("hashchange", takeCredentials);
startClock();

const page = document.getElementById("page");
if (page) render(<App session={session} />, page);
