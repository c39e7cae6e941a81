// How a gallery works in Chromium. The Rust test beside this file has `hat` write it into $PAGES.

import assert from "node:assert/strict";
import path from "node:path";
import test, { after, before } from "node:test";
import { pathToFileURL } from "node:url";

import { axe, launch } from "../../../tests/browser/chromium.mjs";

const { PAGES } = process.env;

let chromium;
before(async () => { chromium = await launch(); });
after(() => chromium.close());

/** Opens the page. It fails the test if the page asks for anything but photos beside it, or if its script fails. */
async function open(scheme, { withAxe = false } = {}) {
  const page = await chromium.newPage();
  await page.setViewport({ width: 1280, height: 900 });
  // The page's own policy forbids every script but its own.
  await page.setBypassCSP(withAxe);
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  const requests = [], failed = [];
  page.on("pageerror", (error) => { throw error; });
  page.on("dialog", () => { throw new Error("a name was run as a script"); });
  page.on("request", (request) => requests.push(request.url()));
  page.on("requestfailed", (request) => failed.push(request.url()));
  await page.goto(pathToFileURL(path.join(PAGES, "page.html")).href);
  return { page, requests, failed };
}

const cards = (page) => page.$$eval(".cards li", (cards) => cards.length);
const focused = (page) => page.evaluate(() => document.activeElement.dataset.path);

for (const scheme of ["light", "dark"]) {
  test(`axe finds no violation in the ${scheme} scheme`, async () => {
    const { page } = await open(scheme, { withAxe: true });
    await page.evaluate(axe);
    const { violations } = await page.evaluate(() => axe.run());
    assert.deepEqual(violations.map(({ id, nodes }) => [id, nodes[0].html]), []);
    await page.close();
  });
}

test("photos are shown as far as somebody looks, and are found under any name", async () => {
  const { page, requests, failed } = await open("light");
  assert.deepEqual(failed, []);
  const base = pathToFileURL(PAGES).href;
  assert.ok(requests.every((url) => url.startsWith(base)), requests.find((url) => !url.startsWith(base)));
  assert.ok(requests.length < 300, `${requests.length} photos were loaded at once`);
  assert.equal(await cards(page), 200);
  assert.match(await page.$eval("#about", (about) => about.textContent), /^10,001 photos/);
  assert.match(await page.$eval(".errors", (errors) => errors.textContent), /broken\.heic: HEIC/);
  const hostile = await page.evaluate(() => [...document.querySelectorAll(".cards a")].find((link) => link.dataset.path.includes("onerror")).href);
  const size = await page.evaluate((href) => new Promise((resolve) => {
    const image = new Image();
    image.onload = () => resolve(image.naturalWidth);
    image.onerror = () => resolve(0);
    image.src = href;
  }), hostile);
  assert.equal(size, 1, hostile);
  await page.close();
});

test("keys go from photo to photo, and on to those that are not shown yet", async () => {
  const { page } = await open("light");
  await page.focus(".cards a");
  const first = await focused(page);
  await page.keyboard.press("ArrowRight");
  const second = await focused(page);
  assert.notEqual(second, first);
  await page.keyboard.press("ArrowLeft");
  assert.equal(await focused(page), first);
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("ArrowUp");
  assert.equal(await focused(page), first);
  await page.keyboard.press("End");
  const last = await focused(page);
  await page.waitForFunction(() => document.querySelectorAll(".cards li").length > 200);
  await page.keyboard.press("ArrowRight");
  assert.notEqual(await focused(page), last);
  await page.close();
});

test("the order can be turned", async () => {
  const { page } = await open("light");
  await page.select("#order", "unsure");
  assert.equal(await cards(page), 200);
  await page.close();
});
