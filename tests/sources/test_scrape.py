"""The scrape source when targets misbehave, and when it has not watched for long enough."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from controller.domain.evidence import RatioQuestion, Reading
from controller.errors import SettingsError
from controller.settings import ScrapeSourceSettings
from controller.sources.scrape import ScrapeSource
from tests.support.prometheus import ExpositionServer, free_port
from tests.support.sources import lent

WINDOW_SECONDS = 10.0


class World:
    """A clock that is moved by hand, one scrape a second."""

    def __init__(self, targets: list[str], **settings: Any) -> None:
        self.elapsed = 0.0
        self.source = ScrapeSource(
            "shop", ScrapeSourceSettings(targets=targets, every_seconds=1.0, **settings), lent(self)
        )

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.elapsed, UTC)

    def monotonic(self) -> float:
        return 100.0 + self.elapsed

    def text(self) -> str:
        return f'hits{{code="200"}} {50 + self.elapsed * 10}\nhits{{code="500"}} {self.elapsed}\n'

    async def pass_scrapes(self, count: int) -> None:
        for _ in range(count):
            self.elapsed += 1
            await self.source.scrape()

    async def ask(self, selector: str = "hits", window_seconds: float = WINDOW_SECONDS) -> Reading:
        question = RatioQuestion(bad=selector, total=selector, window_seconds=window_seconds)
        return (await self.source.measure([question]))[question]

    async def problems(self) -> list[str | None]:
        return [target.problem for target in await self.source.targets()]


@asynccontextmanager
async def opened(targets: list[str], **settings: Any) -> AsyncIterator[World]:
    world = World(targets, **settings)
    yield world
    await world.source.close()


@asynccontextmanager
async def watching(scrapes: int = 15, **settings: Any) -> AsyncIterator[tuple[World, ExpositionServer]]:
    with ExpositionServer(lambda: "") as server:
        async with opened([server.address], **settings) as world:
            server.render = world.text
            await world.pass_scrapes(scrapes)
            yield world, server


async def until(condition: Callable[[], Awaitable[bool]], *, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.02)


async def test_a_window_that_is_not_yet_covered_is_silence() -> None:
    async with watching(scrapes=0) as (world, _):
        assert (await world.ask()).total is None
        for scrapes in range(1, 12):
            await world.pass_scrapes(1)
            # The first scrape covers nothing; the eighth second after it makes 80 % of ten.
            reading = await world.ask()
            assert (reading.total is None) is (scrapes < 9), scrapes
            assert (reading.bad is None) is (scrapes < 9)
        assert reading.total == pytest.approx(110, rel=1e-6)


async def test_a_gap_in_watching_is_silence_until_it_has_left_the_window() -> None:
    async with watching() as (world, server):
        server.status = 503
        await world.pass_scrapes(1)
        server.status = 200
        await world.pass_scrapes(1)
        assert (await world.ask()).total == pytest.approx(110)
        world.elapsed += 6
        await world.pass_scrapes(1)
        assert (await world.ask()).total is None
        await world.pass_scrapes(10)
        assert (await world.ask()).total == pytest.approx(110)


async def test_a_target_that_fails_is_stale_at_once_and_says_why() -> None:
    async with watching() as (world, server):
        assert (await world.ask()).age_seconds == 0
        for status, body, problem in (
            (503, "", "answered HTTP 503"),
            (302, "", "answered HTTP 302"),
            (200, "<html>log in</html>", "does not expose metrics"),
            (200, 'hits{code="200"} 1\nhits{code="200"} 2\n', "exposes hits twice"),
            (200, 'hits{code="200"} lots\n', "does not expose metrics"),
            (200, f'hits{{code="200"}} {"9" * 400}\n', "does not expose metrics"),
            (200, "x" * (17 * 1024 * 1024), "exposes more than 16 MiB"),
        ):
            server.status, server.render = status, partial(str, body)
            await world.pass_scrapes(1)
            assert problem in str(await world.problems())
            assert (await world.ask()).age_seconds is None
            server.status, server.render = 200, world.text
            await world.pass_scrapes(1)
            assert await world.problems() == [None]
            assert (await world.ask()).age_seconds == 0
        server.close()
        await world.pass_scrapes(1)
        assert "cannot be reached" in str(await world.problems())
        (health,) = await world.source.targets()
        assert (health.up, health.age_seconds) == (False, 1.0)


async def test_the_age_grows_between_scrapes() -> None:
    async with watching() as (world, _):
        world.elapsed += 3.5
        assert (await world.ask()).age_seconds == 3.5


async def test_targets_are_added_up_and_told_apart_by_their_instance() -> None:
    with ExpositionServer(lambda: "") as one, ExpositionServer(lambda: "") as other:
        async with opened([one.address, f"http://{other.address}/metrics"]) as world:
            one.render = other.render = world.text
            await world.pass_scrapes(15)
            assert (await world.ask()).total == pytest.approx(220)
            assert (await world.ask(f'hits{{instance="{other.address}"}}')).total == pytest.approx(110)


async def test_a_dead_target_does_not_silence_the_others() -> None:
    with ExpositionServer(lambda: "") as server:
        async with opened([f"127.0.0.1:{free_port()}", server.address]) as world:
            server.render = world.text
            await world.pass_scrapes(15)
            reading = await world.ask()
            assert reading.total == pytest.approx(110)
            assert reading.age_seconds == 0
            assert [target.up for target in await world.source.targets()] == [False, True]


async def test_a_slow_target_does_not_delay_the_others() -> None:
    with ExpositionServer(lambda: "x 1\n") as slow, ExpositionServer(lambda: "y 1\n") as quick:
        slow.delay_seconds = 1.5
        source = ScrapeSource(
            "shop",
            ScrapeSourceSettings(targets=[slow.address, quick.address], every_seconds=0.1, timeout_seconds=1.0),
            lent(Ticking()),
        )
        source.start()

        async def quick_was_scraped_often() -> bool:
            return len(quick.seen_headers) >= 5

        await until(quick_was_scraped_often)
        assert len(slow.seen_headers) <= 1
        assert [target.up for target in await source.targets()] == [False, True]
        await source.close()


async def test_beats_are_multiples_of_the_period_whatever_a_scrape_takes() -> None:
    beats: list[float] = []

    def beat() -> str:
        beats.append(time.monotonic())
        return "x 1\n"

    async def nine_beats() -> bool:
        return len(beats) >= 9

    with ExpositionServer(beat) as server:
        server.delay_seconds = 0.07
        source = ScrapeSource(
            "shop", ScrapeSourceSettings(targets=[server.address], every_seconds=0.2), lent(Ticking())
        )
        source.start()
        await until(nine_beats)
        await source.close()
    # Waiting a period after each answer would drift by 0.07 s a beat.
    late = [(beat_at - beats[0]) % 0.2 for beat_at in beats[1:]]
    assert statistics.median(min(off, 0.2 - off) for off in late) < 0.03


class Ticking:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


async def test_a_flood_of_series_is_refused_and_fails_only_its_own_metric() -> None:
    async with watching(max_series=12) as (world, server):
        server.render = lambda: world.text() + "".join(f'flood{{id="{number}"}} 1\n' for number in range(100))
        await world.pass_scrapes(15)
        assert "the limit of 12 series is reached" in ((await world.ask("flood")).failure or "")
        assert "the limit of 12 series is reached" in str(await world.problems())
        assert (await world.ask()).total == pytest.approx(110)
        server.render = world.text
        await world.pass_scrapes(1)
        assert (await world.ask("flood")).failure is None


async def test_a_window_longer_than_the_memory_is_said_to_be() -> None:
    async with watching(retention_seconds=60) as (world, _):
        assert "longer than the 60 s kept" in ((await world.ask(window_seconds=61)).failure or "")


async def test_a_regular_expression_of_another_dialect_fails_alone() -> None:
    async with watching() as (world, _):
        odd = RatioQuestion(bad="hits", total='hits{code=~"[0-9&&[^5]]+"}', window_seconds=WINDOW_SECONDS)
        sane = RatioQuestion(bad="hits", total="hits", window_seconds=WINDOW_SECONDS)
        readings = await world.source.measure([odd, sane])
        assert readings[sane].total == pytest.approx(110)
        assert readings[odd].total is None


async def test_samples_with_a_timestamp_of_their_own_are_no_data() -> None:
    async with watching() as (world, server):
        server.render = lambda: world.text() + f"stamped {world.elapsed} 1700000000000\n"
        await world.pass_scrapes(15)
        assert (await world.ask("stamped")).total is None
        assert (await world.ask()).total is not None


async def test_a_rotated_token_counts_at_the_next_scrape_and_never_shows(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first-secret\n")
    async with watching(1, bearer_token_file=str(token)) as (world, server):
        assert server.seen_headers[-1]["Authorization"] == "Bearer first-secret"
        token.write_text("second-secret\n")
        server.status = 401
        await world.pass_scrapes(1)
        assert server.seen_headers[-1]["Authorization"] == "Bearer second-secret"
        assert "secret" not in str(await world.source.targets())
        token.unlink()
        await world.pass_scrapes(1)
        assert "cannot read the secret file" in str(await world.problems())


async def test_credentials_in_a_target_s_address_are_used_and_never_shown() -> None:
    with ExpositionServer(lambda: "hits 1\n") as server:
        async with opened([f"http://ann:hush-hush@{server.address}/inner?key=hush-too"]) as world:
            await world.pass_scrapes(1)
            assert server.seen_headers[-1]["Authorization"].startswith("Basic ")
            assert "hush" not in str(await world.source.targets())


@pytest.mark.parametrize("target", ["ftp://shop/metrics", "http://", "shop:port", "ann:hush@"])
def test_an_address_that_is_none_is_refused_at_the_start(target: str) -> None:
    with pytest.raises(SettingsError, match=r"sources\.shop\.targets") as refused:
        World([target])
    assert "hush" not in str(refused.value)
