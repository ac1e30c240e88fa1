// Asks LaunchDarkly's Node server SDK. Reads a list of {url, flags, contexts} from standard input, and writes for
// each a list by context of {flag key: [value, variation, reason]}.
import { readFileSync } from "node:fs";
import { init } from "@launchdarkly/node-server-sdk";

const logger = { error() {}, warn() {}, info() {}, debug() {} };

async function ask({ url, flags, contexts }) {
  const addresses = { baseUri: url, streamUri: url, eventsUri: url };
  const client = init("sdk-key", { ...addresses, sendEvents: false, diagnosticOptOut: true, logger });
  await client.waitForInitialization({ timeout: 20 });
  const answers = [];
  for (const context of contexts) {
    const answer = {};
    for (const key of flags) {
      const { value, variationIndex, reason } = await client.variationDetail(key, context, null);
      answer[key] = [value, variationIndex ?? null, reason];
    }
    answers.push(answer);
  }
  client.close();
  return answers;
}

const answers = [];
for (const question of JSON.parse(readFileSync(0, "utf8"))) answers.push(await ask(question));
// Whatever a client still waits for must not keep the process.
process.stdout.write(JSON.stringify(answers), () => process.exit(0));
