"""The scene: a shop, Rampart with every channel, Prometheus with our rules and a team's, Alertmanager, receivers.

Alertmanager runs on the configuration of docs/alertmanager.md, with addresses put in and its intervals shortened.
Prometheus runs on the alerts of the chart with every `for` divided by sixty; windows and limits are unchanged.
"""

import asyncio
import base64
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml

from controller.demo.pace import scale_durations, shipped_policy
from tests.peers.incident.timeline import Timeline
from tests.support.prometheus import prometheus_binary
from tests.support.receivers import Fault, HttpReceiver, Received, SmtpReceiver
from tests.support.repository import ROOT, blocks
from tests.support.server import RampartServer, free_port, serving, wait_until

PAGE = ROOT / "docs" / "alertmanager.md"
OUR_ALERTS = ROOT / "helm" / "rampart" / "files" / "alerts.yaml"
HERE = Path(__file__).parent
FASTER = 40
"""By how much the shipped policy's durations are divided."""

FORS_FASTER = 60
CHECKOUT, SEARCH = "checkout-v2", "search-v2"
CHANNELS = ("webhook", "slack", "pagerduty", "email")
EVENTS = "started, advanced, paused, resumed, killed, completed, approval"

FLAG = """\
apiVersion: rampart/v1
kind: Flag
metadata: {{ name: {flag} }}
spec: {{ environment: production, key: {flag} }}
"""
PLAN = """\
apiVersion: rampart/v1
kind: RolloutPlan
metadata: {{ name: {flag}, owner: team-shop, links: {{ runbook: "https://runbooks.example/{flag}" }} }}
spec:
  flag: {{ provider: main, environment: production, key: {flag} }}
  serve: {{ rollout: "on", fallback: "off" }}
  stages:
    - {{ name: canary,   exposure: 20%,  bake: 3s }}
    - {{ name: half,     exposure: 50%,  bake: 1h }}
    - {{ name: everyone, exposure: 100%, bake: 1h }}
  guardrails:
    - {{ policy: web-service, with: {{ service: shop }} }}
  notify: [{notify}]
"""
TEAM_RULES = """\
groups:
  - name: search
    rules:
      - alert: SearchIndexLags
        expr: search_index_backlog > 100
        for: 2s
        labels: { severity: critical, rampart_rollout: search-v2 }
        annotations: { summary: "{{ $value | humanize }} documents wait to be indexed" }
"""


def shortened(rules: str) -> str:
    """The same alerts, with every `for` divided."""
    units = {"s": 1, "m": 60, "h": 3600}

    def shorter(found: re.Match[str]) -> str:
        milliseconds = int(found[2]) * units[found[3]] * 1000 // FORS_FASTER
        return f"{found[1]}{milliseconds}ms"

    return re.sub(r"(?m)^( +for: )(\d+)([smh])$", shorter, rules)


def documented() -> tuple[str, str]:
    """The configuration of Alertmanager and the rules that the page shows."""
    config, rules = (block for block in blocks(PAGE, "yaml") if block.startswith(("route:", "groups:")))
    return config, rules


def manifests() -> Mapping[str, str]:
    notify = ", ".join(f"{{ to: {channel}, events: [{EVENTS}] }}" for channel in CHANNELS)
    files = {"web-service.policy.yaml": scale_durations(shipped_policy(), 1 / FASTER)}
    for flag in (CHECKOUT, SEARCH):
        files[f"{flag}.flag.yaml"] = FLAG.format(flag=flag)
        files[f"{flag}.rollout.yaml"] = PLAN.format(flag=flag, notify=notify)
    return files


# — receivers —


class TimedReceiver(HttpReceiver):
    """Says on the timeline what it was sent, in the words of `told`."""

    def __init__(self, name: str, timeline: Timeline, told: Callable[[Received], list[str]], takes: int) -> None:
        super().__init__(takes=takes)
        self._name, self._timeline, self._told = name, timeline, told

    def next_fault(self, received: Received) -> Fault | None:
        for what in self._told(received):
            self._timeline.add(self._name, what)
        return super().next_fault(received)


class TimedMailbox(SmtpReceiver):
    def __init__(self, timeline: Timeline) -> None:
        super().__init__()
        self._timeline = timeline

    def next_fault(self, received: Received) -> Fault | None:
        self._timeline.add("email", str(received.mail["Subject"]))
        return super().next_fault(received)


def told_webhook(received: Received) -> list[str]:
    return [f"{received.json['type']}: {received.json['data']['headline']}"]


def told_slack(received: Received) -> list[str]:
    return [received.json["text"]]


def told_pagerduty(received: Received) -> list[str]:
    event = received.json
    summary = event.get("payload", {}).get("summary", "")
    return [f"{event.get('event_action', 'change')} {event.get('dedup_key', '')} {summary}"]


def told_pager(received: Received) -> list[str]:
    alerts = received.json["alerts"]
    return [
        f"{one['status']} {one['labels']['alertname']} ({one['labels'].get('rampart_rollout', '')}): "
        f"{one['annotations'].get('summary', '')}"
        for one in alerts
    ]


class Receivers:
    """All of them in one event loop, in a thread of its own. `pager` is the other receiver of Alertmanager."""

    def __init__(self, timeline: Timeline) -> None:
        self.pager = TimedReceiver("on-call (Alertmanager)", timeline, told_pager, 200)
        self.http = {
            "webhook": TimedReceiver("webhook", timeline, told_webhook, 200),
            "slack": TimedReceiver("slack", timeline, told_slack, 200),
            "pagerduty": TimedReceiver("pagerduty", timeline, told_pagerduty, 202),
        }
        self.mail = TimedMailbox(timeline)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> "Receivers":
        self._thread.start()
        for one in (self.pager, self.mail, *self.http.values()):
            asyncio.run_coroutine_threadsafe(one.come(), self._loop).result(20)
        return self

    def __exit__(self, *_: object) -> None:
        for one in (self.pager, self.mail, *self.http.values()):
            asyncio.run_coroutine_threadsafe(one.go(), self._loop).result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)

    def settings(self, folder: Path) -> str:
        """The section of rampart.toml, with its secrets written to `folder`."""
        secrets = {
            "signing": "whsec_" + base64.b64encode(os.urandom(32)).decode(),
            "slack-url": f"{self.http['slack'].url}/services/T0/B0/secret-of-slack",
            "routing-key": "0123456789abcdef0123456789abcdef",
        }
        for name, secret in secrets.items():
            (folder / name).write_text(secret)
        return f"""
[channels.webhook]
kind = "webhook"
url = "{self.http["webhook"].url}/rampart"
secret_files = ["{folder / "signing"}"]
allow_private = true
[channels.slack]
kind = "slack"
url_file = "{folder / "slack-url"}"
allow_private = true
[channels.pagerduty]
kind = "pagerduty"
routing_key_file = "{folder / "routing-key"}"
url = "{self.http["pagerduty"].url}"
allow_private = true
[channels.email]
kind = "email"
host = "127.0.0.1"
port = {self.mail.port}
security = "none"
sender = "rampart@acme.example"
to = ["on-call@acme.example"]
"""


# — processes —


@contextmanager
def process(command: Sequence[str | Path], log: Path, **env: str) -> Iterator[None]:
    with log.open("wb") as output:
        running = subprocess.Popen(
            list(map(str, command)), stdout=output, stderr=output, env={**os.environ, **env}
        )
    try:
        yield
        assert running.poll() is None, log.read_text()
    finally:
        running.terminate()
        running.wait(20)


def fetched(url: str, *, method: str = "GET") -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=10) as answer:
        body: bytes = answer.read()
    return body


def answers(url: str) -> bool:
    try:
        fetched(url)
    except OSError:
        return False
    return True


def alertmanager_binary(name: str = "prometheus-alertmanager") -> str:
    found = shutil.which(name) or shutil.which(name.removeprefix("prometheus-"))
    if not found:
        raise RuntimeError("this test needs an Alertmanager: apt-get install prometheus-alertmanager")
    return found


def alertmanager_config(rampart: str, token_file: Path, pager: str) -> str:
    """That of the page, for here and now."""
    text = documented()[0].replace("http://rampart:8400", rampart)
    text = text.replace("/etc/alertmanager/rampart-token", str(token_file))
    text = text.replace("group_interval: 30s", "group_interval: 1s").replace(
        "repeat_interval: 5m", "repeat_interval: 2s"
    )
    config = yaml.safe_load(text)
    ours, _ = config["route"]["routes"]
    assert (ours["group_interval"], ours["repeat_interval"]) == ("1s", "2s"), "the page says otherwise"
    config["route"] |= {"group_by": ["..."], "group_wait": "0s", "group_interval": "1s"}
    (team,) = [one for one in config["receivers"] if one["name"] == "team"]
    team["webhook_configs"] = [{"url": f"{pager}/on-call"}]
    return yaml.safe_dump(config)


class Scene:
    """`shop`, `prometheus` and `alertmanager` are addresses."""

    def __init__(self, folder: Path, timeline: Timeline) -> None:
        self.folder, self.timeline = folder, timeline
        self.ports = {name: free_port() for name in ("shop", "prometheus", "alertmanager")}
        self.shop, self.prometheus, self.alertmanager = (
            f"http://127.0.0.1:{port}" for port in self.ports.values()
        )
        self.rampart: RampartServer

    # — the people in it —

    def breaks(self, flag: str) -> None:
        self.timeline.add("shop", f"the new {flag} goes wrong")
        fetched(f"{self.shop}/fault/{flag}", method="PUT")

    def is_mended(self, flag: str) -> None:
        self.timeline.add("shop", f"what {flag} needs is mended")
        fetched(f"{self.shop}/fault/{flag}", method="DELETE")

    def last_served(self) -> dict[str, float]:
        found: dict[str, float] = json.loads(fetched(f"{self.shop}/served"))
        return found

    def deliveries(self) -> list[dict[str, Any]]:
        """What Rampart's log says of alerts that came, in their order."""
        lines = self.rampart.log.read_text().splitlines()
        events = [json.loads(line) for line in lines if '"alert_received"' in line]
        return [one for one in events if one["event"] == "alert_received"]

    def heard(self, outcome: str, count: int = 1, *, after: int = 0) -> list[dict[str, Any]]:
        """Waits for so many deliveries with that outcome, behind the first `after`."""

        def enough() -> list[dict[str, Any]] | None:
            found = [one for one in self.deliveries()[after:] if one["outcome"] == outcome]
            return found if len(found) >= count else None

        return wait_until(
            enough, seconds=60, what=f"{count} alerts that are {outcome}; {self.deliveries()[after:]}"
        )

    def alerts(self, began: float) -> dict[str, list[tuple[float, str]]]:
        """Every alert of Prometheus by name and rollout, with the samples of its state since `began`."""
        query = f"query=ALERTS[{time.time() - began:.0f}s]"
        answer = json.loads(fetched(f"{self.prometheus}/api/v1/query?{query}"))
        found: dict[str, list[tuple[float, str]]] = {}
        for series in answer["data"]["result"]:
            labels = series["metric"]
            name = f"{labels['alertname']} ({labels.get('rampart_rollout', '')})"
            found.setdefault(name, []).extend((at, labels["alertstate"]) for at, _ in series["values"])
        return {name: sorted(samples) for name, samples in found.items()}


@contextmanager
def staged(folder: Path, timeline: Timeline) -> Iterator[Scene]:
    """Everything runs, the shop is scraped, and nothing was started."""
    scene = Scene(folder, timeline)
    with ExitStack() as stack:
        receivers = stack.enter_context(Receivers(timeline))
        settings = (
            f'public_url = "https://rampart.acme.example"\n[sources.prod-prometheus]\nkind = "prometheus"\n'
            f'url = "{scene.prometheus}"\n[engine]\npoll_seconds = 0.2\n[database]\ntimeout_seconds = 1.0\n'
        )
        settings += receivers.settings(folder)
        rampart = scene.rampart = stack.enter_context(serving(folder, settings))
        token = folder / "alertmanager.token"
        made = rampart.call("POST", "tokens", {"name": "alertmanager", "scopes": ["kill"]})
        token.write_text(made["secret"])
        stack.enter_context(_shop(scene, rampart.sdk_key()))
        stack.enter_context(_alertmanager(scene, token, receivers.pager.url))
        stack.enter_context(_prometheus(scene))
        listed = [{"name": name, "text": text} for name, text in manifests().items()]
        rampart.call("POST", "manifests", {"files": listed})
        yield scene


@contextmanager
def _shop(scene: Scene, sdk_key: str) -> Iterator[None]:
    command = [sys.executable, str(HERE / "shop.py"), scene.rampart.url, sdk_key, str(scene.ports["shop"])]
    recipes = str(ROOT / "docs" / "recipes")
    with process(command, scene.folder / "shop.log", PYTHONPATH=recipes):
        wait_until(lambda: answers(f"{scene.shop}/served"), seconds=40, what="the shop")
        yield


@contextmanager
def _alertmanager(scene: Scene, token: Path, pager: str) -> Iterator[None]:
    config = scene.folder / "alertmanager.yml"
    config.write_text(alertmanager_config(scene.rampart.url, token, pager))
    command = [
        alertmanager_binary(), f"--config.file={config}", f"--storage.path={scene.folder / 'alertmanager'}",
        f"--web.listen-address=127.0.0.1:{scene.ports['alertmanager']}", "--cluster.listen-address=",
    ]  # fmt: skip
    with process(command, scene.folder / "alertmanager.log"):
        wait_until(lambda: answers(f"{scene.alertmanager}/-/ready"), seconds=40, what="Alertmanager")
        yield


@contextmanager
def _prometheus(scene: Scene) -> Iterator[None]:
    folder = scene.folder
    (folder / "ours.yml").write_text(shortened(OUR_ALERTS.read_text()))
    (folder / "team.yml").write_text(TEAM_RULES)
    jobs = {"shop": scene.shop, "rampart": scene.rampart.url}
    config = {
        "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"},
        "rule_files": ["ours.yml", "team.yml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [scene.alertmanager.removeprefix("http://")]}]}]},
        "scrape_configs": [
            {"job_name": name, "static_configs": [{"targets": [url.removeprefix("http://")]}]}
            for name, url in jobs.items()
        ],
    }  # fmt: skip
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = [
        prometheus_binary(), f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'prometheus'}", "--log.level=warn",
        f"--web.listen-address=127.0.0.1:{scene.ports['prometheus']}",
    ]  # fmt: skip
    with process(command, folder / "prometheus.log"):
        wait_until(lambda: answers(f"{scene.prometheus}/-/ready"), seconds=40, what="Prometheus")
        yield
