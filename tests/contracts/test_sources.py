"""The contract of every source kind that needs no other program. The others run it in tests/peers."""

import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from controller.domain.tally import Cell, Delivery, Tally, bucket_of
from controller.ports import MetricSource
from controller.settings import EventsSourceSettings, PrometheusSourceSettings, ScrapeSourceSettings
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


def test_every_kind_of_source_is_under_the_contract() -> None:
    assert set(KINDS) == {ScrapeSourceSettings, EventsSourceSettings} | IN_PEERS
