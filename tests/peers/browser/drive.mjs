// Drives one Chromium: a command as JSON on each line of standard input, its answer on a line of standard output.
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const flags = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync", "--disable-background-timer-throttling",
  "--disable-renderer-backgrounding", "--disable-backgrounding-occluded-windows"];
const browser = await chromium.launch({ executablePath: process.argv[2], args: flags, chromiumSandbox: false });
const pages = [];
const said = [];

const commands = {
  async open({ url }) {
    // A context of its own: a visitor with a browser of their own, who is nobody's second tab.
    const context = await browser.newContext({ viewport: { width: 640, height: 400 } });
    const page = await context.newPage();
    page.on("console", (message) => said.push(message.text()));
    page.on("pageerror", (error) => said.push(String(error)));
    await page.goto(url);
    return pages.push(page) - 1;
  },
  async painted({ page }) {
    return pages[page].evaluate("window.painted ?? []");
  },
  async screenshot({ page, path }) {
    await pages[page].screenshot({ path });
  },
  async said() {
    return said;
  },
  async close({ page }) {
    await pages[page].context().close();
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { command, ...options } = JSON.parse(line);
  let answer;
  try {
    answer = { answer: (await commands[command](options)) ?? null };
  } catch (error) {
    answer = { error: String(error) };
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
}
await browser.close();
