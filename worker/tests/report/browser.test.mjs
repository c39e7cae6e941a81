// How the report works in Chromium. The Rust test beside this file writes the pages into $PAGES.

import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import test, { after, before } from "node:test";
import { pathToFileURL } from "node:url";
import { isDeepStrictEqual } from "node:util";

import { axe, launch } from "../../../tests/browser/chromium.mjs";

const { PAGES } = process.env;

const DESKTOP = { width: 1280, height: 900 };
const PHONE = { width: 390, height: 844, isMobile: true, hasTouch: true };

let chromium;
before(async () => { chromium = await launch(); });
after(() => chromium.close());

/** A browser that has seen no report yet; closed when the test ends. */
async function freshBrowser(t) {
  const context = await chromium.createBrowserContext();
  t.after(() => context.close());
  return context;
}

/** Opens a page. It fails the test if the page asks for anything from outside, or if its script fails. */
async function open(context, name, { viewport = DESKTOP, scheme = "light" } = {}) {
  const page = await context.newPage();
  await page.setViewport(viewport);
  // Nothing scrolls slowly, so that a click meets what it is meant for.
  await page.emulateMediaFeatures([{ name: "prefers-reduced-motion", value: "reduce" }, { name: "prefers-color-scheme", value: scheme }]);
  page.on("pageerror", (error) => { throw error; });
  page.on("request", (request) => assert.match(request.url(), /^(file|data|blob):/));
  await page.goto(pathToFileURL(path.join(PAGES, name + ".html")).href);
  return page;
}

const text = (page, selector) => page.$eval(selector, (element) => element.textContent.trim());
/** Waits until a photo has the focus. A dialog that closes gives it back in an event of its own, a moment later. */
const focusReaches = (page, name) => page.waitForFunction((name) => document.activeElement.dataset.path === name, { timeout: 5000 }, name)
  .catch(async () => assert.equal(await page.evaluate(() => document.activeElement.dataset.path), name));
const verdicts = (page) => page.$$eval(".card[data-verdict]", (cards) =>
  Object.fromEntries(cards.map((card) => [card.dataset.path, card.querySelector(".stamp").textContent])));
/** Reloads a page until it shows these decisions: what one page has stored may reach the next one a moment later. */
const showsWhenReloaded = async (page, expected) => {
  for (let tries = 1; ; tries += 1) {
    await page.reload();
    const found = await verdicts(page);
    if (tries === 20 || isDeepStrictEqual(found, expected)) return assert.deepEqual(found, expected);
  }
};
const shownPaths = (page) => page.$$eval(".card", (cards) =>
  cards.filter((card) => card.offsetParent).map((card) => card.dataset.path));
const focusCard = (page, name) => page.evaluate((name) => document.querySelector(`[data-path="${name}"]`).focus(), name);
const press = async (page, keys) => { for (const key of keys) await page.keyboard.press(key); };

/** The file that "Save decisions" saves. */
async function saved(page) {
  await page.evaluate(() => {
    const create = URL.createObjectURL;
    URL.createObjectURL = (blob) => { window.savedBlob = blob; return create(blob); };
  });
  await page.click(".save");
  return JSON.parse(await page.evaluate(() => window.savedBlob.text()));
}

async function violations(page) {
  await page.evaluate(axe);
  const found = await page.evaluate(() => axe.run({ resultTypes: ["violations"] }));
  return found.violations.map(({ id, help, nodes }) => ({ id, help, html: nodes.slice(0, 3).map((node) => node.html + " " + node.failureSummary) }));
}

for (const scheme of ["light", "dark"]) {
  for (const [name, viewport] of [["given", DESKTOP], ["first", PHONE]]) {
    test(`axe finds no violation in ${scheme} at a width of ${viewport.width}, whatever is open`, async (t) => {
      const page = await open(await freshBrowser(t), name, { viewport, scheme });
      assert.deepEqual(await violations(page), []);
      await page.$$eval("details", (all) => all.forEach((details) => { details.open = true; }));
      for (const action of ["keep", "predicted", "exclude"]) await page.click(`.card:not([data-verdict]) [data-do=${action}]`);
      if (viewport === PHONE) await page.tap(".fold");
      assert.deepEqual(await violations(page), [], "with everything open and decisions of each kind");
      await page.click(".card [data-do=relabel]");
      assert.deepEqual(await violations(page), [], "while it asks for a class");
      await page.keyboard.press("Escape");
      await page.click(".card [data-do=open]");
      assert.deepEqual(await violations(page), [], "with a picture in large");
    });
  }
}

test("axe finds no violation where names are strange or no prediction is wrong", async (t) => {
  const context = await freshBrowser(t);
  for (const name of ["hostile", "faultless"]) assert.deepEqual(await violations(await open(context, name)), [], name);
});

test("keys decide and move on, and U undoes the last action wherever the focus is", async (t) => {
  const page = await open(await freshBrowser(t), "first");
  // Within a class the highest loss comes first.
  await focusCard(page, "animals/002.png");
  await press(page, ["k", "x", "p"]);
  assert.deepEqual(await verdicts(page), { "animals/002.png": "keep", "animals/001.png": "exclude", "animals/000.png": "→ food" });
  await focusReaches(page, "food/002.png"); // each key has moved on
  assert.match(await text(page, ".tally"), /^3 of 33 decided: 1 kept, 1 relabelled, 1 excluded$/);

  await page.focus("[data-only=undecided]");
  await page.keyboard.press("u");
  await focusReaches(page, "animals/000.png"); // it goes back to the photo
  await page.evaluate(() => document.activeElement.blur());
  await page.keyboard.press("u");
  assert.deepEqual(await verdicts(page), { "animals/002.png": "keep" });
  await page.focus("h2 ~ p a, .skip");
  await press(page, ["u", "u"]);
  assert.deepEqual(await verdicts(page), {}, "and nothing is left to undo");
  assert.equal(await page.$eval(".undo", (button) => button.disabled), true);
});

test("R asks for the class, relabels and moves on, and a click on the button stays", async (t) => {
  const page = await open(await freshBrowser(t), "first");
  await focusCard(page, "animals/002.png");
  await page.keyboard.press("r");
  await page.keyboard.type("vehi");
  await page.keyboard.press("Enter");
  assert.deepEqual(await verdicts(page), { "animals/002.png": "→ vehicles" });
  await focusReaches(page, "animals/001.png");

  await page.click("[data-path='animals/000.png'] [data-do=relabel]");
  await page.keyboard.type("food");
  await page.keyboard.press("Enter");
  await focusReaches(page, "animals/000.png");
  await page.keyboard.press("r");
  await page.keyboard.press("Escape");
  assert.equal(Object.keys(await verdicts(page)).length, 2, "a cancelled question decides nothing");
});

test("the saved file has paths beside digests and opens in another browser", async (t) => {
  const page = await open(await freshBrowser(t), "first");
  await focusCard(page, "animals/002.png");
  await press(page, ["p", "x"]);
  const file = await saved(page);
  assert.equal(file.format, "sortinghat.decisions/1");
  assert.deepEqual(file.decisions.map(({ digest, ...rest }) => [digest.length, rest]), [
    [64, { path: "animals/002.png", verdict: "relabel", class: "food" }],
    [64, { path: "animals/001.png", verdict: "exclude" }],
  ]);

  const other = await open(await freshBrowser(t), "later");
  const onDisk = path.join(PAGES, "decisions.json");
  file.decisions.push({ ...file.decisions[0], digest: "0".repeat(64), class: "no such class" });
  fs.writeFileSync(onDisk, JSON.stringify(file));
  const choose = async (name) => {
    await (await other.$("[type=file]")).uploadFile(name);
    await other.waitForFunction(() => document.querySelector(".told").textContent !== "");
  };
  await choose(onDisk);
  assert.deepEqual(await verdicts(other), { "animals/001.png": "exclude", "animals/002.png": "→ food" });
  assert.match(await text(other, ".told"), /^2 decisions of decisions.json were opened. 1 decision was left out: it names a class/);
  await other.keyboard.press("u");
  assert.deepEqual(await verdicts(other), {}, "opening a file is one action");
});

test("a file that holds no decisions is named and changes nothing", async (t) => {
  const page = await open(await freshBrowser(t), "first");
  const wrong = path.join(PAGES, "wrong.json");
  fs.writeFileSync(wrong, "[]");
  await (await page.$("[type=file]")).uploadFile(wrong);
  await page.waitForFunction(() => document.querySelector(".told").textContent !== "");
  assert.match(await text(page, ".told"), /^wrong.json holds no decisions: choose a file that a report has saved/);
});

test("a later report begins with the decisions of an earlier one and saves them all", async (t) => {
  const context = await freshBrowser(t);
  const first = await open(context, "first");
  await focusCard(first, "animals/002.png");
  await press(first, ["k", "x"]);
  await focusCard(first, "food/002.png");
  await press(first, ["x", "u"]);
  assert.match(await text(first, ".remembered:not([hidden])"), /This browser remembers/);

  // For the later model 002 is a right prediction.
  const later = await open(context, "later");
  const both = { "animals/001.png": "exclude", "animals/002.png": "keep" };
  await showsWhenReloaded(later, both);
  assert.equal((await saved(later)).decisions.length, 2);
  await showsWhenReloaded(later, both);
});

test("a report begins with the decisions that its evaluation was given, also about photos that it does not show", async (t) => {
  const context = await freshBrowser(t);
  const page = await open(context, "given");
  assert.deepEqual(await verdicts(page), { "animals/000.png": "exclude" });
  assert.match(await text(page, ".tally"), /1 more about what is not on this page$/);
  assert.deepEqual((await saved(page)).decisions.map(({ path }) => path), ["animals/000.png", "vehicles/011.png"]);

  // What was decided after the evaluation was asked for is newer.
  await focusCard(page, "animals/000.png");
  await page.keyboard.press("k");
  assert.deepEqual(await verdicts(page), { "animals/000.png": "keep" });
  await showsWhenReloaded(page, { "animals/000.png": "keep" });
  await page.click("[data-path='animals/000.png'] [data-do=keep]");
  await showsWhenReloaded(page, {}); // A decision that was taken back stays taken back.
});

test("a page that may remember nothing says so", async (t) => {
  const page = await open(await freshBrowser(t), "first");
  await page.evaluateOnNewDocument(() => {
    Object.defineProperty(window, "localStorage", { get() { throw new DOMException("denied", "SecurityError"); } });
  });
  await page.reload();
  assert.match(await text(page, ".forgetful:not([hidden])"), /Save your decisions before you close the page/);
  await focusCard(page, "animals/002.png");
  await page.keyboard.press("k");
  assert.deepEqual(await verdicts(page), { "animals/002.png": "keep" });
});

test("a cell of the matrix and a confused pair open their photos", async (t) => {
  const page = await open(await freshBrowser(t), "first");
  const pair = ["animals/002.png", "animals/001.png", "animals/000.png"];
  for (const link of [".matrix", ".confused"]) {
    await page.click(`${link} a[data-label='0'][data-predicted='1']`);
    assert.deepEqual(await shownPaths(page), pair, link);
    assert.match(await text(page, ".pair span"), /^Shown: 3 of 3 photos of animals taken for food.$/);
    await focusReaches(page, pair[0]);
    await page.click(".pair button");
    assert.equal((await shownPaths(page)).length, 33);
  }
  await page.click(".matrix a[data-label='0'][data-predicted='0']");
  assert.match(await text(page, ".pair span"), /^Shown: 8 of 9 photos of animals predicted right.$/);
  await page.click(".doubts a");
  assert.equal((await shownPaths(page)).length, 33, "a link to a photo shows it");
});

test("a picture opens large, and keys work there", async (t) => {
  const page = await open(await freshBrowser(t), "first");
  await page.click("[data-path='animals/002.png'] [data-do=open]");
  const small = await page.$eval("[data-path='animals/002.png'] img", (image) => image.getBoundingClientRect().height);
  const height = await page.$eval("dialog.large img", (image) => image.getBoundingClientRect().height);
  assert.ok(height > 2 * small, `${height} px beside ${small} px`);
  await press(page, ["x"]);
  assert.equal(await text(page, "dialog.large .path"), "animals/001.png");
  await press(page, ["ArrowRight", "ArrowLeft", "u"]);
  assert.equal(await text(page, "dialog.large .path"), "animals/002.png", "undo goes back in large as well");
  await page.click("dialog.large [data-do=predicted]");
  assert.equal(await text(page, "dialog.large .stamp"), "→ food");
  await page.keyboard.press("Escape");
  await page.waitForFunction(() => !document.querySelector("dialog.large").open);
  await focusReaches(page, "animals/002.png");
  await page.keyboard.press("Enter");
  assert.equal(await page.$eval("dialog.large", (dialog) => dialog.open), true);
});

test("on a phone the tray is folded, what is touched is 44 pixels high and wide, and nothing is wider than the screen", async (t) => {
  const page = await open(await freshBrowser(t), "first", { viewport: PHONE });
  const isVisible = (selector) => page.$eval(selector, (element) => element.offsetParent !== null);
  assert.equal(await isVisible(".tray .forget"), false);
  assert.ok(await page.$eval(".tray", (tray) => tray.getBoundingClientRect().height) < 140, "it leaves the screen to the photos");
  await page.tap(".tray .fold");
  assert.equal(await isVisible(".tray .forget"), true);
  assert.equal(await page.$eval(".fold", (fold) => fold.getAttribute("aria-expanded")), "true");
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), "the page scrolls up and down only");

  await page.tap(".card [data-do=open]");
  const touched = "button, summary, label.only, .matrix a, .confused a, .doubts a";
  const small = await page.$$eval(touched, (all) => all.filter((element) => element.offsetParent !== null).map((element) => {
    const { width, height } = element.getBoundingClientRect();
    return { what: element.outerHTML.slice(0, 80), width, height };
  }).filter(({ width, height }) => width < 44 || height < 44));
  assert.deepEqual(small, []);
});

test("names that look like markup stay text in every place that the script writes them to", async (t) => {
  const page = await open(await freshBrowser(t), "hostile");
  page.on("dialog", () => assert.fail("a name was run"));
  const name = await page.evaluate(() => data.classes[0]);
  await focusCard(page, "zebra/002.png");
  await page.keyboard.press("p");
  assert.equal(await text(page, "[data-path='zebra/002.png'] .stamp"), "→ " + name);
  await page.click("[data-path='zebra/001.png'] [data-do=relabel]");
  assert.equal(await text(page, "dialog.ask li button"), name);
  await page.keyboard.press("Escape");
  await page.click(".matrix a[data-label='0'][data-predicted='1']");
  assert.ok((await text(page, ".pair span")).includes(name));
  await page.click(".card:not(.other) [data-do=open]");
  assert.ok((await text(page, "dialog.large .path")).startsWith(name));
  assert.equal(await page.$$eval("img", (images) => images.filter((image) => !image.src.startsWith("data:")).length), 0);
});

test("an audit estimates how many wrong labels are left from what is decided about its sample, and axe finds no violation", async (t) => {
  const page = await open(await freshBrowser(t), "audit");
  assert.deepEqual(await violations(page), []);
  const estimate = () => text(page, ".estimate");
  assert.match(await estimate(), /unknown, until you have decided about photos of the random sample/);
  await page.click("#queue .card [data-do=predicted]");
  assert.match(await estimate(), /unknown/, "what looks wrong says nothing of the others");
  const sample = await page.$$("#sample .card");
  for (const card of sample.slice(0, 9)) await (await card.$("[data-do=keep]")).click();
  await (await sample[9].$("[data-do=exclude]")).click();
  // Wilson's interval of 1 of 10 is 1.8 to 40.4%.
  await page.waitForFunction(() => document.querySelector(".estimate").textContent.includes("You found 1 of 10 labels"));
  assert.match(await estimate(), /Of the 397 labels that no repeat doubts, about 40 are wrong \(95% interval 7 to 160\)/);
  const { decisions } = await saved(page);
  assert.equal(decisions.length, 11);
  assert.deepEqual([decisions[0].verdict, decisions[0].class], ["relabel", "food"]);
  for (let undone = 0; undone < 11; undone += 1) await page.click(".undo");
  await page.waitForFunction(() => document.querySelector(".estimate").textContent.includes("unknown"));
  assert.deepEqual(await violations(page), []);
});
