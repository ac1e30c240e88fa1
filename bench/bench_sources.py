"""How many flags a second one Prometheus can be asked about: coalesced, and one by one, in the same run.

    python bench/bench_sources.py [--flags 1000] [--rounds 5] [--json FILE]

Needs Debian's prometheus (or RAMPART_TEST_PROMETHEUS). Every flag has two variations and is asked for an error
ratio and a p95, with the age of both, over the same samples at the same moment.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from controller.domain.evidence import QueryQuestion, Question
from controller.settings import PrometheusSourceSettings
from controller.sources.coalescing import queries_per_tick
from controller.sources.prometheus import PrometheusSource
from tests.support.many_flags import StoppedClock, SystemClock, arms_of, counters_of
from tests.support.prometheus import ExpositionServer, running_prometheus
from tests.support.sources import lent

WINDOW_SECONDS = 10.0
# One by one is slow: a part of the flags is enough to know its rate.
ALONE_FLAGS = 50
Way = Callable[[], Awaitable[int]]


def questions_of(flags: int) -> list[Question]:
    return [asked for arm in arms_of(flags, window_seconds=WINDOW_SECONDS) for asked in (arm.ratio, arm.latency)]


async def stalls(seconds: list[float]) -> None:
    """Record how late the event loop was, every 2 ms."""
    while True:
        due = time.perf_counter() + 0.002
        await asyncio.sleep(0.002)
        seconds.append(time.perf_counter() - due)


def coalesced(source: PrometheusSource, flags: int) -> Way:
    questions = questions_of(flags)

    async def run() -> int:
        readings = await source.measure(questions)
        assert not any(reading.failure for reading in readings.values())
        return flags

    return run


def alone(source: PrometheusSource, concurrency: int) -> Way:
    questions = questions_of(ALONE_FLAGS)

    async def run() -> int:
        waiting = iter(questions)

        async def worker() -> None:
            for question in waiting:
                await source.measure([question])

        await asyncio.gather(*(worker() for _ in range(concurrency)))
        return ALONE_FLAGS

    return run


async def compare(ways: dict[str, Way], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Flags a second and the longest stall of the event loop, for every way, the order turning every round."""
    found: dict[str, dict[str, list[float]]] = {name: {"flags_per_second": [], "stall_ms": []} for name in ways}
    for way in ways.values():
        await way()
    for turn in range(rounds):
        names = list(ways)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            late: list[float] = []
            watcher = asyncio.create_task(stalls(late))
            began = time.perf_counter()
            flags = await ways[name]()
            found[name]["flags_per_second"].append(flags / (time.perf_counter() - began))
            watcher.cancel()
            found[name]["stall_ms"].append(max(late, default=0.0) * 1000)
    return found


async def until(source: PrometheusSource, asked: QueryQuestion) -> None:
    deadline = time.monotonic() + 60
    while ((await source.measure([asked]))[asked].value or 0) < WINDOW_SECONDS:
        if time.monotonic() > deadline:
            raise TimeoutError("Prometheus has not filled the window within a minute")
        await asyncio.sleep(0.5)


async def until_filled(url: str) -> None:
    source = PrometheusSource("bench", PrometheusSourceSettings(url=url), lent(SystemClock()))
    asked = QueryQuestion(query=f"max(count_over_time(http_requests_total[{WINDOW_SECONDS + 2:g}s]))")
    await until(source, asked)
    await source.close()


def table(found: dict[str, dict[str, list[float]]]) -> Sequence[str]:
    lines = [f"{'':28} {'flags/s':>9} {'min…max':>15} {'longest stall of the loop':>27}"]
    for name, figures in found.items():
        rates, late = figures["flags_per_second"], figures["stall_ms"]
        spread = f"{min(rates):.0f}…{max(rates):.0f}"
        lines.append(f"{name:28} {statistics.median(rates):9.0f} {spread:>15} {max(late):24.1f} ms")
    return lines


async def bench(url: str, target: ExpositionServer, flags: int, rounds: int) -> dict[str, dict[str, list[float]]]:
    await until_filled(url)
    # The target runs in this process: from here on it must not take the interpreter away from what is measured.
    target.render = lambda: ""
    clock = StoppedClock()
    sources = {
        size: PrometheusSource("bench", PrometheusSourceSettings(url=url, flags_per_query=size), lent(clock))
        for size in (50, 200, 1000)
    }
    ways = {f"coalesced, {size} a query": coalesced(source, flags) for size, source in sources.items()}
    ways |= {f"one by one, {at_once} at once": alone(sources[200], at_once) for at_once in (1, 8)}
    found = await compare(ways, rounds)
    for source in sources.values():
        await source.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flags", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    arms = arms_of(options.flags, window_seconds=WINDOW_SECONDS)
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory() as directory,
        ExpositionServer(lambda: counters_of(arms, time.monotonic() - began)) as target,
        running_prometheus(Path(directory), [target.address], scrape_interval="1s") as url,
    ):
        found = asyncio.run(bench(url, target, options.flags, options.rounds))
    asked = questions_of(options.flags)
    print(f"{options.flags} flags × 2 variations, {len(asked)} questions, window {WINDOW_SECONDS:g} s")
    print(f"{queries_per_tick(asked, 200)} queries a tick at 200 flags a query; {options.rounds} rounds, median")
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", end="\n\n")
    print("\n".join(table(found)))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
