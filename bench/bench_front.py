"""How fast a kill is at SDKs behind Rampart, all through a minute in which LaunchDarkly refuses every write.

    python -m bench.bench_front [--kills 120] [--seconds 60] [--streams 100] [--json dist/bench_front.json]

`rampart serve` stands in front of a stand-in for LaunchDarkly: 200 flags, 100 streams in processes of their own
(four of them real LaunchDarkly SDKs). Kills come at random moments of the refusal, and each is pressed on with to
its end, so that the last of them meet more than a hundred that are unconfirmed. Between two kills the floor is
measured: one durable commit of one row on a PostgreSQL of the same kind, one raw HTTP call over loopback. Then the
refusal ends, and every kill has to be confirmed. Exit code 1 when the p99 to the last stream is above 50 ms, or a
kill is confirmed later than two seconds after the end of the refusal.
"""

import argparse
import json
import multiprocessing
import os
import platform
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench.bench_kill import REAL_SDKS, TARGET_MS, Floor, Phase, collect, delays, floor_of, rows_of, timed
from tests.support import fleet
from tests.support.launchdarkly import PRODUCTION, SDK_KEYS, WRITE_TOKEN, launchdarkly_in_thread
from tests.support.server import RampartServer, wait_until
from tests.support.streams import Streams

CONFIRMED_WITHIN_SECONDS = 2.0


def settings(folder: Path, there: "LaunchDarkly") -> str:
    (folder / "token").write_text(WRITE_TOKEN)
    (folder / "sdk-key").write_text(SDK_KEYS[PRODUCTION])
    return f"""
[providers.ld]
kind = "launchdarkly"
project = "shop"
api_token_file = "{folder}/token"
sdk_key_files = {{ production = "{folder}/sdk-key" }}
base_uri = "{there.rest_uri}"
stream_uri = "{there.sdk_uri}"
events_uri = "{there.sdk_uri}"

[delivery.front.ld.production]
"""


class LaunchDarkly:
    """The stand-in, in a process of its own: it must not slow down whoever kills and measures."""

    def __init__(self, flags: Sequence[str]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=stand_in, args=(theirs, list(flags)), daemon=True)
        self._process.start()
        self.rest_uri, self.sdk_uri = self._pipe.recv()

    def ask(self, question: str) -> Any:
        self._pipe.send(question)
        return self._pipe.recv()

    def close(self) -> None:
        self._process.kill()
        self._process.join()


def stand_in(pipe: Connection, flags: Sequence[str]) -> None:
    with launchdarkly_in_thread() as fake:
        for key in flags:
            fake.create_flag(key, serves="on")
            fake.person("dana").turn_on(key)
        pipe.send((fake.base_uri, fake.stream_uri))
        refusal = None
        while True:
            match pipe.recv():
                case "refuse":
                    refusal = fake.faults.fail(405, on="writes", message="this environment needs an approval")
                    pipe.send(None)
                case "accept":
                    assert refusal is not None
                    refusal.stop()
                    pipe.send(refusal.hits)
                case _:
                    pipe.send([key for key in flags if fake.config(key).on])


@contextmanager
def served(folder: Path, flags: Sequence[str]) -> Iterator[tuple[LaunchDarkly, RampartServer]]:
    there = LaunchDarkly(flags)
    server = RampartServer(folder, settings(folder, there))
    try:
        server.start()
        yield there, server
    finally:
        server.stop()
        there.close()


def refused(
    there: LaunchDarkly,
    server: RampartServer,
    floor: Floor,
    asked: argparse.Namespace,
    streams: tuple[Streams, ...],
) -> tuple[Phase, dict[str, Any]]:
    raw, real = streams
    flags = fleet.keys(asked.flags)[: asked.kills]
    for several in streams:
        several.arrivals()
    there.ask("refuse")
    phase, kills = kill_all(server, floor, flags, asked.seconds)
    assert set(flags) <= set(there.ask("which are on")), "a flag went off though every write was refused"
    phase.answer = [(one.answered_at - one.asked_at) * 1000 for one in kills]
    asked_at = {one.key: one.asked_at for one in kills}
    by_kill = delays(collect(raw, asked_at), asked_at)
    phase.raw = [delay for several in by_kill for delay in several]
    phase.last = [max(several) for several in by_kill]
    phase.real = [delay for several in delays(collect(real, asked_at), asked_at) for delay in several]
    return phase, confirmed(there, server, flags, streams)


def kill_all(
    server: RampartServer, floor: Floor, flags: Sequence[str], seconds: float
) -> tuple[Phase, list[fleet.Kill]]:
    """Each at a random moment of its share of the time."""
    phase, kills, moments = Phase(), [], random.Random(7)
    began = time.monotonic()
    for number, key in enumerate(flags):
        phase.commit.append(timed(floor.commit))
        phase.call.append(timed(floor.call))
        due = began + (number + moments.random()) * seconds / len(flags)
        time.sleep(max(0.0, due - time.monotonic()))
        kills.append(fleet.kill(server, key, confirmed=False))
        assert kills[-1].receipt["confirmed_at"] is None, f"the kill of {key} was confirmed though it was refused"
    time.sleep(max(0.0, began + seconds - time.monotonic()))
    return phase, kills


def confirmed(
    there: LaunchDarkly, server: RampartServer, flags: Sequence[str], streams: tuple[Streams, ...]
) -> dict[str, Any]:
    refusals = there.ask("accept")
    ended = time.monotonic()
    wait_until(
        lambda: all(one["confirmed_at"] for one in server.call("GET", "kills")),
        seconds=60,
        what="all confirmations",
    )
    seconds = time.monotonic() - ended
    assert not set(flags) & set(there.ask("which are on")), "a flag is on at LaunchDarkly"
    risen = [one for several in streams for one in several.arrivals() if one.on]
    assert not risen, "a killed flag came back at an SDK"
    return {"refused_writes": refusals, "all_confirmed_after_s": round(seconds, 2)}


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--kills", type=int, default=120)
    options.add_argument("--seconds", type=float, default=60.0)
    options.add_argument("--flags", type=int, default=200)
    options.add_argument("--streams", type=int, default=100)
    options.add_argument("--json", type=Path, default=Path("dist/bench_front.json"))
    asked = options.parse_args()
    conditions: dict[str, Any] = {
        "kills": asked.kills,
        "refused_s": asked.seconds,
        "flags": asked.flags,
        "streams": asked.streams,
        "of_them_real_sdks": REAL_SDKS,
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "load_average_before": os.getloadavg(),
    }
    with tempfile.TemporaryDirectory(prefix="front-") as name, floor_of(Path(name, "floor")) as floor:
        folder = Path(name, "server")
        folder.mkdir()
        key = SDK_KEYS[PRODUCTION]
        with (
            served(folder, fleet.keys(asked.flags)) as (there, server),
            Streams(server.url, key, asked.streams - REAL_SDKS) as raw,
            Streams(server.url, key, REAL_SDKS, real=True) as real,
        ):
            wait_until(
                lambda: raw.connected() and real.connected(), seconds=60, what="all streams to be connected"
            )
            phase, facts = refused(there, server, floor, asked, (raw, real))
    conditions["load_average_after"] = os.getloadavg()
    return report(asked, phase, facts, conditions)


def report(asked: argparse.Namespace, phase: Phase, facts: dict[str, Any], conditions: dict[str, Any]) -> int:
    rows = rows_of(phase)
    print(f"{'while every write is refused':34}{'p50':>9}{'p99':>9}{'max':>9}  ms")
    for name, row in rows.items():
        print(f"{name:34}{row['p50_ms']:9.2f}{row['p99_ms']:9.2f}{row['max_ms']:9.2f}  n={row['n']:.0f}")
    print(f"\n{json.dumps(conditions)}\n{json.dumps(facts)}")
    asked.json.parent.mkdir(parents=True, exist_ok=True)
    report = {"refused": rows, "conditions": conditions, "facts": facts}
    asked.json.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    p99, seconds = rows["kill → frame at the last stream"]["p99_ms"], facts["all_confirmed_after_s"]
    print(f"p99 to the last stream: {p99:.1f} ms (target {TARGET_MS:g} ms)")
    print(f"all confirmed {seconds:g} s after the refusal (target {CONFIRMED_WITHIN_SECONDS:g} s)")
    return int(p99 > TARGET_MS or seconds > CONFIRMED_WITHIN_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
