"""What Prometheus sees of a real server in a staged incident: whether alerts and panels have something to say.

Thresholds in time are shortened as SHORTENED says, and nothing is waited out that an alert asks for with `for`:
tests/peers/alerts holds both as they are. What cannot be staged in a minute, such as a provider that is away or a
replica that is cut off, comes from the page of a second, made-up replica on which everything is wrong.
"""

import json
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct
from msgspec.structs import replace

from controller.domain.notification import Backlog
from tests.peers.alert_cases import cases, rules
from tests.peers.test_metrics_promtool import KILLED as MADE_UP_KILL
from tests.peers.test_metrics_promtool import everything
from tests.support import manifests
from tests.support.dashboard import as_asked, expressions, labels_shown
from tests.support.exposition import Exposition, Traffic
from tests.support.postgres import Frozen
from tests.support.prometheus import ExpositionServer, free_port, running_prometheus
from tests.support.server import RampartServer, wait_until
from tests.support.statuses import make_rule, make_status

pytestmark = pytest.mark.timeout(240)

SHORTENED = {" > 300": " > 3", " > 900": " > 3", " > 60": " > 3", " > 15": " > 1"}
GOOD, PAUSED, KILLED, BLIND, WAITING, STUCK = "search", "checkout", "menu", "wishlist", "cart", "login"
STAGED = {
    "RampartPaused": [PAUSED],
    "RampartBreachGoesOn": [PAUSED],
    "RampartKilled": [KILLED],
    "RampartGuardrailBlind": [BLIND],
    "RampartApprovalWaiting": [WAITING],
    "RampartSourceStale": [],
    "RampartNotificationFailing": [],
    "RampartAlertUnheeded": [],
}
"""By the incident itself, with the rollouts that each is about."""
WITHOUT_DATABASE = ("RampartTicksStalled", "RampartRaisesBlocked")
MADE_UP = (
    "RampartTickLate", "RampartPeerSilent", "RampartAuditCut", "RampartUnreadable", "RampartManifestsNotInForce",
    "RampartKillUnconfirmed", "RampartQuarantined", "RampartDrift", "RampartChangedByHand",
    "RampartProviderFailing", "RampartFrontCutOff", "RampartNotificationDead",
)  # fmt: skip
AT_MOST_SERIES = 600
"""Of six rollouts with three rules each, and the server: a loop over people or kills would make more."""


class Found(Struct, frozen=True):
    labels: Mapping[str, str]
    value: float


class Observer:
    """Asks Prometheus as Grafana and its own rules do."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, expr: str) -> list[Found]:
        query = urllib.parse.urlencode({"query": expr})
        with urllib.request.urlopen(f"{self.url}/api/v1/query?{query}", timeout=10) as answer:
            result = json.load(answer)["data"]["result"]
        return [Found(one["metric"], float(one["value"][1])) for one in result]

    def alert(self, name: str, *, shortened: bool = True) -> list[Found]:
        expr = str(rules()[name]["expr"])
        for long, short in SHORTENED.items() if shortened else ():
            expr = expr.replace(long, short)
        return self.ask(expr)


class Worst:
    """The page of a replica on which everything is wrong, a little more with each scrape."""

    def __init__(self) -> None:
        self._metrics = everything()
        self._scrapes = 0

    def text(self) -> str:
        metrics = self._metrics
        self._scrapes += 1
        at = datetime.now(UTC) - timedelta(minutes=10)
        metrics.tick(lag_seconds=20, duration_seconds=8, at=at)
        metrics.run_seen(
            make_status("checkout-v2#3", rules=[make_rule("errors-high", outcome="breach", baseline=0.002)])
        )
        metrics.kills_in_force(lambda: [replace(MADE_UP_KILL, accepted_at=at)])
        metrics.audit_head(1000 - self._scrapes)
        metrics.peer_request("timeout")
        metrics.provider_request("main", "observe", "timeout")
        metrics.circuit("provider", "main", is_open=True)
        metrics.decision("checkout-v2", "production", "pause", "drift")
        metrics.decision("checkout-v2", "production", "advance", "policy")
        metrics.kill(0.02, "user")
        metrics.unreadable({"plan": 2})
        metrics.manifests("/manifests", in_force=False)
        metrics.notifications_left([Backlog(channel="pager", waiting=2, oldest_waiting_seconds=900, dead=1)], [])
        return metrics.render().decode()


class Scene(Struct, frozen=True):
    app: Exposition
    server: RampartServer
    prometheus: Observer
    worst: ExpositionServer


def plan(flag: str, *, source: str = "app") -> str:
    text = manifests.plan(flag, "60s", policy="quick" if source == "app" else f"quick-{source}")
    return text + "  notify: [{ to: oncall, events: [started, advanced, paused, killed] }]\n"


def gated(flag: str) -> str:
    """Soon at the gate before its second stage."""
    early = "name: early, exposure: 10%, bake: 60s"
    text = plan(flag).replace("exposure: 1%, bake: 60s", "exposure: 1%, bake: 1s")
    assert early in text
    return text.replace(early, f"{early}, approval: {{ from: [managers] }}")


def files() -> dict[str, str]:
    gone = manifests.policy("gone").replace("name: quick", "name: quick-gone")
    found = {"app_policy": manifests.policy(), "gone_policy": gone}
    found |= {f"{flag}_flag": manifests.flag(flag) for flag in (GOOD, PAUSED, KILLED, BLIND, WAITING, STUCK)}
    found |= {f"{flag}_rollout": plan(flag) for flag in (GOOD, PAUSED, KILLED, BLIND)}
    return found | {f"{WAITING}_rollout": gated(WAITING), f"{STUCK}_rollout": plan(STUCK, source="gone")}


def settings(folder: Path, app: Exposition) -> str:
    key = folder / "webhook.key"
    key.write_text("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n")
    return (
        manifests.scrape_settings(app.url)
        + f'[sources.gone]\nkind = "prometheus"\nurl = "http://127.0.0.1:{free_port()}"\n'
        + f'[channels.oncall]\nkind = "webhook"\nurl = "http://127.0.0.1:{free_port()}/hook"\n'
        + f'allow_private = true\nsecret_files = ["{key}"]\n[groups]\nmanagers = ["kim"]\n'
    )


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("alerts")
    flags = {flag: {"on": Traffic(), "off": Traffic()} for flag in (GOOD, PAUSED, KILLED, BLIND, WAITING, STUCK)}
    with ExitStack() as stack:
        app = Exposition(flags)
        stack.callback(app.close)
        worst = stack.enter_context(ExpositionServer(Worst().text))
        worst.status = 503
        server = RampartServer(folder, settings(folder, app))
        stack.callback(server.stop)
        server.start()
        targets = [f"127.0.0.1:{server.port}", worst.address]
        prometheus = stack.enter_context(running_prometheus(folder / "prometheus", targets))
        server.apply(**files())
        yield Scene(app, server, Observer(prometheus), worst)


@pytest.fixture(scope="module")
def healthy(scene: Scene) -> dict[str, list[Found]]:
    """What each alert says, thresholds as they are, while one rollout is under way and all is well."""
    scene.server.command(GOOD, "start")
    wait_until(lambda: scene.server.status(GOOD)["confirmed"], what="the good rollout to be confirmed")
    judged = 'rampart_guardrail_data_state{rollout="search",state="ok"} == 1'
    wait_until(lambda: len(scene.prometheus.ask(judged)) == 3, what="Prometheus to see three rules with data")
    return {name: scene.prometheus.alert(name, shortened=False) for name in rules()}


@pytest.fixture(scope="module")
def incident(scene: Scene, healthy: dict[str, Any]) -> dict[str, list[Found]]:
    """What each alert says when everything that can be staged is under way."""
    server, app = scene.server, scene.app
    for flag in (PAUSED, KILLED, BLIND, WAITING, STUCK):
        server.command(flag, "start")
    for flag in (PAUSED, KILLED, BLIND):
        wait_until(lambda flag=flag: server.status(flag)["confirmed"], what=f"{flag} to be confirmed")  # type: ignore[misc]
    app.flags[PAUSED]["on"].error_rate = 0.05
    app.flags[KILLED]["on"].error_rate = 0.5
    app.forget(BLIND)
    server.wait_phase(PAUSED, "paused")
    server.wait_phase(KILLED, "killed")
    send_alert_that_may_not_pause(server)
    return {name: wait_for(scene, name) for name in STAGED}


def send_alert_that_may_not_pause(server: RampartServer) -> None:
    """Twice: whoever appears counted for the first time has no increase yet."""
    made = server.call("POST", "tokens", {"name": "alertmanager", "scopes": ["kill"], "environments": ["staging"]})
    for number in range(2):
        alert = {
            "status": "firing",
            "labels": {"alertname": "QueueGrows", "rampart_rollout": GOOD},
            "annotations": {},
            "startsAt": f"2026-11-21T12:00:0{number}Z",
            "endsAt": "0001-01-01T00:00:00Z",
            "fingerprint": f"0123456789abcde{number}",
        }
        answer = server.request("POST", "/api/v1/alerts", {"alerts": [alert]}, token=made["secret"])
        assert answer.json["results"][0]["outcome"] == "forbidden", answer.body


def wait_for(scene: Scene, name: str) -> list[Found]:
    return wait_until(lambda: scene.prometheus.alert(name), seconds=40, every=0.3, what=f"{name} to say something")


@pytest.fixture(scope="module")
def panels(scene: Scene, incident: dict[str, Any]) -> dict[str, list[Found]]:
    """What each expression of the dashboard finds while the incident is under way and one replica is made up."""
    scene.worst.status = 200
    shown = {where: as_asked(expr, rate_interval="1m") for where, expr, _ in expressions()}
    found: dict[str, list[Found]] = {}

    def all_found() -> bool:
        found.update({where: scene.prometheus.ask(expr) for where, expr in shown.items() if not found.get(where)})
        return all(found.values())

    try:
        wait_until(all_found, seconds=40, every=0.5, what="every panel to show something")
    except AssertionError:
        return found  # each panel's own test says that it shows nothing
    return found


def labels_of(found: list[Found]) -> set[str]:
    return set().union(*(one.labels for one in found))


def labels_expected(name: str) -> set[str]:
    """Those that the cases of the alert say. There they are of an installation in Kubernetes, or not."""
    fires = [one for case in cases() if case.alert == name for one in case.fires]
    return set().union(*(one.get("labels", {}) for one in fires)) - {"namespace"}


def test_while_all_is_well_no_alert_has_anything_to_say(healthy: dict[str, list[Found]]) -> None:
    assert healthy.keys() == rules().keys()
    assert {name: found for name, found in healthy.items() if found} == {}


@pytest.mark.parametrize("name", STAGED)
def test_an_alert_tells_of_its_incident_and_of_nothing_else(name: str, incident: dict[str, list[Found]]) -> None:
    found = incident[name]
    assert labels_of(found) == labels_expected(name)
    if STAGED[name]:
        assert {one.labels["rollout"] for one in found} == set(STAGED[name])


def test_the_numbers_of_alerts_are_those_of_the_server(scene: Scene, incident: dict[str, list[Found]]) -> None:
    status = scene.server.status(PAUSED)
    (paused,) = incident["RampartPaused"]
    assert paused.value == status["desired_exposure"] / 100_000
    (broken,) = incident["RampartBreachGoesOn"]
    assert broken.labels["rule"] == "errors-high"
    assert broken.value == pytest.approx(0.05, rel=0.3)
    (killed,) = incident["RampartKilled"]
    assert killed.labels["cause"] == "policy"
    assert killed.labels["flag"] == KILLED
    (waiting,) = incident["RampartApprovalWaiting"]
    assert waiting.labels["stage"] == "early"


def test_series_of_some_rollouts_are_few(scene: Scene, incident: dict[str, list[Found]]) -> None:
    (count,) = scene.prometheus.ask(f'count({{__name__=~"rampart_.+",instance="127.0.0.1:{scene.server.port}"}})')
    assert count.value < AT_MOST_SERIES


@pytest.mark.parametrize("where", [where for where, _, _ in expressions()])
def test_every_panel_shows_something_with_the_labels_of_its_legend(
    where: str, panels: dict[str, list[Found]]
) -> None:
    legend = next(legend for place, _, legend in expressions() if place == where)
    assert panels[where], "it shows nothing in an incident"
    assert labels_shown(legend) <= labels_of(panels[where])


@pytest.mark.parametrize("name", MADE_UP)
def test_an_alert_tells_of_a_replica_on_which_everything_is_wrong(
    name: str, scene: Scene, panels: dict[str, list[Found]]
) -> None:
    assert labels_of(wait_for(scene, name)) == labels_expected(name)


def test_without_a_database_and_then_without_a_replica_alerts_say_so(
    scene: Scene, panels: dict[str, list[Found]]
) -> None:
    """The last of all: nothing is left of the scene after it."""
    scene.worst.status = 503
    with Frozen(scene.server.postmaster):
        for name in WITHOUT_DATABASE:
            assert labels_of(wait_for(scene, name)) == labels_expected(name)
        assert scene.prometheus.alert("RampartDown") == []
    scene.server.kill()
    wait_for(scene, "RampartDown")


def test_every_alert_is_staged_or_made_up() -> None:
    assert sorted([*STAGED, *WITHOUT_DATABASE, *MADE_UP, "RampartDown"]) == sorted(rules())


def test_every_threshold_that_is_shortened_is_one() -> None:
    written = " ".join(str(rule["expr"]) for rule in rules().values())
    assert all(long in written for long in SHORTENED)
