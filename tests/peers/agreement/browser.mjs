// Asks client-side SDKs in a real Chromium: node browser.mjs CHROMIUM BUNDLE. Reads {sdk, questions} from standard
// input, and writes the list of what `ask` in web.jsx gives for each question.
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { once } from "node:events";
import { chromium } from "playwright-core";

const [executablePath, bundle] = process.argv.slice(2);
const { sdk, questions } = JSON.parse(readFileSync(0, "utf8"));

// A page of another origin than Rampart's, and on this machine too: others may not ask what runs here.
const shop = createServer((_, response) => response.end("<!doctype html><title>Shop</title><body></body>"));
shop.listen(0, "127.0.0.1");
await once(shop, "listening");

const browser = await chromium.launch({ executablePath, args: ["--disable-gpu"], chromiumSandbox: false });
const answers = [];
for (const question of questions) {
  const page = await (await browser.newContext()).newPage();
  await page.goto(`http://127.0.0.1:${shop.address().port}/`);
  await page.addScriptTag({ path: bundle });
  answers.push(await page.evaluate(([name, one]) => window.ask(name, one), [sdk, question]));
  await page.context().close();
}
await browser.close();
process.stdout.write(JSON.stringify(answers), () => process.exit(0));
