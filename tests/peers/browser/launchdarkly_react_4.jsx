// @launchdarkly/react-sdk, told nothing but where Rampart is.
import { createLDReactProvider, useBoolVariation } from "@launchdarkly/react-sdk";
import { createRoot } from "react-dom/client";
import { clientSideId, context, rampart, Shop } from "./shop.jsx";

const LDProvider = createLDReactProvider(clientSideId, context, {
  ldOptions: { baseUri: rampart, streamUri: rampart, eventsUri: rampart },
});

createRoot(document.getElementById("root")).render(
  <LDProvider>
    <Shop useFlag={(name) => useBoolVariation(name, false)} sdk="@launchdarkly/react-sdk" />
  </LDProvider>,
);
