// What the tests of the page share: a browser, a page that reports every error and every request to
// elsewhere, and waiting for what is expected. With `PAGE=FOLDER` the browser gets the page from
// there instead of from the agent, with the agent's headers: to try a change without building the
// agent.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const PATIENCE_MS = Number(process.env.PATIENCE_MS ?? 20_000);

export async function launch() {
  const args = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--no-first-run"];
  return chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args });
}

/** A page at `url`; `errors` gets what must not happen. */
export async function open(browser, url, options = {}) {
  const errors = [];
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, permissions: ["clipboard-read", "clipboard-write"], ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  page.on("pageerror", (error) => errors.push(`error: ${error.stack}`));
  // That the agent says "no segments are declared", or is not there, is no error of the page.
  page.on("console", (message) => {
    if (message.type() === "error" && !/Failed to load resource/.test(message.text())) errors.push(`console: ${message.text()}`);
  });
  page.on("request", (request) => {
    if (new URL(request.url()).origin !== new URL(url).origin) errors.push(`asked elsewhere: ${request.url()}`);
  });
  if (process.env.PAGE) await page.route(/\/(page\.(js|css))?$/, fromFolder);
  await page.goto(url);
  return { page, errors, context };
}

/** Waits until `look` returns what is expected, and fails with what it returned last. */
export async function eventually(expected, look) {
  const until = Date.now() + PATIENCE_MS;
  for (;;) {
    const found = await look();
    if (found === expected) return;
    if (Date.now() > until) assert.equal(found, expected);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Fails if axe finds anything that keeps people from using the page, or a part of it. */
export async function accessible(page, where, part = "html") {
  // The policy of the page forbids scripts of others; this way does not ask it.
  const session = await page.context().newCDPSession(page);
  if (!(await page.evaluate(() => "axe" in globalThis))) await session.send("Runtime.evaluate", { expression: axe });
  const { violations } = await page.evaluate((part) => globalThis.axe.run(part, { resultTypes: ["violations"] }), part);
  const found = violations.map(({ id, nodes }) => `${where}: ${id}: ${nodes.slice(0, 3).map((node) => `${node.html} ${node.failureSummary}`).join("\n")}`);
  assert.deepEqual(found, []);
}

/** The texts of a column. */
export function column(page, name) {
  return page.locator(`#tabpanel td.c-${name}`).allInnerTexts();
}

async function fromFolder(route) {
  const name = new URL(route.request().url()).pathname.split("/").pop() || "page.html";
  await route.fulfill({ response: await route.fetch(), body: readFileSync(`${process.env.PAGE}/${name}`) });
}
