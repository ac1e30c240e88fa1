// OpenFeature's web SDK and its OFREP provider, told nothing but where Rampart is.
import { OFREPWebProvider } from "@openfeature/ofrep-web-provider";
import { OpenFeature, ProviderEvents } from "@openfeature/web-sdk";
import { useSyncExternalStore } from "react";
import { createRoot } from "react-dom/client";
import { clientSideId, context, rampart, Shop } from "./shop.jsx";

const provider = new OFREPWebProvider({
  baseUrl: rampart,
  headers: [["Authorization", `Bearer ${clientSideId}`]],
});
await OpenFeature.setContext({ targetingKey: context.key, email: context.email });
await OpenFeature.setProviderAndWait(provider);
const client = OpenFeature.getClient();

function subscribe(changed) {
  client.addHandler(ProviderEvents.ConfigurationChanged, changed);
  return () => client.removeHandler(ProviderEvents.ConfigurationChanged, changed);
}

const useFlag = (name) => useSyncExternalStore(subscribe, () => client.getBooleanValue(name, false));

createRoot(document.getElementById("root")).render(
  <Shop useFlag={useFlag} sdk="@openfeature/ofrep-web-provider" />,
);
