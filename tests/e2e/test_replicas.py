"""Three real processes on one database: kills reach all, a lost one holds raises, a stopped one hands over."""

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import pytest

from tests.support import fleet, manifests
from tests.support.exposition import Exposition, Traffic
from tests.support.postgres import Frozen
from tests.support.replicas import Database, Replica, replicas, wait_all_there
from tests.support.server import wait_until
from tests.support.streams import Streams

FLAGS = fleet.keys(6)
KILLED, KILLED_ELSEWHERE, HELD, MOVED = FLAGS[:3], FLAGS[3], FLAGS[4], FLAGS[5]
LEASE_SECONDS = 30.0
"""So long that a run which moves earlier was handed over, and did not merely run out."""


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    own = Database(tmp_path_factory.mktemp("database"))
    yield own
    own.stop()


@pytest.fixture(scope="module")
def app() -> Iterator[Exposition]:
    exposition = Exposition({key: {"on": Traffic(), "off": Traffic()} for key in FLAGS})
    yield exposition
    exposition.close()


@pytest.fixture(scope="module")
def three(
    tmp_path_factory: pytest.TempPathFactory, database: Database, app: Exposition
) -> Iterator[list[Replica]]:
    more = (
        f'[sources.app]\nkind = "scrape"\ntargets = ["{app.url}"]\nevery_seconds = 0.25\ntimeout_seconds = 1.0\n'
        f"[engine]\npoll_seconds = 0.2\nlease_seconds = {LEASE_SECONDS}\npresence_seconds = 3.0\n"
    )
    with replicas(tmp_path_factory.mktemp("replicas"), database.url, more=more) as several:
        several[0].apply(a_policy=manifests.policy(every="500ms", window="2s", stale_after="2s"))
        fleet.apply_flags(several[0], FLAGS)
        fleet.apply_plans(several[0], FLAGS)
        fleet.start(several[0], FLAGS)
        fleet.wait_progressing(several[0], FLAGS, seconds=60)
        yield several


def rampart(replica: Replica, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, as a person runs it."""
    return subprocess.run(
        [sys.executable, "-m", "controller", *arguments],
        env={"RAMPART_URL": replica.url, "RAMPART_TOKEN": replica.token, "PATH": ""},
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


def confirmed(replica: Replica) -> bool:
    """Whether it holds all kills, and none of them is in doubt any more."""
    kills = replica.call("GET", "kills")
    return len(kills) == len(KILLED) + 1 and all(one["confirmed_at"] for one in kills)


def wait_served_by_all(streams: Sequence[Streams], flags: Sequence[str], *, on: bool) -> None:
    def served() -> bool:
        return all(one.served(flags) == [[on] * len(flags)] * one.count for one in streams)

    wait_until(served, seconds=15, what=f"every SDK of every replica to serve {'on' if on else 'off'}")


@pytest.mark.timeout(240)
def test_a_kill_at_one_replica_turns_the_sdks_of_all_off_while_the_database_is_frozen(
    three: list[Replica], database: Database
) -> None:
    first, second, _ = three
    names = sorted(one.name for one in three)
    key = first.sdk_key()
    with ExitStack() as stack:
        streams = [
            stack.enter_context(Streams(one.url, key, count, real=real))
            for one in three
            for count, real in ((3, False), (1, True))
        ]
        wait_until(lambda: all(one.connected() for one in streams), what="all streams to be connected")
        wait_served_by_all(streams, FLAGS, on=True)
        with Frozen(database.postmaster):
            kills = [fleet.kill(first, flag, confirmed=False) for flag in KILLED]
            kills.append(fleet.kill(second, KILLED_ELSEWHERE, confirmed=False))
            wait_served_by_all(streams, [*KILLED, KILLED_ELSEWHERE], on=False)
            # On a busy machine one may answer too late to be named as reached; it is then named as silent.
            assert all(sorted(one.receipt["replicas"] + one.receipt["silent"]) == names for one in kills)
            assert any(one.receipt["replicas"] == names for one in kills)
            assert all(one.receipt["durable"] for one in kills)
            wait_until(lambda: all(map(confirmed, three)), what="every kill to be confirmed, database or not")
        for one in three:
            one.wait_ready(60)
        wait_served_by_all(streams, [*KILLED, KILLED_ELSEWHERE], on=False)
        wait_served_by_all(streams, [HELD, MOVED], on=True)
    # Only then has every one of them merged every kill that it knows.
    wait_until(lambda: all(one.raises()["allowed"] for one in three), what="raises to be allowed again")
    ids = [one.id for one in kills]
    for one in three:
        assert {kill["kill_id"] for kill in one.call("GET", "kills")} == set(ids)
    rows = [row["entry"] for row in first.audit()]
    assert Counter(entry["id"] for entry in rows if entry["action"] == "kill") == Counter(ids)
    assert first.call("GET", "audit/verify")["problem"] is None


@pytest.mark.timeout(180)
def test_a_replica_that_was_killed_holds_all_raises_until_it_is_back_or_released(three: list[Replica]) -> None:
    first, second, third = three
    flag = HELD
    third.kill()
    blocked = wait_until(
        lambda: None if (seen := first.raises())["allowed"] else seen, what="the loss to be noticed"
    )
    assert third.name in blocked["obstacles"][0]
    assert "may hold kills" in blocked["obstacles"][0]

    refused = first.request("POST", f"/api/v1/plans/{flag}/advance", {"note": "now"})
    assert refused.status == 422, refused.body
    assert third.name in refused.json["detail"], refused.body
    assert second.command(flag, "pause")["phase"] == "paused", "what lowers or holds is never held up"

    shown = rampart(second, "raises")
    assert shown.returncode == 1
    assert "nothing rises" in shown.stdout
    assert third.name in shown.stdout

    released = rampart(second, "raises", "release", "-m", "its disk is gone", "-o", "json")
    assert released.returncode == 0, released.stderr
    assert json.loads(released.stdout)["released"] == [third.name]
    assert rampart(second, "raises").returncode == 0
    wait_until(lambda: first.raises()["allowed"], seconds=5, what="the other replica to learn of it")
    assert first.command(flag, "resume")["phase"] == "progressing"
    (row,) = [row["entry"] for row in first.audit() if row["entry"]["action"] == "release_raises"]
    assert (row["actor"], row["details"]["released"]) == ("admin", [third.name])

    third.start()
    wait_all_there(three)
    assert first.states()[third.name] == "present"
    third.kill()
    wait_until(lambda: not first.raises()["allowed"], what="the loss to count again")
    third.start()
    wait_all_there(three)


@pytest.mark.timeout(120)
def test_a_replica_that_stops_hands_its_runs_over_and_blocks_nobody(
    three: list[Replica], database: Database
) -> None:
    flag = MOVED
    # Most of its time left: it was renewed since a process that another test killed could have, and by itself it
    # ends later than the handover is waited for below.
    holder = wait_until(
        lambda: database.holder(flag, left_seconds=LEASE_SECONDS * 2 / 3),
        seconds=60,
        what="a replica to hold the run",
    )
    leaving = next(one for one in three if one.name == holder)
    staying = [one for one in three if one is not leaving]
    began = time.monotonic()
    assert leaving.process is not None
    leaving.process.send_signal(signal.SIGTERM)

    def moved() -> bool:
        assert staying[0].raises()["allowed"], "a replica that takes its leave is not missed"
        return database.holder(flag) in {one.name for one in staying}

    wait_until(moved, what="another replica to go on with the run")
    assert time.monotonic() - began < LEASE_SECONDS / 2
    assert leaving.process.wait(timeout=20) == 0
    wait_until(lambda: set(staying[0].states()) == {one.name for one in staying}, what="it to be off the register")
    assert staying[0].status(flag)["phase"] == "progressing"
    leaving.start()
    wait_all_there(three)
