"""A server with rollouts in every state that a page can show, and the people who look at them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support import manifests
from tests.support.exposition import Exposition, Traffic
from tests.support.server import RampartServer, wait_until

DANA, KIM, SAM, VIV = "dana", "kim", "sam", "viv"
PEOPLE = {
    DANA: ["read", "author", "operate", "approve"],
    KIM: ["read", "operate", "approve", "kill"],
    SAM: ["read", "kill"],
    VIV: ["read"],
}
"""Dana writes the plans; Kim is the second person; Sam is on call; Viv may only look."""

GROUPS = f'[groups]\nmanagers = ["{DANA}", "{KIM}"]\n'
POLICY = "web-service"
FLAG = """\
apiVersion: rampart/v1
kind: Flag
metadata: {{ name: {flag} }}
spec: {{ environment: production, key: {flag} }}
"""
PLAN = """\
apiVersion: rampart/v1
kind: RolloutPlan
metadata:
  name: {flag}
  owner: team-shop
  labels: {{ service: shop }}
  links: {{ runbook: "https://wiki.acme.example/{flag}", dashboard: "https://graphs.acme.example/{flag}" }}
spec:
  flag: {{ provider: main, environment: production, key: {flag} }}
  serve: {{ rollout: "on", fallback: "off" }}
  audience:
    always: [{{ name: staff, match: {{ email: {{ endsWith: "@acme.example" }} }} }}]
  stages:
{stages}
  guardrails:
    - {{ policy: web-service, with: {{ service: shop }} }}
"""
Stage = tuple[str, str, str]
"""Name, exposure and bake; after a bake there may be a comma and more of a stage's fields."""
GATE = ", approval: { from: [managers], timeout: 8h }"
LONG: Sequence[Stage] = (
    ("canary", "1%", "1s"), ("early", "10%", "2h"), ("half", "50%", "12h" + GATE), ("everyone", "100%", "24h"),
)  # fmt: skip
GATED: Sequence[Stage] = (("canary", "1%", "1s"), ("half", "50%", "2h" + GATE), ("everyone", "100%", "24h"))
SHORT: Sequence[Stage] = (("canary", "10%", "1s"), ("everyone", "100%", "1s"))


def policy(window: str) -> str:
    text = manifests.policy(every="300ms", window=window, stale_after=window, before=window, pause_for="1s")
    return text.replace("name: quick", f"name: {POLICY}")


def plan(flag: str, stages: Sequence[Stage]) -> str:
    lines = [f"    - {{ name: {name}, exposure: {exposure}, bake: {bake} }}" for name, exposure, bake in stages]
    return PLAN.format(flag=flag, stages="\n".join(lines))


class World:
    """`window` is that of the policy: a longer one has no gaps on a busy machine, and takes longer to begin."""

    def __init__(self, server: RampartServer, app: Exposition, window: str) -> None:
        self.server = server
        self.window = window
        self.app = app
        self.secrets: dict[str, str] = {}
        self.sdk_key = ""

    def hire(self) -> None:
        for name, scopes in PEOPLE.items():
            made = self.server.call("POST", "tokens", {"name": name, "scopes": scopes})
            self.secrets[name] = made["secret"]
        self.sdk_key = self.server.sdk_key()

    def turn_bad(self, flag: str, **changes: float) -> None:
        for name, value in changes.items():
            setattr(self.app.flags[flag]["on"], name, value)

    def apply(self, plans: Mapping[str, Sequence[Stage]]) -> None:
        """By Dana, all at once."""
        files = [(f"{POLICY}.policy.yaml", policy(self.window))]
        for flag, stages in plans.items():
            files += [(f"{flag}.flag.yaml", FLAG.format(flag=flag)), (f"{flag}.rollout.yaml", plan(flag, stages))]
        self.by(DANA, "POST", "manifests", {"files": [{"name": name, "text": text} for name, text in files]})

    def start(self, *flags: str) -> None:
        for flag in flags:
            self.by(DANA, "POST", f"plans/{flag}/start", {"note": "release 2.14"})

    def by(self, person: str, method: str, path: str, body: object = None) -> Any:
        answer = self.server.request(method, f"/api/v1/{path}", body, token=self.secrets[person], timeout=60)
        assert answer.status < 300, f"{method} {path}: {answer.status} {answer.body.decode(errors='replace')}"
        return answer.json if answer.body else None

    def wait(self, flag: str, what: str, seconds: float = 40.0, **wanted: object) -> Any:
        """The status in which each field of `wanted` has its value."""

        def there() -> Any:
            status = self.server.status(flag)
            return status if all(status[name] == value for name, value in wanted.items()) else None

        return wait_until(there, seconds=seconds, every=0.1, what=f"{flag} {what}")

    def wait_gate(self, flag: str) -> None:
        def asked() -> bool:
            return any(block["code"] == "approval" for block in self.server.status(flag)["blocks"])

        wait_until(asked, seconds=40, every=0.1, what=f"{flag} to wait for approval")

    def serves_staff(self, flag: str) -> bool:
        """What an application is told to show to staff, who are in from the first stage on."""
        question = {"context": {"targetingKey": "pat", "email": "pat@acme.example"}}
        path = f"/ofrep/v1/evaluate/flags/{flag}"
        answer = self.server.request("POST", path, question, token=self.sdk_key)
        assert answer.status == 200, answer.body
        return bool(answer.json["value"])

    def trigger(self, flag: str) -> str:
        """The path of a new address that kills it."""
        made = self.server.call("POST", "triggers", {"flag": flag, "environment": "production"})
        return str(made["path"])

    def kills(self, flag: str) -> list[Any]:
        return [one for one in self.server.call("GET", "kills") if one["flag"]["key"] == flag]


def measured_by(prometheus: str) -> str:
    """Settings for `world_of`."""
    engine = "[engine]\npoll_seconds = 0.1\nlease_seconds = 2.0\n[database]\ntimeout_seconds = 2.0\n"
    return f'[sources.app]\nkind = "prometheus"\nurl = "{prometheus}"\ntimeout_seconds = 2.0\n{engine}'


@contextmanager
def shop_of(flags: Sequence[str]) -> Iterator[Exposition]:
    """What serves these flags, all of them well, and counts it."""
    app = Exposition({flag: {"on": Traffic(), "off": Traffic()} for flag in flags})
    try:
        yield app
    finally:
        app.close()


@contextmanager
def world_of(folder: Path, app: Exposition, settings: str = "", *, window: str = "4s") -> Iterator[World]:
    """A server that measures the shop (`settings` may say how), no flags yet, and its people."""
    server = RampartServer(folder, (settings or manifests.scrape_settings(app.url, every=0.3)) + GROUPS)
    try:
        server.start()
        world = World(server, app, window)
        world.hire()
        yield world
    finally:
        server.stop()


HEALTHY, GATED_ONE, PAUSED, KILLED, DONE, NEW = (
    "search-v2", "checkout-v2", "prices-v3", "cart-v2", "profile-v2", "billing-v2",
)  # fmt: skip
SHOWN = (HEALTHY, GATED_ONE, PAUSED, KILLED, DONE, NEW)


def fill(world: World, before_two_turn_bad: Callable[[], object] = lambda: None) -> None:
    """One rollout for each state: healthy, at a gate, paused and killed by its policy, done, and new."""
    stages = dict.fromkeys(SHOWN, LONG) | {GATED_ONE: GATED, DONE: SHORT}
    world.apply(stages)
    world.start(HEALTHY, GATED_ONE, PAUSED, KILLED, DONE)
    for flag in (HEALTHY, PAUSED, KILLED):
        world.wait(flag, "to be at its second stage", stage=1, confirmed=True)
    before_two_turn_bad()
    world.turn_bad(PAUSED, error_rate=0.043)
    world.turn_bad(KILLED, error_rate=0.31, seconds=0.4)
    world.wait_gate(GATED_ONE)
    world.wait(PAUSED, "to be paused", phase="paused")
    world.wait(KILLED, "to be killed", phase="killed")
    world.wait(DONE, "to be completed", phase="completed")
