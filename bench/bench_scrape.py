"""How long a scrape of /metrics keeps everything else waiting, beside a thousand rollouts of five rules.

    python -m bench.bench_scrape [--rollouts 1000] [--scrapes 200] [--json dist/bench_scrape.json]

A process of its own scrapes. Here the same event loop, server and handler as in production answer, and nothing
else goes on. Beside each scrape a task asks for a turn of the loop all the time: the longest it waits is the
stall of that scrape, `busy` the most processor time that went by between two of its turns, which other processes
cannot add to. In turns with it the same is measured of nobody scraping (what this machine does to any process),
and of the floor: as many series in prometheus_client's own registry, rendered by its own function, sent at once.

Exit code 1 when the p99 of ours is above 50 ms, in time or, on a machine that is not quiet, in processor time.
"""

import argparse
import asyncio
import json
import platform
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
import uvloop
from litestar import Litestar, get
from litestar.di import Provide
from litestar.types import ASGIApp
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.exposition import generate_latest

from controller.api.health import OPEN_METRICS
from controller.domain.plan import FlagRef
from controller.telemetry import KilledFlag, Metrics
from tests.support.server import free_port
from tests.support.statuses import make_rule, make_status

RULES = 5
TURN_SECONDS = 0.0005
WANTED_MS = 50.0
SHOWN = ("stall", "busy", "took")
SCRAPER = """
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=60)
for line in sys.stdin:
    connection.request("GET", line.strip())
    print(len(connection.getresponse().read()), flush=True)
"""


class Served:
    """What the handler asks of the engine."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics_pieces = metrics.pieces


def full(rollouts: int) -> Metrics:
    """Every rollout with five rules and some decisions, and a tenth as many kills in force."""
    metrics = Metrics()
    now = datetime.now(UTC)
    metrics.tick(lag_seconds=0.0, duration_seconds=0.0, at=now)
    rules = [make_rule(f"rule-{number}", baseline=0.002) for number in range(RULES)]
    for number in range(rollouts):
        metrics.run_seen(make_status(f"plan-{number}#1", rules=rules))
        metrics.decision(f"plan-{number}", "production", "advance", "policy")
    flags = [FlagRef(provider="main", environment="production", key=f"flag-{n}") for n in range(rollouts // 10)]
    killed = [
        KilledFlag(flag=flag, rollout=flag.key, cause="user", accepted_at=now, confirmed=True) for flag in flags
    ]
    metrics.kills_in_force(lambda: killed)
    return metrics


def as_many(series: int) -> CollectorRegistry:
    registry = CollectorRegistry()
    labels = ["rollout", "environment", "policy", "rule"]
    gauge = Gauge("rampart_guardrail_value", "As many series.", labels, registry=registry)
    for number in range(series):
        gauge.labels(f"plan-{number}", "production", "web-service", "errors-high").set(0.002)
    return registry


def application(metrics: Metrics, floor: CollectorRegistry) -> ASGIApp:
    @get("/floor", media_type="text/plain")
    async def rendered_by_the_library() -> bytes:
        return generate_latest(floor)

    engine = Provide(lambda: Served(metrics), sync_to_thread=False)
    return Litestar([OPEN_METRICS, rendered_by_the_library], dependencies={"engine": engine}, logging_config=None)


async def longest_wait(until: Awaitable[Any]) -> tuple[float, float]:
    """Milliseconds between two turns of a task that only asks for the next one, at most; and busy ones."""
    work = asyncio.ensure_future(until)
    longest = busiest = 0.0
    before, used = time.perf_counter(), time.thread_time()
    while not work.done():
        await asyncio.sleep(TURN_SECONDS)
        now, by_now = time.perf_counter(), time.thread_time()
        longest, busiest = max(longest, now - before - TURN_SECONDS), max(busiest, by_now - used)
        before, used = now, by_now
    await work
    return longest * 1000, busiest * 1000


class Scraper:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def get(self, path: str) -> int:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{path}\n".encode())
        return int(await self._process.stdout.readline())

    async def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        await self._process.wait()


async def measure(rollouts: int, scrapes: int) -> dict[str, Any]:
    metrics = full(rollouts)
    series = sum(not line.startswith(b"#") for line in metrics.render().splitlines())
    port = free_port()
    config = uvicorn.Config(application(metrics, as_many(series)), port=port, log_config=None, access_log=False)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn tells it in no other way
        await asyncio.sleep(0.01)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SCRAPER, str(port), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    scraper = Scraper(process)
    kinds: dict[str, Callable[[], Awaitable[Any]]] = {
        "ours": lambda: scraper.get("/metrics"),
        "floor: the library": lambda: scraper.get("/floor"),
        "idle": lambda: asyncio.sleep(0.1),
    }
    stalls: dict[str, list[float]] = {name: [] for name in kinds}
    busy: dict[str, list[float]] = {name: [] for name in kinds}
    took: dict[str, list[float]] = {name: [] for name in kinds}
    size = await scraper.get("/metrics")
    for number in range(scrapes):
        for name, work in kinds.items():
            if name.startswith("floor") and number % 10:
                continue  # it is too slow to be asked as often
            began = time.perf_counter()
            stall, used = await longest_wait(work())
            stalls[name].append(stall)
            busy[name].append(used)
            took[name].append((time.perf_counter() - began) * 1000)
    await scraper.close()
    server.should_exit = True
    await serving
    return {
        "rollouts": rollouts,
        "series": series,
        "bytes": size,
        "stall_ms": {name: spread(numbers) for name, numbers in stalls.items()},
        "busy_ms": {name: spread(numbers) for name, numbers in busy.items()},
        "took_ms": {name: spread(numbers) for name, numbers in took.items()},
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
    }


def spread(numbers: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(numbers, n=100, method="inclusive")
    return {"p50": cuts[49], "p99": cuts[98], "max": max(numbers), "n": len(numbers)}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rollouts", type=int, default=1000)
    parser.add_argument("--scrapes", type=int, default=200)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(measure(options.rollouts, options.scrapes))
    print(f"{result['rollouts']} rollouts, {result['series']} series, {result['bytes'] / 1e6:.1f} MB a scrape")
    print(f"{'ms':20}" + "".join(f"{what + ' p50':>14}{'p99':>10}{'max':>10}" for what in SHOWN))
    for name in result["stall_ms"]:
        numbers = [result[f"{what}_ms"][name] for what in SHOWN]
        print(f"{name:20}" + "".join(f"{one['p50']:14.2f}{one['p99']:10.2f}{one['max']:10.2f}" for one in numbers))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_bytes(msgspec.json.format(json.dumps(result).encode()))
    stall = min(result["stall_ms"]["ours"]["p99"], result["busy_ms"]["ours"]["p99"])
    if stall > WANTED_MS:
        print(f"a scrape stalls the loop for {stall:.0f} ms (p99), wanted are {WANTED_MS:.0f}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
