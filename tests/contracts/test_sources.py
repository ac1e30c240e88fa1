"""The contract of every source kind that needs no other program. The others run it in tests/peers."""

import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from aiohttp import web

from controller.domain.evidence import QuantileQuestion, Question, RatioQuestion
from controller.domain.tally import Cell, Delivery, Tally, bucket_of
from controller.ports import MetricSource
from controller.settings import (
    EventsSourceSettings,
    HttpJsonSourceSettings,
    JsonAskSettings,
    PrometheusSourceSettings,
    ScrapeSourceSettings,
)
from controller.sources.events import EventsSource
from controller.sources.kinds import KINDS, build
from controller.sources.scrape import ScrapeSource
from tests.contracts.sources_contract import (
    BUCKET_SHARES,
    ERRORS_PER_SECOND,
    EXPOSED,
    HOSTILE,
    REQUESTS_PER_SECOND,
    ExpositionContract,
    SourceContract,
    Written,
    exposition,
    latency,
    ratio,
)
from tests.support.event_memory import EventMemory
from tests.support.json_api import Seen, json_api
from tests.support.prometheus import ExpositionServer
from tests.support.sources import lent

EVERY_SECONDS = 1.0
IN_PEERS = {PrometheusSourceSettings}


class SteppedClock:
    def __init__(self) -> None:
        self.elapsed = 0.0

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.elapsed)

    def monotonic(self) -> float:
        return 5000.0 + self.elapsed


class ScrapeWorld:
    written = EXPOSED
    window_seconds = 12.0
    tolerance = 1e-9
    quantile_tolerance = 0.02
    answers_queries = False

    def __init__(self, source: ScrapeSource, server: ExpositionServer, clock: SteppedClock) -> None:
        self.source = source
        self.server = server
        self.clock = clock

    async def pass_scrapes(self, count: int) -> None:
        for _ in range(count):
            self.clock.elapsed += EVERY_SECONDS
            await self.source.scrape()

    async def kill_target(self) -> None:
        self.server.close()
        await self.pass_scrapes(1)


class TestScrape(ExpositionContract):
    @pytest.fixture
    async def world(self) -> AsyncIterator[ScrapeWorld]:
        clock = SteppedClock()
        with ExpositionServer(lambda: exposition(clock.elapsed)) as server:
            settings = ScrapeSourceSettings(targets=[server.address], every_seconds=EVERY_SECONDS)
            source = build("shop", settings, lent(clock))
            assert isinstance(source, ScrapeSource)
            world = ScrapeWorld(source, server, clock)
            await world.pass_scrapes(20)
            clock.elapsed += 0.3
            yield world
            await source.close()


class EventsWorld:
    """An application that tracks `request`, `error` and `latency`, a delivery each second."""

    written = Written("error_total{LABELS}", "request_total{LABELS}", "latency_bucket{LABELS}")
    window_seconds = 12.0
    tolerance = 1e-9
    quantile_tolerance = 0.1  # a bucket is 9 % wide
    answers_queries = False

    def __init__(self, source: EventsSource, events: EventMemory, clock: SteppedClock) -> None:
        self.source: MetricSource = source
        self._events = events
        self._clock = clock
        self._chance = Random(7)

    async def pass_seconds(self, count: int) -> None:
        for _ in range(count):
            self._clock.elapsed += EVERY_SECONDS
            tallies = dict(self._second())
            await self._events.count([Delivery(uuid.uuid4().bytes, tallies)])

    def _second(self) -> Iterator[tuple[Cell, Tally]]:
        for variation, errors in (("on", ERRORS_PER_SECOND), ("off", 0.0)):
            yield cell("steady", "request", variation), counted(REQUESTS_PER_SECOND)
            if errors:
                yield cell("steady", "error", variation), counted(errors)
        for rank, name in enumerate(HOSTILE, start=1):
            yield cell(name, "request", "odd"), counted(rank)
        yield cell("steady", "latency", "on"), self._latencies()

    def _latencies(self) -> Tally:
        tally, below, taken = counted(REQUESTS_PER_SECOND), 0.0, 0.0
        for le, share in BUCKET_SHARES.items():
            for _ in range(round(REQUESTS_PER_SECOND * (share - taken))):
                bucket = bucket_of(self._chance.uniform(below, float(le)))
                tally.buckets[bucket] = tally.buckets.get(bucket, 0) + 1
            below, taken = float(le), share
        return tally

    async def kill_target(self) -> None:
        self._clock.elapsed += 6


def cell(flag: str, event: str, variation: str) -> Cell:
    return Cell("production", flag, event, variation, "share", 10_000)


def counted(events: float) -> Tally:
    tally = Tally()
    tally.count = round(events)
    return tally


class TestEvents(SourceContract):
    @pytest.fixture
    async def world(self) -> EventsWorld:
        clock = SteppedClock()
        events = EventMemory(clock.monotonic, slot_seconds=EVERY_SECONDS)
        source = build("track", EventsSourceSettings(), lent(clock, events))
        assert isinstance(source, EventsSource)
        world = EventsWorld(source, events, clock)
        await source.expect([ratio(world, "steady"), latency(world, "steady")])
        await source.expect(ratio(world, name, "odd") for name in HOSTILE)
        await world.pass_seconds(20)
        clock.elapsed += 0.3
        return world


class Reporting:
    """An API that answers with JSON, in a language of its own, from what a scraped world has seen."""

    def __init__(self, world: ScrapeWorld) -> None:
        self._world = world

    async def answer(self, seen: Seen) -> web.Response:
        verb, _, text = seen.body["query"].partition(" of ")
        window = float(seen.body["window"])
        if verb == "plus one":
            return await self._latest(text)
        if verb == "sum":
            question: Question = RatioQuestion(bad=text, total=text, window_seconds=window)
        elif verb == "count":
            question = QuantileQuestion(histogram=text, quantile=0.5, window_seconds=window)
        else:
            question = QuantileQuestion(histogram=text, quantile=float(verb), window_seconds=window)
        reading = (await self._world.source.measure([question]))[question]
        if reading.failure:
            return web.json_response({"error": reading.failure}, status=400)
        number = reading.total if verb in ("sum", "count") else reading.value
        return self._found(number, reading.age_seconds)

    def _found(self, number: float | None, age: float | None) -> web.Response:
        at = None if age is None else self._world.clock.now().timestamp() - age
        return web.json_response([] if number is None else [{"number": number, "newest": at}])

    async def _latest(self, text: str) -> web.Response:
        question = RatioQuestion(bad=text, total=text, window_seconds=60)
        examined = await self._world.source.examine([question])
        (series,) = examined.found[question].series
        return self._found(series.value + 1, 0.0)


class HttpJsonWorld:
    written = EXPOSED._replace(
        rate=" / REQUESTS{",
        quantile="p90 of latency_seconds_bucket{",
        raw='plus one of http_requests_total{flag="idle"}',
    )
    window_seconds = 12.0
    tolerance = 1e-9
    quantile_tolerance = 0.02
    answers_queries = True

    def __init__(self, source: MetricSource, behind: ScrapeWorld) -> None:
        self.source = source
        self._behind = behind

    async def kill_target(self) -> None:
        await self._behind.kill_target()


class TestHttpJson(SourceContract):
    @pytest.fixture
    async def world(self) -> AsyncIterator[HttpJsonWorld]:
        clock = SteppedClock()
        with ExpositionServer(lambda: exposition(clock.elapsed)) as server:
            scraped = ScrapeSourceSettings(targets=[server.address], every_seconds=EVERY_SECONDS)
            behind = build("behind", scraped, lent(clock))
            assert isinstance(behind, ScrapeSource)
            inner = ScrapeWorld(behind, server, clock)
            await inner.pass_scrapes(20)
            clock.elapsed += 0.3
            async with json_api(Reporting(inner).answer) as api:
                api.now = clock.now
                source = build("reports", asked_at(api.url), lent(clock))
                yield HttpJsonWorld(source, inner)
                await source.close()
            await behind.close()


def asked_at(url: str) -> HttpJsonSourceSettings:
    return HttpJsonSourceSettings(
        url=url,
        body='{"query": "{{query}}", "window": "{{window}}"}',
        value="number",
        time="newest",
        counter=JsonAskSettings(query="sum of {{text}}"),
        sample=JsonAskSettings(query="count of {{text}}"),
        quantile=JsonAskSettings(query="{{quantile}} of {{text}}"),
        raw=JsonAskSettings(query="{{text}}"),
    )


def test_every_kind_of_source_is_under_the_contract() -> None:
    assert set(KINDS) == {ScrapeSourceSettings, EventsSourceSettings, HttpJsonSourceSettings} | IN_PEERS
