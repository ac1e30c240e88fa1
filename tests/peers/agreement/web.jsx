// In the browser: asks each client-side SDK for every flag, context by context.
//
// `ask(sdk, {url, id, flags, contexts, types})` gives a list by context of {flag key: [value, variation, reason]};
// of SDKs that do not say them, variation and reason are null. `types` are those that OpenFeature is to ask for.
import { createClient } from "@launchdarkly/js-client-sdk";
import { createLDReactProvider, LDReactContext, useJsonVariationDetail, useLDClient } from "@launchdarkly/react-sdk";
import { OFREPWebProvider } from "@openfeature/ofrep-web-provider";
import { OpenFeature } from "@openfeature/web-sdk";
import { initialize } from "launchdarkly-js-client-sdk";
import { asyncWithLDProvider, useFlags, useLDClient as useLDClient3 } from "launchdarkly-react-client-sdk";
import { useContext } from "react";
import { createRoot } from "react-dom/client";

const logger = { error() {}, warn() {}, info() {}, debug() {} };
const quiet = { sendEvents: false, diagnosticOptOut: true, fetchGoals: false, streaming: false, logger };
const options3 = (url) => ({ ...quiet, baseUrl: url, streamUrl: url, eventsUrl: url, evaluationReasons: true });
const options4 = (url) => ({ ...quiet, baseUri: url, streamUri: url, eventsUri: url, withReasons: true });

const detailed = (client, flags) =>
  Object.fromEntries(flags.map((key) => [key, plain(client.variationDetail(key, null))]));
const plain = ({ value, variationIndex, reason }) => [value, variationIndex ?? null, reason ?? null];

async function until(condition) {
  const deadline = performance.now() + 5000;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error("what is asked for is not rendered");
    await new Promise((resolve) => setTimeout(resolve, 0));
  }
}

function render(element) {
  document.body.innerHTML = "<div id='root'></div>";
  createRoot(document.getElementById("root")).render(element);
}

const sdks = {
  async "launchdarkly-js-client-sdk"({ url, id, flags, contexts }) {
    const client = initialize(id, contexts[0], options3(url));
    await client.waitForInitialization(10);
    const answers = [];
    for (const context of contexts) {
      await client.identify(context);
      answers.push(detailed(client, flags));
    }
    await client.close();
    return answers;
  },

  async "@launchdarkly/js-client-sdk"({ url, id, flags, contexts }) {
    const client = createClient(id, contexts[0], options4(url));
    await client.start();
    const answers = [];
    for (const context of contexts) {
      const { status } = await client.identify(context);
      if (status !== "completed") throw new Error(`identify: ${status}`);
      answers.push(detailed(client, flags));
    }
    await client.close();
    return answers;
  },

  async "launchdarkly-react-client-sdk"({ url, id, flags, contexts }) {
    const Provider = await asyncWithLDProvider({
      clientSideID: id,
      context: contexts[0],
      options: options3(url),
      reactOptions: { useCamelCaseFlagKeys: false, sendEventsOnFlagRead: false },
    });
    let rendered, client;
    function Page() {
      rendered = { ...useFlags() };
      client = useLDClient3();
    }
    render(<Provider><Page /></Provider>);
    await until(() => client);
    const answers = [];
    for (const context of contexts) {
      await client.identify(context);
      const asked = JSON.stringify(Object.entries(client.allFlags()).sort());
      await until(() => JSON.stringify(Object.entries(rendered).sort()) === asked);
      answers.push(Object.fromEntries(flags.map((key) => [key, [rendered[key] ?? null, null, null]])));
    }
    return answers;
  },

  async "@launchdarkly/react-sdk"({ url, id, flags, contexts }) {
    const Provider = createLDReactProvider(id, contexts[0], { ldOptions: options4(url) });
    let rendered, client;
    function Page() {
      client = useLDClient();
      const { context, initializedState } = useContext(LDReactContext);
      const answers = flags.map((key) => [key, plain(useJsonVariationDetail(key, null))]);
      rendered = { context, ready: initializedState === "complete", answers: Object.fromEntries(answers) };
    }
    render(<Provider><Page /></Provider>);
    await until(() => rendered?.ready);
    const answers = [];
    for (const context of contexts) {
      await client.identify(context);
      const asked = JSON.stringify(client.getContext());
      await until(() => JSON.stringify(rendered.context) === asked);
      answers.push(rendered.answers);
    }
    return answers;
  },

  async "@openfeature/ofrep-web-provider"({ url, id, flags, contexts, types }) {
    await OpenFeature.setContext(contexts[0]);
    await OpenFeature.setProviderAndWait(
      new OFREPWebProvider({
        baseUrl: url,
        headers: [["Authorization", `Bearer ${id}`]],
        pollInterval: 0,
        cacheMode: "disabled", // it goes by the targeting key alone, and many contexts here share one
      }),
    );
    const client = OpenFeature.getClient();
    // Each wants a default of its type; what is served has a variant.
    const details = {
      boolean: (key) => client.getBooleanDetails(key, false),
      string: (key) => client.getStringDetails(key, ""),
      number: (key) => client.getNumberDetails(key, 0),
      object: (key) => client.getObjectDetails(key, {}),
    };
    const served = ({ value, variant, reason }) => (variant === undefined ? [null, null, reason] : [value, variant, reason]);
    const answers = [];
    for (const [place, context] of contexts.entries()) {
      await OpenFeature.setContext(context);
      answers.push(Object.fromEntries(flags.map((key) => [key, served(details[types[place][key]](key))])));
    }
    await OpenFeature.close();
    return answers;
  },
};

window.ask = (sdk, question) => sdks[sdk](question);
