"""The prometheus source against a real Prometheus: the contract, and a thousand flags that share one policy."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from controller.domain.evidence import QueryQuestion, Question
from controller.settings import PrometheusSourceSettings
from controller.sources import extrapolation
from controller.sources.coalescing import queries_per_tick
from controller.sources.kinds import build
from controller.sources.prometheus import PrometheusSource
from controller.sources.sample_memory import SampleMemory
from tests.contracts.sources_contract import EXPOSED, HOSTILE, ExpositionContract, exposition
from tests.support.many_flags import Arm, StoppedClock, SystemClock, arms_of, counters_of
from tests.support.prometheus import ExpositionServer, running_prometheus
from tests.support.sources import lent

WINDOW_SECONDS = 5.0


async def until(condition: Callable[[], Awaitable[bool]], *, seconds: float = 40.0) -> None:
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.1)


async def query(session: aiohttp.ClientSession, url: str, text: str, at: float | None = None) -> list[Any]:
    form = {"query": text} | ({} if at is None else {"time": f"{at:.3f}"})
    async with session.post(f"{url}/api/v1/query", data=form) as response:
        answer = await response.json()
    assert answer["status"] == "success", answer
    found: list[Any] = answer["data"]["result"]
    return found


async def until_samples(url: str, selector: str, seconds: float, count: int) -> None:
    async with aiohttp.ClientSession() as session:

        async def enough() -> bool:
            found = await query(session, url, f"count_over_time({selector}[{seconds:g}s])")
            return bool(found) and float(found[0]["value"][1]) >= count

        await until(enough)


@asynccontextmanager
async def opened(url: str, clock: SystemClock) -> AsyncIterator[PrometheusSource]:
    source = build("prod", PrometheusSourceSettings(url=url), lent(clock))
    assert isinstance(source, PrometheusSource)
    yield source
    await source.close()


class Installation:
    """A Prometheus that scrapes the contract's counters. The target can die, and is there again when asked for."""

    def __init__(self, directory: Path) -> None:
        self._began_at = time.monotonic()
        self.target = self._serve(0)
        self._running = running_prometheus(directory, [self.target.address], scrape_interval="250ms")
        self.url = self._running.__enter__()
        self.alive = True

    def kill(self) -> None:
        self.target.close()
        self.alive = False

    async def ready(self) -> None:
        if not self.alive:
            self.target = self._serve(self.target.port)
            self.alive = True
        await until_samples(self.url, 'http_requests_total{flag="idle"}', 7, 26)

    def close(self) -> None:
        self._running.__exit__(None, None, None)
        self.target.close()

    def _serve(self, port: int) -> ExpositionServer:
        return ExpositionServer(lambda: exposition(time.monotonic() - self._began_at), port=port)


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    installed = Installation(tmp_path_factory.mktemp("prometheus"))
    yield installed
    installed.close()


class PrometheusWorld:
    written = EXPOSED
    window_seconds = WINDOW_SECONDS
    # The target's clock, Prometheus' scrape and our question are three moments.
    tolerance = 0.15
    quantile_tolerance = 0.02
    answers_queries = True

    def __init__(self, source: PrometheusSource, installed: Installation) -> None:
        self.source = source
        self._installed = installed

    async def kill_target(self) -> None:
        self._installed.kill()
        up = QueryQuestion(query='up{job="app"}')

        async def seen_down() -> bool:
            return (await self.source.measure([up]))[up].value == 0

        await until(seen_down)


class TestPrometheus(ExpositionContract):
    @pytest.fixture
    async def world(self, installation: Installation) -> AsyncIterator[PrometheusWorld]:
        await installation.ready()
        async with opened(installation.url, SystemClock()) as source:
            yield PrometheusWorld(source, installation)


async def test_the_scrape_source_computes_the_increase_prometheus_computes(installation: Installation) -> None:
    await installation.ready()
    at = round(time.time(), 3)
    async with aiohttp.ClientSession() as session:
        increases = await query(session, installation.url, "increase(http_requests_total[5s])", at)
        raw = await query(session, installation.url, "http_requests_total[8s]", at)
    expected = {frozenset(found["metric"].items()): float(found["value"][1]) for found in increases}
    assert len(expected) > len(HOSTILE)
    for series in raw:
        labels = {name: value for name, value in series["metric"].items() if name != "__name__"}
        grown = remembered_increase([(when, float(value)) for when, value in series["values"]], at)
        assert grown == pytest.approx(expected[frozenset(labels.items())], rel=1e-9, nan_ok=True), labels


def remembered_increase(samples: list[tuple[float, float]], at: float) -> float | None:
    memory = SampleMemory("target", every_seconds=0.25, retention_seconds=60)
    for when, value in samples:
        # Prometheus counts in whole milliseconds; seconds since 1970 do not hold them exactly.
        memory.record(round(when - at, 3), [(("x", ()), value)], room=1)
    stretch = memory.stretch(memory.series("x")[0], -WINDOW_SECONDS, 0.0)
    return None if stretch is None else extrapolation.increase(stretch, -WINDOW_SECONDS, 0.0)


# — a thousand flags —

FLAGS = 1000
ARMS = arms_of(FLAGS, window_seconds=WINDOW_SECONDS)


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    began_at = time.monotonic()
    with (
        ExpositionServer(lambda: counters_of(ARMS, time.monotonic() - began_at)) as target,
        running_prometheus(tmp_path_factory.mktemp("thousand"), [target.address], scrape_interval="500ms") as url,
    ):
        yield url


def policy_questions() -> list[Question]:
    return [question for arm in ARMS for question in (arm.ratio, arm.latency)]


async def queries_served(session: aiohttp.ClientSession, url: str) -> float:
    async with session.get(f"{url}/metrics") as response:
        text = await response.text()
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in text.splitlines()
        if line.startswith("prometheus_http_requests_total") and 'handler="/api/v1/query"' in line
    )


async def test_a_thousand_flags_are_measured_together_as_they_would_be_one_by_one(thousand: str) -> None:
    await until_samples(thousand, f'http_requests_total{{{ARMS[1].labels},code="200"}}', 7, 12)
    clock = StoppedClock()
    at = clock.now().timestamp()
    questions = policy_questions()
    async with opened(thousand, clock) as source, aiohttp.ClientSession() as session:
        before = await queries_served(session, thousand)
        readings = await source.measure(questions)
        spent = await queries_served(session, thousand) - before
        assert spent == queries_per_tick(questions, 200) == 5 * (FLAGS // 200)
        alone = await one_by_one(session, thousand, ARMS, at)
    assert not [reading.failure for reading in readings.values() if reading.failure]
    answered = 0
    for arm in ARMS:
        expected = alone[arm]
        ratio, latency = readings[arm.ratio], readings[arm.latency]
        assert same(ratio.bad, expected.get("bad"))
        assert same(ratio.total, expected.get("total"))
        assert same(latency.value, expected.get("quantile"))
        assert same(latency.total, expected.get("observed"))
        answered += ratio.total is not None
    # The world has all the shapes it claims to have.
    assert 0.9 * len(ARMS) < answered < len(ARMS)
    assert any(reading.bad is None and reading.total for reading in readings.values())
    assert any(reading.value is not None and math.isnan(reading.value) for reading in readings.values())


async def test_the_number_of_queries_follows_the_formula_for_any_mix(thousand: str) -> None:
    raw: list[Question] = [QueryQuestion(query="vector(1)"), QueryQuestion(query="vector(2)")]
    mixes: list[list[Question]] = [
        [ARMS[0].ratio],
        [arm.ratio for arm in ARMS[:402]],
        [*raw, *raw, *(arm.latency for arm in ARMS[:3])],
    ]
    async with aiohttp.ClientSession() as session, opened(thousand, SystemClock()) as source:
        for questions, stated in zip(mixes, (3, 6, 4), strict=True):
            before = await queries_served(session, thousand)
            await source.measure(questions)
            assert await queries_served(session, thousand) - before == stated == queries_per_tick(questions, 200)


async def one_by_one(
    session: aiohttp.ClientSession, url: str, arms: Collection[Arm], at: float
) -> Mapping[Arm, dict[str, float]]:
    permits = asyncio.Semaphore(8)

    async def ask(arm: Arm) -> dict[str, float]:
        async with permits:
            found = await query(session, url, arm.alone, at)
        return {series["metric"]["part"]: float(series["value"][1]) for series in found}

    return dict(zip(arms, await asyncio.gather(*map(ask, arms)), strict=True))


def same(found: float | None, expected: float | None) -> bool:
    if found is None or expected is None:
        return found is expected
    # Summing in another order may differ in the last digit.
    return math.isclose(found, expected, rel_tol=1e-12) or (math.isnan(found) and math.isnan(expected))
