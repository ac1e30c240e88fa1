"""SIGKILL of the server and of PostgreSQL at every commit, apply, observe and journal boundary.

CRASH_ROUNDS says how often each boundary is hit (1 unless set; 20 make a soak).
"""

import contextlib
import http.client
import itertools
import os
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from controller.faultpoints import POINTS
from tests.support import manifests
from tests.support.exposition import Exposition, Traffic
from tests.support.server import RampartServer, wait_until

ROUNDS = int(os.environ.get("CRASH_ROUNDS", "1"))
EXPOSURES = [1_000, 10_000, 50_000, 100_000]
BAKE_SECONDS = 1.0
WINDOW_SECONDS = 1.0
POLL_SECONDS = 0.2


class Shop:
    """A server with one healthy flag that is rolled out again and again under fire."""

    def __init__(self, folder: Path) -> None:
        traffic = {"on": Traffic(), "off": Traffic()}
        self.app = Exposition({"checkout": traffic})
        self.server = RampartServer(folder, manifests.scrape_settings(self.app.url))
        self.server.start()
        self.server.apply(
            a_policy=manifests.policy(), a_flag=manifests.flag("checkout"), a_rollout=manifests.plan("checkout")
        )

    def close(self) -> None:
        self.server.stop()
        self.app.close()

    def crash_at(self, point: str, passing: int, victim: str) -> None:
        """Restart with a fault laid, drive the rollout until it strikes, and leave a running server behind."""
        self.server.kill()
        where = "self" if victim == "server" else str(self.server.postmaster_file)
        self.server.start(wait_ready=False, env={"RAMPART_FAULT": f"{point}:{passing}:{where}"})
        starts = self._postgres_starts()
        wait_until(lambda: self._struck(point, victim), seconds=60, every=0.5, what=f"{point} to kill {victim}")
        if victim == "server":
            self.server.start()
        else:
            wait_until(lambda: self._postgres_starts() > starts, seconds=30, what="PostgreSQL to come back")
            self.server.wait_ready()
        self.server.log.rename(self.server.log.with_suffix(f".{time.monotonic_ns()}"))
        if self.server.alive():
            self.server.kill()

    def _postgres_starts(self) -> int:
        return self.server.tail(200_000).count("embedded_postgres_started")

    def _struck(self, point: str, victim: str) -> bool:
        if victim == "server" and not self.server.alive():
            return True
        if victim == "postgres" and "embedded_postgres_died" in self.server.tail(200_000):
            return True
        self._provoke(point)
        return False

    def _provoke(self, point: str) -> None:
        """Keep a rollout going. The fault may strike at any time, also within any of our own calls."""
        with contextlib.suppress(OSError, AssertionError, http.client.HTTPException):
            self.server.wait_ready()
            self.ensure_running()
            if point.startswith("journal"):
                self.server.kill_flag("checkout")

    def ensure_running(self) -> None:
        """A fresh run whenever the last one has ended; what the crash interrupts is a normal life."""
        for kill in self.server.call("GET", "kills"):
            body = {"kill_ids": [kill["kill_id"]], "note": "next round"}
            self.server.call("POST", "environments/production/flags/checkout/reset", body)
        plans = self.server.call("GET", "plans")
        if plans[0]["phase"] in (None, "completed", "killed", "abandoned"):
            self._turned_off()
            self.server.command("checkout", "start")

    def _turned_off(self) -> None:
        if self.server.call("GET", "plans")[0]["phase"] == "completed":
            kill = self.server.kill_flag("checkout")["kills"][0]
            wait_until(lambda: self._merged(kill["kill_id"]), what="the kill to be recorded")
            body = {"kill_ids": [kill["kill_id"]], "note": "next round"}
            self.server.call("POST", "environments/production/flags/checkout/reset", body)

    def _merged(self, kill_id: str) -> bool:
        return any(row["entry"]["id"] == kill_id for row in self.server.audit())


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(tmp_path)
    yield made
    made.close()


@pytest.mark.timeout(3000)
@pytest.mark.parametrize("victim", ["server", "postgres"])
def test_a_crash_at_any_boundary_loses_nothing_skips_nothing_and_raises_nothing_by_mistake(
    shop: Shop, victim: str
) -> None:
    for number, point in itertools.product(range(ROUNDS), POINTS):
        passing = 1 if point.startswith("journal") else 1 + number % 3
        shop.crash_at(point, passing, victim)
    shop.server.start()
    shop.ensure_running()
    shop.server.wait_phase("checkout", "completed", seconds=60)
    rows = shop.server.audit()
    assert shop.server.call("GET", "audit/verify")["problem"] is None
    check_versions(rows)
    check_ladder(rows)
    check_bakes(rows)
    check_kills(rows)


def entries(rows: list[Any]) -> list[Any]:
    return [row["entry"] for row in rows]


def runs(rows: list[Any]) -> dict[str, list[Any]]:
    by_run: dict[str, list[Any]] = {}
    for entry in entries(rows):
        if entry.get("run"):
            by_run.setdefault(entry["run"], []).append(entry)
    return by_run


def check_versions(rows: list[Any]) -> None:
    """No gap in the chain, and one row for every version of every run."""
    assert [row["sequence"] for row in rows] == list(range(1, len(rows) + 1))
    for run, history in runs(rows).items():
        assert [entry["run_version"] for entry in history] == list(range(1, len(history) + 1)), run


def check_ladder(rows: list[Any]) -> None:
    for run, history in runs(rows).items():
        raised = [e["details"]["to"]["exposure"] for e in history if e["action"] in ("start", "advance")]
        assert raised == EXPOSURES[: len(raised)], run


def check_bakes(rows: list[Any]) -> None:
    """Between the confirmation of a stage and the next raise: at least one window and the whole bake."""
    for run, history in runs(rows).items():
        confirmed_at: datetime | None = None
        for entry in history:
            at = datetime.fromisoformat(entry["at"])
            if entry["action"] == "confirm":
                confirmed_at = at
            if entry["action"] in ("advance", "complete"):
                assert confirmed_at is not None, f"{run} rose from an unconfirmed stage"
                baked = (at - confirmed_at).total_seconds()
                assert baked >= BAKE_SECONDS + WINDOW_SECONDS - 2 * POLL_SECONDS, f"{run} baked {baked} s"


def check_kills(rows: list[Any]) -> None:
    """Exactly one row for each kill, and no raise of that run after it."""
    killed = [entry["id"] for entry in entries(rows) if entry["action"] == "kill"]
    assert len(killed) == len(set(killed))
    for run, history in runs(rows).items():
        actions = [entry["action"] for entry in history]
        if "kill" in actions:
            assert not {"start", "advance", "resume"} & set(actions[actions.index("kill") :]), run
