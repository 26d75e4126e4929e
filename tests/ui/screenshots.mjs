/**
 * Pictures of the page in its states, for people to look at: `npm run screenshots [directory]`.
 */
import { mkdir } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { join } from "node:path";
import { openBrowser, openPage } from "./browser.mjs";
import { MockNode } from "./mock-node.mjs";

const directory = process.argv[2] ?? "screenshots";
const distribution = fileURLToPath(new URL("../../ui/dist", import.meta.url));
const SECONDS_OF_LIFE = Number(process.env.SECONDS_OF_LIFE ?? 25);
const DESKTOP = { width: 1440, height: 900 };
const PHONE = { width: 390, height: 844 };

await mkdir(directory, { recursive: true });
const node = new MockNode({ distribution });
await node.start();
const bare = new MockNode({ distribution, empty: true });
await bare.start();
const browser = await openBrowser();
try {
  const pages = [];
  for (const [name, viewport, colorScheme, at] of [
    ["desktop-light", DESKTOP, "light", node.link],
    ["desktop-dark", DESKTOP, "dark", node.link],
    ["phone-light", PHONE, "light", node.link],
    ["empty-light", DESKTOP, "light", bare.link],
    ["sign-in-light", DESKTOP, "light", node.url],
  ]) {
    const { page } = await openPage(browser.context);
    await page.setViewportSize(viewport);
    await page.emulateMedia({ colorScheme });
    await page.goto(at);
    pages.push({ name, page });
  }
  await new Promise((resolve) => setTimeout(resolve, SECONDS_OF_LIFE * 1000));
  for (const { name, page } of pages) {
    await page.bringToFront();
    await page.screenshot({
      path: join(directory, `${name}.png`),
      fullPage: true,
    });
  }
  const [first, second, phone] = pages.map(({ page }) => page);
  await first.bringToFront();
  await first.locator(".section-rejected .record-line").nth(3).click();
  await first.locator(".section-tail .record-line").nth(2).click();
  await first.locator(".section-topics .unfold").nth(2).click();
  await first.screenshot({
    path: join(directory, "desktop-unfolded.png"),
    fullPage: true,
  });
  node.logFailure = "fdatasync of segment 00000000000000000012: Input/output error (os error 5)";
  await second.bringToFront();
  await second.getByText("The log has failed").waitFor();
  await second.screenshot({ path: join(directory, "desktop-dark-failed.png") });
  await node.stop();
  await first.bringToFront();
  await first.getByText("Connection lost since").waitFor();
  await first.screenshot({ path: join(directory, "desktop-light-lost.png") });
  await phone.bringToFront();
  await phone.getByText("Connection lost since").waitFor();
  await phone.screenshot({ path: join(directory, "phone-lost.png") });
} finally {
  await browser.close();
  await bare.stop();
  await node.stop().catch(() => {});
}
