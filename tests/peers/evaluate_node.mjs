// Asks LaunchDarkly's Node server SDK: reads {url, contexts} from standard input, and writes one line of JSON
// per context: {flag key: [value, variation, reason]}.
import { readFileSync } from "node:fs";
import { init } from "@launchdarkly/node-server-sdk";

const { url, flags, contexts } = JSON.parse(readFileSync(0, "utf8"));
const silent = { error() {}, warn() {}, info() {}, debug() {} };
const client = init("sdk-key", {
  baseUri: url,
  streamUri: url,
  eventsUri: url,
  sendEvents: false,
  diagnosticOptOut: true,
  logger: silent,
});
await client.waitForInitialization({ timeout: 20 });
const lines = [];
for (const context of contexts) {
  const answers = {};
  for (const key of flags) {
    const { value, variationIndex, reason } = await client.variationDetail(key, context, null);
    answers[key] = [value, variationIndex ?? null, reason];
  }
  lines.push(JSON.stringify(answers) + "\n");
}
client.close();
// Whatever the client still waits for must not keep the process.
process.stdout.write(lines.join(""), () => process.exit(0));
