// Chromium for the tests of pages, as `make test-deps` has installed it in $BROWSER. $PAGES is a folder of the test.

import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

const { BROWSER, PAGES } = process.env;
const installed = createRequire(path.join(BROWSER, "package.json"));
const puppeteer = installed("puppeteer-core");

/** The script of axe-core. */
export const axe = fs.readFileSync(installed.resolve("axe-core/axe.min.js"), "utf8");

/** Starts Chromium with a profile of its own. */
export function launch() {
  const folder = path.join(BROWSER, "chromium");
  return puppeteer.launch({
    executablePath: path.join(folder, "chromium"),
    headless: "shell",
    pipe: true,
    userDataDir: path.join(PAGES, "profile"),
    args: ["--no-sandbox", "--no-zygote", "--disable-gpu", "--disable-dev-shm-usage"],
    env: { HOME: PAGES, LD_LIBRARY_PATH: folder, FONTCONFIG_PATH: folder },
  });
}
