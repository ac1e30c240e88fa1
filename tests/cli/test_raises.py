"""What people see when nothing may rise, and how they say that it may."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from controller.domain.status import Raises, Released, ReplicaStatus
from tests.cli.answers import NOW, receipt
from tests.cli.conftest import Rampart
from tests.cli.stub_server import Reply, StubServer, problem
from tests.cli.terminal import Terminal

SILENT = "replica web-3 has not checked in since 2026-11-18 14:00:00 UTC, and its journal may hold kills"
HERE = [ReplicaStatus(name="web-1", state="here"), ReplicaStatus(name="web-2", state="present")]
ALLOWED = Raises(allowed=True, database_answers=True, obstacles=[], replicas=HERE)
BLOCKED = Raises(
    allowed=False,
    database_answers=True,
    obstacles=[SILENT],
    replicas=[*HERE, ReplicaStatus(name="web-3", state="absent", seen_at=NOW)],
)


def test_all_being_there_is_said_in_a_line_and_a_table(rampart: Rampart, server: StubServer) -> None:
    server.answers("GET", "raises", ALLOWED)
    told = rampart("raises")
    assert told.returncode == 0
    assert told.stdout.splitlines()[0] == "exposure may rise"
    assert "web-2    present" in told.stdout
    assert told.stderr == ""


def test_a_missing_replica_is_named_with_what_to_do_and_a_finding(rampart: Rampart, server: StubServer) -> None:
    server.answers("GET", "raises", BLOCKED)
    told = rampart("raises")
    assert told.returncode == 1
    assert f"nothing rises\n  - {SILENT}\n" in told.stdout
    assert "web-3    absent   last seen" in told.stdout
    assert "start what is absent again on its data directory" in told.stderr
    assert "rampart raises release" in told.stderr


def test_without_a_database_nobody_is_sent_to_release_anything(rampart: Rampart, server: StubServer) -> None:
    away = Raises(allowed=False, database_answers=False, obstacles=["the database is away"], replicas=HERE[:1])
    server.answers("GET", "raises", away)
    told = rampart("raises")
    assert told.returncode == 1
    assert "rampart doctor" in told.stderr
    assert "release" not in told.stderr


def test_a_program_gets_what_the_api_says(rampart: Rampart, server: StubServer) -> None:
    server.answers("GET", "raises", BLOCKED)
    told = rampart("raises", "-o", "json")
    assert told.returncode == 1
    assert json.loads(told.stdout)["obstacles"] == [SILENT]
    assert told.stderr == ""


def test_a_release_tells_what_it_released(rampart: Rampart, server: StubServer) -> None:
    server.answers("GET", "raises", BLOCKED)
    server.answers("POST", "raises/release", Released(released=["web-3"], raises=ALLOWED))
    told = rampart("raises", "release", "-m", "scaled away")
    assert told.returncode == 0
    assert told.stdout == "released web-3\nexposure may rise\n"
    assert SILENT in told.stderr
    assert server.bodies("raises/release") == [{"note": "scaled away"}]


def test_what_still_stands_in_the_way_after_a_release_is_a_finding(rampart: Rampart, server: StubServer) -> None:
    server.answers("GET", "raises", BLOCKED)
    server.answers("POST", "raises/release", Released(released=["head-1"], raises=BLOCKED))
    told = rampart("raises", "release", "--yes")
    assert told.returncode == 1
    assert "nothing rises" in told.stdout


def test_where_nothing_is_in_the_way_nothing_is_sent(rampart: Rampart, server: StubServer) -> None:
    server.answers("GET", "raises", ALLOWED)
    told = rampart("raises", "release", "--yes", "-o", "json")
    assert told.returncode == 0
    assert json.loads(told.stdout)["released"] == []
    assert not server.bodies("raises/release")


def test_without_a_terminal_a_release_needs_its_reason(rampart: Rampart, server: StubServer) -> None:
    told = rampart("raises", "release")
    assert told.returncode == 2
    assert "rampart raises release -m" in told.stderr
    assert server.asked == []


@pytest.mark.parametrize(("typed", "sent"), [("y", True), ("n", False)])
def test_on_a_terminal_it_tells_the_risk_and_asks_once(
    terminal: Callable[..., Terminal], server: StubServer, typed: str, sent: bool
) -> None:
    server.answers("GET", "raises", BLOCKED)
    server.answers("POST", "raises/release", Released(released=["web-3"], raises=ALLOWED))
    shown = terminal("raises", "release")
    assert "may hold kills that nobody else knows" in shown.see("Let exposure rise without them?")
    shown.type(f"{typed}\n")
    assert shown.exit_code() == (0 if sent else 1)
    assert bool(server.bodies("raises/release")) is sent


def test_a_token_that_may_not_release_is_told_so(rampart: Rampart, server: StubServer) -> None:
    server.answers("GET", "raises", BLOCKED)
    server.answers("POST", "raises/release", problem("forbidden", 403, 'token "ci" is limited to staging'))
    told = rampart("raises", "release", "--yes")
    assert told.returncode == 4
    assert "limited to staging" in told.stderr


def reached(**changes: Any) -> Reply:
    return Reply({"kills": [receipt(**changes)]}, 202)


def test_a_kill_tells_which_replicas_hold_it_and_which_do_not_yet(rampart: Rampart, server: StubServer) -> None:
    path = "flags/checkout-v2/kill"
    server.answers("POST", path, reached(replicas=["web-1", "web-2"], silent=["web-3"], confirmed_at=None))
    shown = rampart("kill", "checkout-v2", "-m", "INC-4821").stdout
    assert "reached web-1, web-2; not yet web-3 (told again and again)" in shown
    assert "UNCONFIRMED" in shown
    server.answers("POST", path, reached(replicas=["web-1", "web-2"]))
    assert "reached web-1, web-2\n" in rampart("kill", "checkout-v2", "-m", "INC-4821").stdout
