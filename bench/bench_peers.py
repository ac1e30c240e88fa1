"""How fast a kill at one replica reaches the SDKs of the others, with PostgreSQL frozen under all of them.

    python -m bench.bench_peers [--kills 200] [--streams 20] [--json dist/bench_peers.json]

Three replicas on one PostgreSQL, with the settings of docs/replicas.md; as many rollouts at their first stage as
there are kills. Four real LaunchDarkly SDKs and the raw streams are connected to the second and third replica, all
in processes of their own; PostgreSQL is stopped with SIGSTOP; every kill goes to the first replica. Between two
kills the floor is measured: one raw TCP round trip over loopback. Afterwards each kill has to be recorded once.
Exit code 1 when the p99 from sending a kill to a real SDK of another replica seeing it is above 100 ms, or when an
answer did not name all three replicas.
"""

import argparse
import json
import multiprocessing
import os
import platform
import random
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench.bench_kill import PAUSE_SECONDS, collect, delays, summary, timed
from tests.support import fleet, manifests
from tests.support.fleet import Kill
from tests.support.postgres import Frozen
from tests.support.replicas import Database, Replica, replicas
from tests.support.server import wait_until
from tests.support.streams import Streams

TARGET_MS = 100.0
REAL_SDKS = 2
"""At each of the two replicas that do not take the kills."""


def echo(pipe: Connection) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        pipe.send(server.getsockname()[1])
        connection, _ = server.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := connection.recv(1024):
            connection.sendall(data)


class Floor:
    """One small message there and back between two processes, over a connection that is open."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def round_trip(self) -> None:
        self._socket.sendall(b"x" * 256)
        left = 256
        while left:
            left -= len(self._socket.recv(left))

    def close(self) -> None:
        self._socket.close()


@contextmanager
def floor_of_this_machine() -> Iterator[Floor]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=echo, args=(theirs,), daemon=True)
    process.start()
    floor = Floor(ours.recv())
    try:
        yield floor
    finally:
        floor.close()
        process.kill()


def measure(
    first: Replica, floor: Floor, flags: Sequence[str], several: dict[str, Streams]
) -> tuple[dict[str, list[float]], list[Kill]]:
    """Milliseconds by what was measured, and the kills."""
    rows: dict[str, list[float]] = {"floor: one raw TCP round trip": [], "kill → answer": []}
    kills, moments = [], random.Random(7)
    for streams in several.values():
        streams.arrivals()
    for key in flags:
        rows["floor: one raw TCP round trip"].append(timed(floor.round_trip))
        time.sleep(moments.uniform(*PAUSE_SECONDS))
        kills.append(fleet.kill(first, key, confirmed=False))
    rows["kill → answer"] = [(one.answered_at - one.asked_at) * 1000 for one in kills]
    asked = {one.key: one.asked_at for one in kills}
    for name, streams in several.items():
        found = delays(collect(streams, asked), asked)
        rows.setdefault(name, []).extend(delay for each in found for delay in each)
    return rows, kills


def check(several: Sequence[Replica], kills: Sequence[Kill]) -> dict[str, Any]:
    """After the thaw: every replica has merged, each kill is recorded once, the chain holds."""
    for one in several:
        one.wait_ready(60)
    wait_until(lambda: all(one.raises()["allowed"] for one in several), seconds=60, what="all to have merged")
    entries = [row["entry"] for row in several[0].audit()]
    rows = Counter(entry["id"] for entry in entries if entry["action"] == "kill")
    assert rows == Counter(one.id for one in kills), "not one audit row for each kill"
    assert several[0].call("GET", "audit/verify")["problem"] is None
    names = sorted(one.name for one in several)
    return {
        "audit_rows_of_kills": sum(rows.values()),
        "answers": len(kills),
        "answers_that_named_all_replicas": sum(one.receipt["replicas"] == names for one in kills),
        "answers_confirmed": sum(one.receipt["confirmed_at"] is not None for one in kills),
    }


def prepared(folder: Path, database: Database, flags: Sequence[str], stack: ExitStack) -> list[Replica]:
    url = stack.enter_context(fleet.scraped(flags))
    more = f'[sources.app]\nkind = "scrape"\ntargets = ["{url}"]\nevery_seconds = 5.0\n'
    several = stack.enter_context(replicas(folder, database.url, more=more))
    first = several[0]
    first.apply(a_policy=manifests.policy(every="5s", window="20s", stale_after="20s", before="20s"))
    fleet.apply_flags(first, flags)
    fleet.apply_plans(first, flags)
    fleet.start(first, flags)
    fleet.wait_progressing(first, flags, seconds=240)
    return several


def connected(several: Sequence[Replica], raw: int, flags: Sequence[str], stack: ExitStack) -> dict[str, Streams]:
    key = several[0].sdk_key()
    found: dict[str, Streams] = {}
    for number, one in enumerate(several[1:], 2):
        found[f"kill → frame at a stream of replica {number}"] = Streams(one.url, key, raw)
        found[f"kill → a real SDK of replica {number} evaluates off"] = Streams(one.url, key, REAL_SDKS, real=True)
    for streams in found.values():
        stack.enter_context(streams)
    wait_until(lambda: all(one.connected() for one in found.values()), seconds=60, what="all streams")

    def served() -> bool:
        return all(one.served(flags) == [[True] * len(flags)] * one.count for one in found.values())

    wait_until(served, seconds=60, what="every SDK to serve every flag on")
    return found


def run(asked: argparse.Namespace) -> tuple[dict[str, list[float]], dict[str, Any]]:
    flags = fleet.keys(asked.kills)
    with tempfile.TemporaryDirectory(prefix="peers-") as name, ExitStack() as stack:
        database = Database(Path(name, "database"))
        stack.callback(database.stop)
        several = prepared(Path(name), database, flags, stack)
        floor = stack.enter_context(floor_of_this_machine())
        streams = connected(several, asked.streams // 2, flags, stack)
        with Frozen(database.postmaster):
            lost = "the loss to be noticed"
            wait_until(lambda: all("database_lost" in one.tail(10**6) for one in several), what=lost)
            rows, kills = measure(several[0], floor, flags, streams)
        return rows, check(several, kills)


def show(report: dict[str, Any]) -> None:
    print(f"{'':44}{'p50':>9}{'p99':>9}{'max':>9}  ms")
    for name, row in report["measured"].items():
        print(f"{name:44}{row['p50_ms']:9.2f}{row['p99_ms']:9.2f}{row['max_ms']:9.2f}  n={row['n']:.0f}")
    print(f"\n{json.dumps(report['conditions'])}\n{json.dumps(report['facts'])}")


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--kills", type=int, default=200)
    options.add_argument(
        "--streams", type=int, default=20, help="raw streams, half of them at each of two replicas"
    )
    options.add_argument("--json", type=Path, default=Path("dist/bench_peers.json"))
    asked = options.parse_args()
    conditions: dict[str, Any] = {
        "replicas": 3,
        "rollouts": asked.kills,
        "raw_streams": asked.streams,
        "real_sdks": 2 * REAL_SDKS,
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "load_average_before": os.getloadavg(),
    }
    rows, facts = run(asked)
    conditions["load_average_after"] = os.getloadavg()
    everywhere = [delay for name, found in rows.items() if "real SDK" in name for delay in found]
    named = {**rows, "kill → a real SDK of another replica": everywhere}
    measured = {name: summary(found) for name, found in named.items()}
    report = {"measured": measured, "conditions": conditions, "facts": facts}
    show(report)
    asked.json.parent.mkdir(parents=True, exist_ok=True)
    asked.json.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    p99 = measured["kill → a real SDK of another replica"]["p99_ms"]
    print(f"p99 to a real SDK of another replica: {p99:.1f} ms (target {TARGET_MS:g} ms)")
    return int(p99 > TARGET_MS or facts["answers_that_named_all_replicas"] < facts["answers"])


if __name__ == "__main__":
    sys.exit(main())
