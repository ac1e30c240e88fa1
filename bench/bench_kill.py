"""How fast a kill is, at rest and with PostgreSQL frozen under a thousand rollouts.

    python -m bench.bench_kill [--kills 200] [--rollouts 1000] [--streams 100] [--json dist/bench_kill.json]

At rest: one SDK stream, no rollouts, the database answers. Loaded: all rollouts at their first stage, streams in
processes of their own (four of them real LaunchDarkly SDKs), PostgreSQL stopped with SIGSTOP. Between two kills
the floor is measured: one durable commit of one row on another PostgreSQL of the same kind, one raw HTTP call
over loopback. Then the server is ended with SIGKILL and started again, still without its database, and what was
killed has to stay so and be recorded once. Exit code 1 when the loaded p99 to the last stream is above 50 ms.
"""

import argparse
import asyncio
import contextlib
import http.client
import json
import multiprocessing
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import asyncpg
from msgspec import Struct

from controller.store.embedded import EmbeddedPostgres
from tests.support import fleet, manifests
from tests.support.fleet import Kill
from tests.support.postgres import Frozen
from tests.support.server import RampartServer, wait_until
from tests.support.streams import Arrival, Streams

TARGET_MS = 50.0
REAL_SDKS = 4
PAUSE_SECONDS = (0.02, 0.12)
"""Between two kills, at random, so that they meet ticks and scrapes in all their moments."""


class Floor:
    """What no kill can be faster than."""

    def __init__(self, port: int, database: asyncpg.Connection, loop: asyncio.AbstractEventLoop) -> None:
        self._port = port
        self._database = database
        self._loop = loop

    def commit(self) -> None:
        self._loop.run_until_complete(self._database.execute("UPDATE floor SET n = n + 1"))

    def call(self) -> None:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self._port)) as connection:
            connection.request("POST", "/", b'{"reason": "INC-1"}', {"Content-Type": "application/json"})
            connection.getresponse().read()


def answer_calls(pipe: Connection) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response_only(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

    server = HTTPServer(("127.0.0.1", 0), Handler)
    pipe.send(server.server_address[1])
    server.serve_forever()


@contextlib.contextmanager
def floor_of(folder: Path) -> Iterator[Floor]:
    loop = asyncio.new_event_loop()
    postgres = EmbeddedPostgres(folder)
    connection = loop.run_until_complete(_open(postgres))
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=answer_calls, args=(theirs,), daemon=True)
    process.start()
    try:
        yield Floor(ours.recv(), connection, loop)
    finally:
        process.kill()
        loop.run_until_complete(connection.close())
        loop.run_until_complete(postgres.stop())
        loop.close()


async def _open(postgres: EmbeddedPostgres) -> asyncpg.Connection:
    connection: asyncpg.Connection = await asyncpg.connect(await postgres.start())
    await connection.execute("CREATE TABLE floor (n bigint NOT NULL)")
    await connection.execute("INSERT INTO floor VALUES (0)")
    return connection


# — measuring —


class Phase(Struct):
    """Milliseconds of every kill of a phase, and of the floor measured between them."""

    commit: list[float] = []
    call: list[float] = []
    answer: list[float] = []
    raw: list[float] = []
    last: list[float] = []
    real: list[float] = []


def timed(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return (time.monotonic() - began) * 1000


def measure(
    server: RampartServer, floor: Floor, flags: Sequence[str], raw: Streams, real: Streams | None
) -> tuple[Phase, list[Kill]]:
    phase, kills, moments = Phase(), [], random.Random(7)
    for streams in (raw, real):
        if streams:
            streams.arrivals()
    for key in flags:
        phase.commit.append(timed(floor.commit))
        phase.call.append(timed(floor.call))
        time.sleep(moments.uniform(*PAUSE_SECONDS))
        kills.append(fleet.kill(server, key))
        assert kills[-1].receipt["confirmed_at"], f"the kill of {key} was not confirmed"
    phase.answer = [(one.answered_at - one.asked_at) * 1000 for one in kills]
    asked = {one.key: one.asked_at for one in kills}
    by_kill = delays(collect(raw, asked), asked)
    phase.raw = [delay for several in by_kill for delay in several]
    phase.last = [max(several) for several in by_kill]
    if real:
        phase.real = [delay for several in delays(collect(real, asked), asked) for delay in several]
    return phase, kills


def collect(streams: Streams, asked: dict[str, float]) -> list[Arrival]:
    """The first off of each killed flag at each stream."""
    found: dict[tuple[int, str], Arrival] = {}

    def complete() -> bool:
        for one in streams.arrivals():
            if not one.on and one.key in asked:
                found.setdefault((one.stream, one.key), one)
        return len(found) == len(asked) * streams.count

    wait_until(complete, seconds=30, what="every stream to have every kill")
    return list(found.values())


def delays(arrivals: Sequence[Arrival], asked: dict[str, float]) -> list[list[float]]:
    by_kill: dict[str, list[float]] = {key: [] for key in asked}
    for one in arrivals:
        by_kill[one.key].append((one.at - asked[one.key]) * 1000)
    return list(by_kill.values())


# — the two phases —


def at_rest(folder: Path, floor: Floor, kills: int) -> Phase:
    server = RampartServer(folder)
    flags = fleet.keys(kills)
    try:
        server.start()
        fleet.apply_flags(server, flags)
        with Streams(server.url, server.sdk_key(), 1) as streams:
            wait_until(streams.connected, what="the stream to be connected")
            return measure(server, floor, flags, streams, None)[0]
    finally:
        server.stop()


def loaded(folder: Path, floor: Floor, asked: argparse.Namespace) -> tuple[Phase, dict[str, Any]]:
    flags = fleet.keys(asked.rollouts)
    with fleet.scraped(flags) as url:
        settings = f'[sources.app]\nkind = "scrape"\ntargets = ["{url}"]\nevery_seconds = 5.0\n'
        server = RampartServer(folder, settings)
        try:
            facts = prepare(server, flags)
            sdk_key = server.sdk_key()
            with (
                Streams(server.url, sdk_key, asked.streams - REAL_SDKS) as raw,
                Streams(server.url, sdk_key, REAL_SDKS, real=True) as real,
            ):
                connected = "all streams to be connected"
                wait_until(lambda: raw.connected() and real.connected(), seconds=60, what=connected)
                with Frozen(server.postmaster):
                    wait_until(lambda: "database_lost" in server.tail(10**6), what="the loss to be noticed")
                    killed = flags[: asked.kills]
                    phase, kills = measure(server, floor, killed, raw, real)
                    kills += restart_frozen(server, flags, asked.kills, (raw, real))
                server.wait_ready(60)
            return phase, facts | check_records(server, kills)
        finally:
            server.stop()


def prepare(
    server: RampartServer, flags: Sequence[str], *, every: str = "5s", window: str = "20s"
) -> dict[str, Any]:
    server.start()
    server.apply(a_policy=manifests.policy(every=every, window=window, stale_after=window, before=window))
    facts: dict[str, Any] = {}
    for name, work in (
        ("apply_flags_s", lambda: fleet.apply_flags(server, flags)),
        ("apply_plans_s", lambda: fleet.apply_plans(server, flags)),
        ("start_runs_s", lambda: fleet.start(server, flags)),
        ("reach_first_stage_s", lambda: fleet.wait_progressing(server, flags, seconds=240)),
    ):
        facts[name] = round(timed(work) / 1000, 1)
        print(f"{name} {facts[name]}", file=sys.stderr, flush=True)
    return facts


def restart_frozen(
    server: RampartServer, flags: Sequence[str], killed: int, streams: tuple[Streams, ...]
) -> list[Kill]:
    """SIGKILL, and a start with PostgreSQL still stopped: still off, and one more kill works."""
    server.kill()
    server.start(wait_ready=False)
    server.wait_serving()
    for several in streams:
        wait_until(several.connected, seconds=60, what="the streams to come back")
        assert several.served(flags[:killed]) == [[False] * killed] * several.count, "a killed flag came back"
        others = flags[killed:]
        assert several.served(others) == [[True] * len(others)] * several.count, "a flag was lost"
    return [fleet.kill(server, flags[killed])]


def check_records(server: RampartServer, kills: Sequence[Kill]) -> dict[str, Any]:
    entries = [row["entry"] for row in server.audit()]
    rows = Counter(entry["id"] for entry in entries if entry["action"] == "kill")
    assert rows == Counter(one.id for one in kills), "not one audit row for each kill"
    ended = {one["plan"] for one in server.call("GET", "plans") if one["phase"] == "killed"}
    assert ended == {one.key for one in kills}, "not exactly the killed runs ended"
    assert server.call("GET", "audit/verify")["problem"] is None
    return {"audit_rows": len(entries), "audit_rows_of_kills": sum(rows.values())}


# — reporting —


def summary(milliseconds: Sequence[float]) -> dict[str, float]:
    cuts = statistics.quantiles(milliseconds, n=100, method="inclusive")
    values = {"p50_ms": cuts[49], "p99_ms": cuts[98], "max_ms": max(milliseconds)}
    return {name: round(value, 2) for name, value in values.items()} | {"n": len(milliseconds)}


def rows_of(phase: Phase) -> dict[str, dict[str, float]]:
    named = {
        "floor: one durable commit": phase.commit,
        "floor: one raw HTTP call": phase.call,
        "floor: both": [a + b for a, b in zip(phase.commit, phase.call, strict=True)],
        "kill → answer": phase.answer,
        "kill → frame at a stream": phase.raw,
        "kill → frame at the last stream": phase.last,
        "kill → a real SDK evaluates off": phase.real,
    }
    return {name: summary(values) for name, values in named.items() if len(values) > 1}


def show(report: dict[str, Any]) -> None:
    for phase in ("at_rest", "loaded"):
        print(f"\n{phase.replace('_', ' '):34}{'p50':>9}{'p99':>9}{'max':>9}  ms")
        for name, row in report[phase].items():
            print(f"{name:34}{row['p50_ms']:9.2f}{row['p99_ms']:9.2f}{row['max_ms']:9.2f}  n={row['n']:.0f}")
    print(f"\n{json.dumps(report['conditions'])}\n{json.dumps(report['facts'])}")


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--kills", type=int, default=200)
    options.add_argument("--rollouts", type=int, default=1000)
    options.add_argument("--streams", type=int, default=100)
    options.add_argument("--json", type=Path, default=Path("dist/bench_kill.json"))
    asked = options.parse_args()
    conditions = {
        "rollouts": asked.rollouts,
        "streams": asked.streams,
        "of_them_real_sdks": REAL_SDKS,
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "load_average_before": os.getloadavg(),
    }
    with tempfile.TemporaryDirectory(prefix="kill-") as name, floor_of(Path(name, "floor")) as floor:
        rest = at_rest(_folder(name, "rest"), floor, asked.kills)
        load, facts = loaded(_folder(name, "loaded"), floor, asked)
    conditions["load_average_after"] = os.getloadavg()
    report = {"at_rest": rows_of(rest), "loaded": rows_of(load), "conditions": conditions, "facts": facts}
    show(report)
    asked.json.parent.mkdir(parents=True, exist_ok=True)
    asked.json.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    p99 = report["loaded"]["kill → frame at the last stream"]["p99_ms"]
    print(f"loaded p99 to the last stream: {p99:.1f} ms (target {TARGET_MS:g} ms)")
    return int(p99 > TARGET_MS)


def _folder(parent: str, name: str) -> Path:
    folder = Path(parent, name)
    folder.mkdir()
    return folder


if __name__ == "__main__":
    sys.exit(main())
