"""Kills while PostgreSQL is frozen: they reach every SDK, outlive a SIGKILL, and are recorded once."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support import fleet, manifests
from tests.support.exposition import Exposition, Traffic
from tests.support.fleet import Kill
from tests.support.postgres import Frozen
from tests.support.server import RampartServer, wait_until
from tests.support.streams import Streams

ROLLOUTS = fleet.keys(50)
FIRST, LATER, SPARED = ROLLOUTS[:29], ROLLOUTS[29:30], ROLLOUTS[30:]
RAW_STREAMS = 20
REAL_SDKS = 2
AT_MOST_SECONDS = 1.0
"""Far above what a kill takes: this test shares its machine. bench/bench_kill.py measures."""


def wait_off(streams: Streams, flags: Sequence[str]) -> None:
    wait_until(streams.connected, what="all streams to be connected")
    everywhere = [[False] * len(flags)] * streams.count
    wait_until(lambda: streams.served(flags) == everywhere, seconds=5, what="every stream to serve off")


def check_answers(kills: Sequence[Kill]) -> None:
    for one in kills:
        assert one.answered_at - one.asked_at < AT_MOST_SECONDS
        assert one.receipt["durable"]
        assert one.receipt["confirmed_at"]
        assert one.receipt["replicas"]


def check_arrivals(kills: Sequence[Kill], streams: Streams) -> None:
    arrivals = {(one.stream, one.key): one for one in streams.arrivals() if not one.on}
    for one in kills:
        for number in range(streams.count):
            assert arrivals[number, one.key].at - one.asked_at < AT_MOST_SECONDS


def check_records(server: RampartServer, kills: Sequence[Kill]) -> None:
    """In the database: one row for each kill, the runs ended by them, all others untouched, the chain whole."""
    rows = [row["entry"] for row in server.audit()]
    ids = [one.id for one in kills]
    assert Counter(entry["id"] for entry in rows if entry["action"] == "kill") == Counter(ids)
    assert {one["kill_id"] for one in server.call("GET", "kills")} == set(ids)
    phases = {one["plan"]: one["phase"] for one in server.call("GET", "plans")}
    assert {plan for plan, phase in phases.items() if phase == "killed"} == {one.key for one in kills}
    assert {phases[key] for key in SPARED} == {"progressing"}
    assert server.call("GET", "audit/verify")["problem"] is None
    killed = [entry["run"] for entry in rows if entry["action"] == "kill"]
    raises = [e["run"] for e in rows if e["action"] in ("start", "advance") and e["run"] in killed]
    assert Counter(raises) == Counter(killed), "a killed run was raised by its start and never again"


def frozen_and_restarted(server: RampartServer, raw: Streams, real: Streams, sdk_key: str) -> list[Kill]:
    kills = [fleet.kill(server, key) for key in FIRST]
    check_answers(kills)
    for streams in (raw, real):
        wait_off(streams, FIRST)
        check_arrivals(kills, streams)
    assert real.served(SPARED) == [[True] * len(SPARED)] * REAL_SDKS

    server.kill()
    server.start(wait_ready=False)
    server.wait_serving()
    assert server.request("GET", "/readyz", token=None).status == 503
    with Streams(server.url, sdk_key, 1, real=True) as newcomer:
        for streams in (raw, real, newcomer):
            wait_off(streams, FIRST)
        assert newcomer.served(SPARED) == [[True] * len(SPARED)]

    later = [fleet.kill(server, key) for key in LATER]
    check_answers(later)
    for streams in (raw, real):
        wait_off(streams, FIRST + LATER)
    return kills + later


@pytest.mark.timeout(180)
def test_a_kill_needs_no_database_outlives_the_server_and_is_recorded_once(tmp_path: Path) -> None:
    app = Exposition({key: {"on": Traffic(), "off": Traffic()} for key in ROLLOUTS})
    server = RampartServer(tmp_path, manifests.scrape_settings(app.url))
    try:
        server.start()
        server.apply(a_policy=manifests.policy(every="500ms", window="2s", stale_after="2s"))
        fleet.apply_flags(server, ROLLOUTS)
        fleet.apply_plans(server, ROLLOUTS)
        fleet.start(server, ROLLOUTS)
        fleet.wait_progressing(server, ROLLOUTS, seconds=60)
        key = server.sdk_key()
        with (
            Streams(server.url, key, RAW_STREAMS) as raw,
            Streams(server.url, key, REAL_SDKS, real=True) as real,
        ):
            wait_until(lambda: raw.connected() and real.connected(), what="all streams to be connected")
            with Frozen(server.postmaster):
                kills = frozen_and_restarted(server, raw, real, key)
            server.wait_ready()
            for streams in (raw, real):
                wait_off(streams, FIRST + LATER)
        check_records(server, kills)
    finally:
        server.stop()
        app.close()
