/**
 * The page against a node that does what it is told (mock-node.mjs): every state, also the rare ones.
 * Needs a built page: `npm run build` in ui/.
 */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { after, afterEach, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { openBrowser, openPage } from "./browser.mjs";
import { CLIENT, MockNode, sampleRejected } from "./mock-node.mjs";

const distribution = fileURLToPath(new URL("../../ui/dist", import.meta.url));
const axeSource = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const CLOCK = /\d\d:\d\d:\d\d/;

let browser;
let opened = [];

before(async () => {
  browser = await openBrowser();
});
after(() => browser.close());
afterEach(async () => {
  for (const { page, node } of opened) {
    await page.close();
    await node.stop();
  }
  opened = [];
});

async function start({ at = "link", ...options } = {}) {
  const node = new MockNode({ distribution, ...options });
  await node.start();
  const { page, complaints } = await openPage(browser.context);
  const entry = { page, node };
  opened.push(entry);
  await page.goto(at === "link" ? node.link : node.url);
  if (at === "link") await connected(page);
  return { node, page, complaints, entry };
}

const connected = (page) => page.locator("[data-connection=connected]").waitFor();
const status = (page) => page.locator(".connection [role=status]");

async function accessibilityFaults(page) {
  await page.evaluate(axeSource);
  const { violations } = await page.evaluate(() =>
    globalThis.axe.run(document, {
      runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"],
    }),
  );
  return violations.map(
    (violation) => `${violation.id}: ${violation.nodes.map((found) => found.html.slice(0, 160)).join(" | ")}`,
  );
}

test("the form refuses a wrong secret in words and lets the right one in", async () => {
  const { page } = await start({ at: "form" });
  await page.getByLabel("Client id", { exact: true }).fill(CLIENT.id);
  await page.getByLabel("Client secret").fill("wrong");
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("alert").getByText("The node does not accept this client id and secret.").waitFor();
  assert.equal(await page.getByLabel("Client id", { exact: true }).inputValue(), CLIENT.id);
  await page.getByLabel("Client secret").fill(CLIENT.secret);
  await page.keyboard.press("Enter");
  await connected(page);
});

test("the link signs in, its secret leaves the address and goes into no storage", async () => {
  const { page, node } = await start();
  assert.equal(page.url(), node.url);
  const stored = await page.evaluate(() => JSON.stringify({ ...sessionStorage, ...localStorage }));
  assert.match(stored, /token-1/);
  assert.ok(!stored.includes(CLIENT.secret));
  await page.reload();
  await connected(page);
  assert.equal(node.tokens.size, 1, "a reload must reuse the token");
});

test("a link with wrong credentials is stripped too and leads to the form", async () => {
  const { page, node } = await start({ at: "form" });
  await page.goto(`${node.url}#client_id=x&client_secret=y`);
  await page.getByText("does not accept").waitFor();
  assert.equal(page.url(), node.url);
});

test("under a strict Content-Security-Policy nothing is blocked and nothing comes from elsewhere", async () => {
  const { page, node, complaints } = await start();
  const origins = new Set();
  page.on("request", (request) => origins.add(new URL(request.url()).origin));
  await page.reload();
  await connected(page);
  await page.locator(".legend tbody tr").first().waitFor();
  assert.deepEqual([...origins], [new URL(node.url).origin]);
  assert.deepEqual(complaints, []);
});

test("the chart and its numbers move", async () => {
  const { page } = await start();
  const line = page.locator(".section-arriving .chart-line.slot-0").first();
  await line.waitFor({ state: "attached" });
  const [path, row] = [await line.getAttribute("d"), await page.locator(".legend tbody").innerText()];
  await page.waitForFunction(
    ([path, row]) =>
      document.querySelector(".section-arriving .chart-line.slot-0").getAttribute("d") !== path &&
      document.querySelector(".legend tbody").innerText !== row,
    [path, row],
  );
});

test("arrow keys move the chart's cursor and the legend tells the values there", async () => {
  const { page, node } = await start();
  await page.locator(".section-arriving .chart-line").first().waitFor({ state: "attached" });
  while (node.second < 4) await page.waitForTimeout(100);
  await page.locator(".chart").focus();
  await page.keyboard.press("ArrowLeft");
  await page.getByRole("columnheader", { name: /^At \d\d:\d\d:\d\d$/ }).waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("columnheader", { name: "Now" }).waitFor();
});

test("topics unfold into partitions, internal ones appear on request", async () => {
  const { page } = await start();
  const topics = page.locator(".section-topics");
  await topics.getByRole("button", { name: "telemetry.raw" }).click();
  await topics.getByRole("rowheader", { name: "partition 5" }).waitFor();
  assert.equal(await topics.getByText("__group_offsets").count(), 0);
  await topics.getByLabel("Internal topics").check();
  await topics.getByText("__group_offsets").waitFor();
});

test("lag and quality are shown per group and kind", async () => {
  const { page } = await start();
  const lag = page.locator(".section-groups tr", { hasText: "slow-consumer" });
  assert.match(await lag.innerText(), /telemetry\.cleaned\s+\d\d,\d{3}/);
  const quality = page.locator(".section-quality tr", {
    hasText: "most degraded",
  });
  assert.match(await quality.innerText(), /inverters.*27,322.*611/s);
  assert.match(await page.locator(".findings").innerText(), /payload_not_json 480/);
});

test("a rejected record arrives with its reason; its payload is text whatever it says", async () => {
  const { page, node } = await start();
  const payload = "<img src=x onerror=\"document.title='hacked'\">\u202egnp.exe";
  node.reject({
    ...sampleRejected(900, Date.now()),
    payload,
    payload_encoding: "utf-8",
    errors: [{ code: "payload_not_json", message: "told by the test" }],
  });
  const record = page.locator(".section-rejected .record", {
    hasText: "told by the test",
  });
  await record.getByRole("button").click();
  const shown = await record.locator("pre").innerText();
  assert.equal(shown, payload.replace("\u202e", "⟨U+202E⟩"));
  assert.match(await record.locator(".facts").innerText(), /telemetry\.raw, partition 0, offset 40900/);
  assert.equal(await page.locator("img[src=x]").count(), 0);
  assert.equal(await page.title(), "Holdfast");
});

test("bytes that are no text are shown as a dump", async () => {
  const { page, node } = await start();
  node.reject({
    ...sampleRejected(901, Date.now()),
    payload: Buffer.from([0, 0xff, 0x48, 0x69]).toString("base64"),
    payload_encoding: "base64",
    errors: [{ code: "binary", message: "" }],
  });
  const record = page.locator(".section-rejected .record", {
    hasText: "binary",
  });
  await record.getByRole("button").click();
  assert.match(await record.locator("pre").innerText(), /^000000 {2}00 ff 48 69 .*\.\.Hi$/);
});

test("the list does not move under a reader; newer records wait to be called", async () => {
  const { page, node } = await start();
  const section = page.locator(".section-rejected");
  await section.locator(".record-line").first().click();
  const reading = await section.locator(".record").first().innerText();
  node.reject({
    ...sampleRejected(902, Date.now()),
    errors: [{ code: "newer", message: "" }],
  });
  await section.getByRole("button", { name: "Show 1 newer record" }).waitFor();
  assert.equal(await section.locator(".record").first().innerText(), reading);
  await section.getByRole("button", { name: "Show 1 newer record" }).click();
  await section.locator(".record", { hasText: "newer" }).waitFor();
});

test("older rejected records are fetched until there are none", async () => {
  const { page } = await start();
  const section = page.locator(".section-rejected");
  await section.getByText("50 records listed").waitFor();
  await section.getByRole("button", { name: "Load older" }).click();
  await section.getByText("51 records listed").waitFor();
  await section.getByRole("button", { name: "Load older" }).click();
  await section.getByText("no older ones").waitFor();
});

test("the filter narrows the rejected records", async () => {
  const { page } = await start();
  const section = page.locator(".section-rejected");
  await section.getByLabel("Filter").fill("pumps");
  await page.waitForFunction(() =>
    [...document.querySelectorAll(".section-rejected .record-kind")].every((kind) => kind.innerText === "pumps"),
  );
  await section.getByLabel("Filter").fill("nothing like it");
  await section.getByText(/None of the \d+ records listed fits the filter/).waitFor();
});

test("the dial follows the sensor chosen", async () => {
  const { page, node } = await start();
  const dial = page.getByRole("meter", { name: "Speed of slow-cart" });
  node.measure("slow-cart", 7);
  await page.locator(".section-speed select").selectOption("slow-cart");
  await dial.waitFor();
  assert.equal(await dial.getAttribute("aria-valuetext"), "7 km/h");
  node.measure("slow-cart", 8.5);
  await page.waitForFunction(() => document.querySelector(".gauge-reading").textContent === "8.5");
});

test("the tail follows one topic, counts what it leaves out and costs nothing while paused", async () => {
  const { page, node } = await start();
  const tail = page.locator(".section-tail");
  await tail.locator(".record").first().waitFor();
  assert.ok(node.roomsAsked().has("topic:telemetry.raw"));
  node.skip("topic:telemetry.raw", 1_234);
  await tail.getByText("1,234 records beyond that").waitFor();
  await tail.getByRole("button", { name: "Pause" }).click();
  await tail.getByText("Paused.").waitFor();
  while (node.roomsAsked().has("topic:telemetry.raw")) await page.waitForTimeout(20);
  await tail.getByRole("button", { name: "Resume" }).click();
  await tail.getByText(/records of that time are not shown/).waitFor();
  await tail.locator("select").selectOption("speed-events");
  while (!node.roomsAsked().has("topic:speed-events")) await page.waitForTimeout(20);
  assert.ok(!node.roomsAsked().has("topic:telemetry.raw"));
});

test("a lost node is said, old data is marked, and the page recovers by itself", async () => {
  const { page, node, entry } = await start();
  const port = node.port;
  await page.locator(".legend tbody tr").first().waitFor();
  await node.stop();
  await status(page)
    .getByText(/^Connection lost since \d\d:\d\d:\d\d$/)
    .waitFor();
  assert.match(await page.locator(".section-topics .stale-mark").innerText(), CLOCK);
  assert.ok(await page.locator("main.stale").isVisible());
  assert.equal(await page.title(), "Connection lost – Holdfast");
  await page.getByText(/next attempt in \d+ s|trying…/).waitFor();

  // Another process on the same port: other tokens, other data.
  const next = new MockNode({ distribution });
  next.rejected = [
    {
      ...sampleRejected(7, Date.now()),
      errors: [{ code: "after_restart", message: "" }],
    },
  ];
  await next.start(port);
  entry.node = next;
  await status(page)
    .getByText(/^Connection found again at \d\d:\d\d:\d\d, after/)
    .waitFor({ timeout: 20_000 });
  await page.locator(".section-rejected .record", { hasText: "after_restart" }).waitFor();
  await page.locator("main:not(.stale)").waitFor();
  assert.equal(await page.title(), "Holdfast");
  await page.waitForFunction(() =>
    document.querySelector(".section-rejected .older").innerText.includes("1 record listed"),
  );
});

test("a node that hangs without closing counts as lost", async () => {
  const { page, node } = await start();
  node.silent = true;
  await status(page).getByText("Connection lost since").waitFor({ timeout: 12_000 });
  node.silent = false;
  await connected(page);
});

test("attempts grow rarer, and one can be asked for", async () => {
  const { page, node } = await start();
  node.hellos = [];
  node.silent = true;
  for (const socket of node.sockets.keys()) socket.terminate();
  await status(page).getByText("Connection lost since").waitFor();
  await page.getByText(/next attempt in [5-9] s/).waitFor({ timeout: 90_000 });
  assert.ok(node.hellos.length <= 6, `${node.hellos.length} attempts`);
  node.silent = false;
  await page.getByRole("button", { name: "Try now" }).click();
  await connected(page);
});

test("a revoked token is renewed silently while the secret is in memory", async () => {
  const { page, node } = await start();
  node.revokeTokens();
  while (node.tokens.size === 0 || node.sockets.size === 0) await page.waitForTimeout(20);
  await connected(page);
  assert.equal(await page.getByLabel("Client secret").count(), 0);
});

test("a revoked token without the secret leads back to the form with a sentence", async () => {
  const { page, node } = await start();
  await page.reload();
  await connected(page);
  node.revokeTokens();
  await page.getByRole("alert").getByText("The node no longer accepts this session. Sign in again.").waitFor();
  assert.equal(await page.getByLabel("Client id", { exact: true }).inputValue(), CLIENT.id);
  assert.equal(await page.evaluate(() => sessionStorage.length), 0);
});

test("a session that cannot be renewed says so before it ends", async () => {
  const { page, node } = await start({ at: "form" });
  node.expiresInS = 200;
  await page.goto(node.link);
  await connected(page);
  assert.equal(await page.getByText("This session ends at").count(), 0);
  await page.reload();
  await page.getByText(/This session ends at \d\d:\d\d:\d\d/).waitFor();
});

test("a failed log cannot be overlooked", async () => {
  const { page, node } = await start();
  node.logFailure = "fdatasync of segment 12: Input/output error (os error 5)";
  const alarm = page.getByRole("alert").filter({ hasText: "The log has failed" });
  await alarm.getByText("Input/output error").waitFor();
  assert.equal(await page.title(), "LOG FAILED – Holdfast");
  await page.locator(".figure-bad", { hasText: "Failed" }).waitFor();
});

test("a room in trouble says so where its data would be, and is asked for again", async () => {
  const { page, node } = await start();
  const [[socket, rooms]] = node.sockets;
  rooms.delete("quality");
  socket.send(
    JSON.stringify({
      type: "error",
      room: "quality",
      error: "this room stopped: subscribe again",
    }),
  );
  const notice = page.locator(".section-quality").getByText("The node says: this room stopped");
  await notice.waitFor();
  await notice.waitFor({ state: "detached", timeout: 10_000 });
  assert.ok(node.roomsAsked().has("quality"));
});

test("empty sections say what to do", async () => {
  const { page } = await start({ empty: true });
  for (const [section, command] of [
    ["arriving", /mosquitto_pub .* -t telemetry\/inverters\/inv-7/],
    ["speed", /mosquitto_pub .* -t speed\/sensor-1/],
    ["groups", /kcat -b .*:9092 -G/],
    ["quality", /mosquitto_pub/],
    ["rejected", /this is not JSON/],
  ]) {
    await page.locator(`.section-${section} .command pre`).filter({ hasText: command }).waitFor();
  }
});

for (const [name, viewport] of [
  ["desktop", { width: 1440, height: 900 }],
  ["phone", { width: 360, height: 740 }],
]) {
  for (const colorScheme of ["light", "dark"]) {
    test(`WCAG AA holds: ${name}, ${colorScheme}, connected, unfolded, failed, lost and signed out`, async () => {
      const { page, node } = await start();
      await page.setViewportSize(viewport);
      await page.emulateMedia({ colorScheme });
      await page.locator(".section-tail .record").first().waitFor();
      assert.deepEqual(await accessibilityFaults(page), []);
      await page.locator(".section-rejected .record-line").first().click();
      await page.locator(".section-tail .record-line").nth(1).click();
      await page.locator(".section-topics .unfold").first().click();
      node.logFailure = "EIO";
      await page.getByText("The log has failed").waitFor();
      assert.deepEqual(await accessibilityFaults(page), []);
      await node.stop();
      await status(page).getByText("Connection lost since").waitFor();
      assert.deepEqual(await accessibilityFaults(page), []);
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
      assert.ok(overflow <= 0, `the page is ${overflow} px wider than the screen`);
      await page.getByRole("button", { name: "Sign out" }).click();
      await page.getByRole("button", { name: "Sign in" }).waitFor();
      assert.deepEqual(await accessibilityFaults(page), []);
    });
  }
}

test("who wants no motion gets none", async () => {
  const { page } = await start();
  const duration = () => page.locator(".gauge-value").evaluate((arc) => getComputedStyle(arc).transitionDuration);
  assert.equal(await duration(), "0.25s");
  await page.emulateMedia({ reducedMotion: "reduce" });
  assert.equal(await duration(), "0s");
});

test("the keyboard reaches the content past the bar", async () => {
  const { page } = await start();
  await page.keyboard.press("Tab");
  const skip = page.getByRole("link", { name: "Skip to content" });
  assert.ok(await skip.evaluate((link) => link === document.activeElement));
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "main");
});
