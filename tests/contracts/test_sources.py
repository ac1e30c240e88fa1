"""The contract of every source kind that needs no other program. The others run it in tests/peers."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from controller.settings import PrometheusSourceSettings, ScrapeSourceSettings
from controller.sources.kinds import KINDS, build
from controller.sources.scrape import ScrapeSource
from tests.contracts.sources_contract import SourceContract, exposition
from tests.support.prometheus import ExpositionServer

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
    window_seconds = 12.0
    tolerance = 1e-9
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


class TestScrape(SourceContract):
    @pytest.fixture
    async def world(self) -> AsyncIterator[ScrapeWorld]:
        clock = SteppedClock()
        with ExpositionServer(lambda: exposition(clock.elapsed)) as server:
            settings = ScrapeSourceSettings(targets=[server.address], every_seconds=EVERY_SECONDS)
            source = build("shop", settings, clock)
            assert isinstance(source, ScrapeSource)
            world = ScrapeWorld(source, server, clock)
            await world.pass_scrapes(20)
            clock.elapsed += 0.3
            yield world
            await source.close()


def test_every_kind_of_source_is_under_the_contract() -> None:
    assert set(KINDS) == {ScrapeSourceSettings} | IN_PEERS
