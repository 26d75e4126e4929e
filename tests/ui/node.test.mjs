/**
 * The page against a real node: `HOLDFAST_BIN=path/to/holdfast npm run test:node`.
 *
 * One node and one page for the whole story, in order: a browser stays open while devices publish,
 * the node is killed, and the node comes back.
 */
import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { openBrowser, openPage } from "./browser.mjs";

const READY_MS_MAX = 60_000;
/** From a killed node over the page's longest back-off to its first fresh numbers. */
const RECOVERY_MS_MAX = 40_000;

const run = promisify(execFile);
const binary = process.env.HOLDFAST_BIN;

class Demo {
  constructor(dataDir) {
    this.dataDir = dataDir;
    this.ports = { mqtt: 0, kafka: 0, http: 0 };
    this.link = null;
  }

  /** The first start takes free ports; later ones the same again. */
  async start() {
    const doors = Object.entries(this.ports).flatMap(([door, port]) => [`--${door}`, `127.0.0.1:${port}`]);
    const { HOLDFAST_CONFIG, ...env } = process.env;
    this.child = spawn(binary, ["demo", "--data-dir", this.dataDir, ...doors], {
      env,
      stdio: ["ignore", "pipe", "pipe"],
    });
    let said = "";
    this.child.stderr.on("data", (bytes) => {
      said = (said + bytes).slice(-8_000);
    });
    const lines = createInterface({ input: this.child.stdout });
    const timer = setTimeout(() => this.child.kill("SIGKILL"), READY_MS_MAX);
    let ready = false;
    for await (const line of lines) {
      const door = /^listening (mqtt|kafka|http) \S+:(\d+)$/.exec(line);
      if (door) this.ports[door[1]] = Number(door[2]);
      this.link = /http:\/\/\S+#client_id=\S+/.exec(line)?.[0] ?? this.link;
      ready = line === "ready";
      if (ready) break;
    }
    clearTimeout(timer);
    this.child.stdout.resume();
    assert.ok(ready, `the node did not become ready:\n${said}`);
  }

  async end(signal) {
    if (!this.child || this.child.exitCode !== null || this.child.signalCode !== null) return;
    const ended = once(this.child, "exit");
    this.child.kill(signal);
    await ended;
  }

  async publish(topic, payload) {
    await run("mosquitto_pub", [
      "-h",
      "127.0.0.1",
      "-p",
      String(this.ports.mqtt),
      "-q",
      "1",
      "-t",
      topic,
      "-m",
      payload,
    ]);
  }
}

let demo;
let dataDir;
let browser;
let page;
let complaints;

before(async () => {
  assert.ok(binary, "HOLDFAST_BIN names the binary to test");
  dataDir = await mkdtemp(join(tmpdir(), "holdfast-data-"));
  demo = new Demo(dataDir);
  await demo.start();
  browser = await openBrowser();
  ({ page, complaints } = await openPage(browser.context));
});

after(async () => {
  await browser?.close();
  await demo?.end("SIGTERM");
  await rm(dataDir, { recursive: true, force: true });
});

const chartMoves = async () => {
  const line = page.locator(".section-arriving .chart-line.slot-0").first();
  await line.waitFor({ state: "attached" });
  const path = await line.getAttribute("d");
  await page.waitForFunction(
    (path) => document.querySelector(".section-arriving .chart-line.slot-0")?.getAttribute("d") !== path,
    path,
  );
};

test("the printed link signs in", async () => {
  assert.ok(demo.link, "the node prints a link with credentials");
  await page.goto(demo.link);
  await page.locator("[data-connection=connected]").waitFor();
  assert.ok(!page.url().includes("secret"));
  await page.locator(".figure-good", { hasText: "Accepting" }).waitFor();
  await page.locator(".figure", { hasText: "Durability" }).getByText("fsync", { exact: true }).waitFor();
});

test("the chart shows the simulated devices and moves", async () => {
  await page.locator(".legend tbody tr", { hasText: "telemetry.raw" }).waitFor();
  await chartMoves();
  await page.waitForFunction(() => {
    const row = [...document.querySelectorAll(".section-topics tbody tr")].find((line) =>
      line.innerText.startsWith("telemetry.raw"),
    );
    return row && Number(row.cells[1].innerText.replaceAll(",", "")) > 0;
  });
});

test("topics have partitions with offsets, pipelines have groups with lag", async () => {
  const topics = page.locator(".section-topics");
  await topics.getByRole("button", { name: "telemetry.raw" }).click();
  await topics.getByRole("rowheader", { name: "partition 5" }).waitFor();
  await page.locator(".section-groups tr", { hasText: "telemetry-writer" }).first().waitFor();
});

test("quality is counted per kind", async () => {
  await page.waitForFunction(() => {
    const rows = [...document.querySelectorAll(".section-quality tbody tr")];
    return rows.some((row) => Number(row.cells[1].innerText.replaceAll(",", "")) > 0);
  });
});

test("a bad record published over MQTT appears with its reason and its bytes", async () => {
  const payload = `not JSON, told by the test at ${Date.now()}`;
  await demo.publish("telemetry/inverters/inv-of-the-test", payload);
  const section = page.locator(".section-rejected");
  await section.getByLabel("Filter").fill("inv-of-the-test");
  const record = section.locator(".record", { hasText: "payload_not_json" }).first();
  await record.getByRole("button").click();
  assert.equal(await record.locator("pre").innerText(), payload);
  assert.match(await record.locator(".facts").innerText(), /telemetry\/inverters\/inv-of-the-test/);
  assert.match(await record.locator(".facts").innerText(), /telemetry\.raw, partition \d, offset \d+/);
  await record.getByRole("button").first().click();
});

test("a speed published over MQTT stands on the dial", async () => {
  await demo.publish(
    "speed/sensor-of-the-test",
    JSON.stringify({
      sensor_id: "sensor-of-the-test",
      speed: 73.5,
      ts: Math.floor(Date.now() / 1000),
    }),
  );
  await page.locator(".section-speed select").selectOption("sensor-of-the-test");
  await page.waitForFunction(() => document.querySelector(".gauge-reading")?.textContent === "73.5");
});

test("the tail shows what is published", async () => {
  const tail = page.locator(".section-tail");
  await tail.locator("select").selectOption("mqtt.unrouted");
  const payload = `unrouted at ${Date.now()}`;
  // The room starts at the end of the log once the node has heard the request: publish until it shows.
  const shown = tail.locator(".record", { hasText: payload }).first();
  for (let attempt = 0; attempt < 20 && !(await shown.isVisible()); attempt += 1) {
    await demo.publish("nowhere/in/particular", payload);
    await shown.waitFor({ timeout: 1_000 }).catch(() => {});
  }
  assert.ok(await shown.isVisible());
});

test("under the node's own headers the browser has nothing to complain about", () => {
  assert.deepEqual(complaints, []);
});

test("a killed node is lost since a time; started again it is found by itself", async () => {
  await demo.end("SIGKILL");
  const status = page.locator(".connection [role=status]");
  await status.getByText(/^Connection lost since \d\d:\d\d:\d\d$/).waitFor();
  await page.locator("main.stale").waitFor();
  await demo.start();
  await status.getByText(/^Connection found again at/).waitFor({ timeout: RECOVERY_MS_MAX });
  await page.locator("main:not(.stale)").waitFor();
  await chartMoves();
  const section = page.locator(".section-rejected");
  await section.locator(".record", { hasText: "payload_not_json" }).first().waitFor();
  await page.locator(".figure-good", { hasText: "Accepting" }).waitFor();
});

test("a reload after the restart keeps the session", async () => {
  await page.reload();
  await page.locator("[data-connection=connected]").waitFor();
  await page.locator(".legend tbody tr", { hasText: "telemetry.raw" }).waitFor();
});
