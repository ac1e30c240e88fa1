// launchdarkly-react-client-sdk, told nothing but where Rampart is.
import { asyncWithLDProvider, useFlags } from "launchdarkly-react-client-sdk";
import { createRoot } from "react-dom/client";
import { clientSideId, context, rampart, Shop } from "./shop.jsx";

const LDProvider = await asyncWithLDProvider({
  clientSideID: clientSideId,
  context,
  options: { baseUrl: rampart, streamUrl: rampart, eventsUrl: rampart },
});

createRoot(document.getElementById("root")).render(
  <LDProvider>
    <Shop useFlag={(name) => useFlags()[name] === true} sdk="launchdarkly-react-client-sdk" />
  </LDProvider>,
);
