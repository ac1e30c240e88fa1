"""A rollout that is guarded by somebody else's API alone: a real server, and New Relic as it is documented."""

import asyncio
import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.support.http_json_page import SETTINGS
from tests.support.json_api import Seen, json_api
from tests.support.server import RampartServer, serving, wait_until
from tests.support.vendors import NewRelic

ENGINE = "[engine]\npoll_seconds = 0.2\n"
FLAG = """\
apiVersion: rampart/v1
kind: Flag
metadata: { name: NAME }
spec: { environment: production, key: NAME }
"""
FLAGS = ("checkout", "search")
EVENTS = "FROM Transaction WHERE env = '$environment' AND flag = '$flag' AND variation = '$variation'"
POLICY = f"""\
apiVersion: rampart/v1
kind: GuardrailPolicy
metadata: {{ name: nrql }}
spec:
  source: newrelic
  language: vendor
  every: 1s
  window: 10s
  staleAfter: 5s
  baseline: {{ from: control, fallback: before, before: 10s }}
  metrics:
    error_rate:
      bad:   {EVENTS} AND error IS TRUE
      total: {EVENTS}
    latency_p95:
      quantile: 0.95
      unit: seconds
      histogram: {EVENTS}
  rules:
    - {{ id: failing, if: error_rate > 10%, for: 2s, then: pause }}
    - {{ id: slow, if: latency_p95 > 2x baseline, floor: 50ms, for: 2s, then: pause }}
  minSample: {{ requests: 20 }}
  noData: {{ after: 4s, then: pause }}
"""
PLAN = """\
apiVersion: rampart/v1
kind: RolloutPlan
metadata: { name: NAME }
spec:
  flag: { provider: main, environment: production, key: NAME }
  serve: { rollout: "on", fallback: "off" }
  stages:
    - { name: half, exposure: 50%, bake: BAKE }
    - { name: everyone, exposure: 100%, bake: 10m }
  guardrails: [{ policy: nrql }]
"""


class Vendor:
    """Collects 20 transactions a second of each flag and variation; new code of some is `failing` or `slow`."""

    def __init__(self) -> None:
        self.api = NewRelic()
        self.failing: set[str] = set()
        self.slow: set[str] = set()
        self.collecting = True
        self.away = False
        self.url = ""
        self._over = threading.Event()
        self._ready = threading.Event()

    def _answer(self, seen: Seen) -> web.Response:
        if self.away:
            return web.Response(status=502, text="<html>Bad gateway</html>", content_type="text/html")
        return self.api.answer(seen)

    def _collect(self) -> None:
        for flag, variation in itertools.product(FLAGS, ("on", "off")) if self.collecting else ():
            new = variation == "on"
            event: dict[str, Any] = {
                "timestamp": int(time.time() * 1000), "env": "production", "flag": flag, "variation": variation,
                "error": new and flag in self.failing, "duration": 0.4 if new and flag in self.slow else 0.1,
            }  # fmt: skip
            self.api.events.setdefault("Transaction", []).append(event)

    async def _serve(self) -> None:
        async with json_api(self._answer) as served:
            self.url = served.url
            self._ready.set()
            while not self._over.is_set():
                self._collect()
                await asyncio.sleep(0.05)

    @contextmanager
    def serving(self) -> Iterator["Vendor"]:
        thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        thread.start()
        self._ready.wait(10)
        try:
            yield self
        finally:
            self._over.set()
            thread.join()


@pytest.fixture
def vendor() -> Iterator[Vendor]:
    with Vendor().serving() as served:
        yield served


@contextmanager
def rolling_out(
    vendor: Vendor, folder: Path, *, flags: Sequence[str] = ("checkout",), bake: str = "10m"
) -> Iterator[RampartServer]:
    """A server whose rollouts have reached half of the users."""
    (folder / "newrelic-user-key").write_text(vendor.api.key)
    settings = (
        SETTINGS["newrelic"].replace("https://api.newrelic.com", vendor.url).replace("/run/secrets", str(folder))
    )
    plan = PLAN.replace("BAKE", bake)
    with serving(folder, ENGINE + settings) as server:
        server.apply(
            **{f"{flag}_flag": FLAG.replace("NAME", flag) for flag in flags},
            **{f"{flag}_rollout": plan.replace("NAME", flag) for flag in flags},
            nrql_policy=POLICY,
        )
        for flag in flags:
            server.command(flag, "start")
        for flag in flags:
            wait_until(lambda: server.status(flag)["confirmed"], what="half of the users to have it")  # noqa: B023
        yield server


def test_a_rollout_is_paused_by_what_the_api_alone_has_seen(tmp_path: Path, vendor: Vendor) -> None:
    rules = {"checkout": "nrql/failing", "search": "nrql/slow"}
    with rolling_out(vendor, tmp_path, flags=FLAGS) as server:
        vendor.failing.add("checkout")
        vendor.slow.add("search")
        for flag, rule in rules.items():
            status = server.wait_phase(flag, "paused", seconds=60)
            assert rule in str(status["reason"])
            assert status["desired_exposure"] == 50_000


def test_an_api_that_sees_good_numbers_lets_a_rollout_rise(tmp_path: Path, vendor: Vendor) -> None:
    with rolling_out(vendor, tmp_path, bake="2s") as server:
        wait_until(
            lambda: server.status("checkout")["observed_exposure"] == 100_000,
            seconds=60,
            what="everybody to have it",
        )


def test_silence_is_no_data_and_a_dead_api_an_error_and_neither_lets_a_rollout_rise(
    tmp_path: Path, vendor: Vendor
) -> None:
    with rolling_out(vendor, tmp_path, bake="20s") as server:
        vendor.away = True
        rules = wait_until(lambda: outcomes(server) == {"error"} and outcomes(server), what="an error")
        assert rules
        vendor.away = False
        wait_until(lambda: outcomes(server) == {"pass"}, what="good numbers again")
        vendor.collecting = False
        wait_until(lambda: outcomes(server) == {"no_data"}, what="no data")
        status = server.wait_phase("checkout", "paused", seconds=30)
    assert "no data" in str(status["reason"])
    assert status["desired_exposure"] == 50_000


def outcomes(server: RampartServer) -> set[str]:
    return {rule["outcome"] for rule in server.status("checkout")["rules"]}
