// A service of twenty flags with docs/recipes/flag-metrics.mjs, which the test puts beside this file.
// Arguments: Rampart's address, an SDK key, the port to show /metrics on, and the flags, separated by commas.

import { createServer } from "node:http";
import { init } from "@launchdarkly/node-server-sdk";
import { register } from "prom-client";
import { FlagMetrics } from "./flag-metrics.mjs";

const [url, key, port, flags] = process.argv.slice(2);
const CODES = [200, 200, 200, 404, 500];
const metrics = new FlagMetrics({ service: "node", environment: "production" });
const client = init(key, {
  baseUri: url, streamUri: url, eventsUri: url, sendEvents: false, diagnosticOptOut: true, hooks: [metrics.hook],
});
await client.waitForInitialization({ timeout: 20 });

let visits = 0;
async function visit() {
  const number = ++visits;
  const staff = number % 10 === 0;
  const user = { kind: "user", key: `user-${number}`, ...(staff ? { email: "anna@acme.example" } : {}) };
  await metrics
    .request(async (request) => {
      for (const flag of flags.split(",")) await client.variation(flag, user, false);
      const code = CODES[(staff ? number / 10 : number) % 5];
      if (code === 500) throw new Error("this one fails");
      request.code = code;
    })
    .catch(() => {});
}

setInterval(() => Promise.all(Array.from({ length: 20 }, visit)), 100);
createServer(async (_, response) => {
  response.setHeader("Content-Type", register.contentType);
  response.end(await register.metrics());
}).listen(Number(port), "127.0.0.1");
