// The page that is tried: one of two checkouts, some smaller features, and a note of when each was on the screen.
import { useEffect } from "react";

const query = new URLSearchParams(location.search);
export const rampart = query.get("rampart");
export const clientSideId = query.get("id");
export const context = { kind: "user", key: query.get("user"), email: query.get("email") ?? undefined };
const checkout = query.get("checkout");
const features = query.get("features")?.split(",") ?? [];

window.painted = [];

function usePaintNote(flag, on) {
  useEffect(() => {
    // In the frame after the one that shows it.
    requestAnimationFrame(() => requestAnimationFrame(() => window.painted.push({ flag, on, at: Date.now() })));
  }, [flag, on]);
}

function Checkout({ useFlag }) {
  const on = useFlag(checkout);
  usePaintNote(checkout, on);
  return (
    <section className={on ? "new" : "old"}>
      <h1>{on ? "Pay in one step" : "Your basket"}</h1>
      <p>{on ? "The new checkout: address and card on one page." : "The checkout you know: three pages."}</p>
      <button>{on ? "Pay now" : "To the address"}</button>
    </section>
  );
}

function Feature({ flag, useFlag }) {
  const on = useFlag(flag);
  usePaintNote(flag, on);
  return <li className={on ? "new" : "old"}>{flag}</li>;
}

// `useFlag` is the SDK's hook: the name of a flag → whether it is on.
export function Shop({ useFlag, sdk }) {
  return (
    <main>
      {checkout && <Checkout useFlag={useFlag} />}
      <ul>
        {features.map((flag) => (
          <Feature key={flag} flag={flag} useFlag={useFlag} />
        ))}
      </ul>
      <small>
        {context.key} · {sdk}
      </small>
    </main>
  );
}
