// Counts what each flag did to the requests of a service, for Rampart to judge. Copy this file into the service.
//
//   const metrics = new FlagMetrics({ service: "checkout", environment: "production" });
//   const client = init(sdkKey, { hooks: [metrics.hook] });
//
//   await metrics.request(async (request) => {                // around the handling of one request
//     const enabled = await client.variation("checkout-v2", user, false);    // as before
//     request.code = 200;                // what is answered; 500 unless it is said
//   });
//
// Needs prom-client and @launchdarkly/node-server-sdk. One counter and one histogram of their own, increased once for
// every flag that the request evaluated; the service's other metrics stay as they are.

import { AsyncLocalStorage } from "node:async_hooks";
import { performance } from "node:perf_hooks";
import { Counter, Histogram, register } from "prom-client";

const LABELS = ["service", "environment", "flag", "variation", "cohort"];
const BUCKETS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];
const FLAGS_PER_REQUEST = 50;
// Of flag, variation and cohort. More are not counted: a mistake must not fill the memory of a Prometheus.
const COMBINATIONS = 1000;
const ALWAYS_PREFIX = "rampart-always-";
const BY_SHARE = new Set(["FALLTHROUGH", "OFF", "PREREQUISITE_FAILED"]);

export class FlagMetrics {
  #where;
  #variations;
  #current = new AsyncLocalStorage();
  #seen = new Set();

  // `variations` names the variations of a flag in their order, where they are neither booleans nor texts.
  constructor({
    service,
    environment,
    variations = {},
    counter = "http_requests_total",
    histogram = "http_request_duration_seconds",
    registry = register,
  }) {
    this.#where = { service, environment };
    this.#variations = variations;
    const registers = [registry];
    this.requests = new Counter({
      name: counter, help: "Requests, once per flag they used", labelNames: [...LABELS, "code"], registers,
    });
    this.seconds = new Histogram({
      name: histogram, help: "Seconds per request, once per flag it used", labelNames: LABELS, buckets: BUCKETS, registers,
    });
    this.leftOut = new Counter({
      name: "flag_metrics_left_out_total", help: "Flags not counted: too many", registers,
    });
  }

  // LaunchDarkly's hook: called at every evaluation, so that no other code has to change.
  get hook() {
    return {
      getMetadata: () => ({ name: "flag-metrics" }),
      afterEvaluation: (series, data, detail) => {
        // Without an index the SDK gave the caller's default: it knows no such flag, or no flags yet.
        if (detail.variationIndex !== null && detail.variationIndex !== undefined) {
          this.use(series.flagKey, this.#name(series.flagKey, detail), cohortOf(detail.reason));
        }
        return data;
      },
    };
  }

  // Runs `handle` as one request, and everything that it awaits.
  async request(handle) {
    const request = { code: 500, used: new Map() };
    const began = performance.now();
    try {
      return await this.#current.run(request, () => handle(request));
    } finally {
      this.#count(request, (performance.now() - began) / 1000);
    }
  }

  // The present request used a flag; called by the hook, or by you for flags of another SDK.
  use(flag, variation, cohort) {
    const request = this.#current.getStore();
    if (request === undefined || request.used.has(flag)) return;
    if (request.used.size >= FLAGS_PER_REQUEST) {
      this.leftOut.inc();
      return;
    }
    request.used.set(flag, { flag, variation, cohort });
  }

  #count(request, seconds) {
    for (const used of request.used.values()) {
      if (!this.#hasRoom(JSON.stringify(used))) {
        this.leftOut.inc();
        continue;
      }
      const labels = { ...this.#where, ...used };
      // The class of the code is enough for a rate of errors, and there are five of them.
      this.requests.inc({ ...labels, code: `${Math.floor(request.code / 100)}xx` });
      this.seconds.observe(labels, seconds);
    }
  }

  #hasRoom(combination) {
    if (this.#seen.size < COMBINATIONS) this.#seen.add(combination);
    return this.#seen.has(combination);
  }

  #name(flag, { value, variationIndex }) {
    if (flag in this.#variations) return this.#variations[flag][variationIndex];
    if (typeof value === "boolean") return value ? "on" : "off";
    return typeof value === "string" ? value : String(variationIndex);
  }
}

// "share": drawn by the flag's percentage. "always": by the plan's always audience. "other": by hand.
export function cohortOf(reason) {
  if (BY_SHARE.has(reason?.kind)) return "share";
  return (reason?.ruleId ?? "").startsWith(ALWAYS_PREFIX) ? "always" : "other";
}
