"""Counts on their way to the database: acknowledged when they are in it, held while it is away, within bounds."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from controller.delivery.event_book import EventBook
from controller.domain.tally import COUNTED_FROM_SECONDS, Cell, Delivery, Tally, Watch
from controller.telemetry import Metrics
from tests.support.event_memory import EventMemory, until_counted
from tests.support.sdk_door import SteppedClock, until

CELL = Cell("production", "checkout", "error", "on", "share", 10_000)
WATCH = Watch("checkout", "error")


class World:
    def __init__(self, **limits: float) -> None:
        self.clock = SteppedClock()
        self.events = EventMemory(self.clock.monotonic)
        self.metrics = Metrics()
        self.book = EventBook(self.events, self.clock, self.metrics, kept_seconds=7200, **limits)  # type: ignore[arg-type]

    async def counted(self) -> int:
        found = await self.events.counted([("checkout", "error")], window_seconds=60, contexts=False)
        return sum(one.count for one in found)

    def result(self, name: str) -> float:
        return self.metrics.registry.get_sample_value("rampart_event_deliveries_total", {"result": name}) or 0.0


@asynccontextmanager
async def running(**limits: float) -> AsyncIterator[World]:
    world = World(**limits)
    await world.events.watch([WATCH], from_seconds=-60)
    await world.book.look()
    world.book.start()
    try:
        yield world
    finally:
        await world.book.close()


def delivery(count: int = 1) -> Delivery:
    tally = Tally()
    tally.count = count
    return Delivery(uuid.uuid4().bytes, {CELL: tally})


async def test_a_delivery_is_acknowledged_once_it_is_in_the_database() -> None:
    async with running() as world:
        await world.book.keep(delivery(3), "production")
        assert await world.counted() == 3
        assert world.result("counted") == 1


async def test_a_delivery_that_comes_again_is_acknowledged_and_not_counted() -> None:
    async with running() as world:
        one = delivery()
        await asyncio.gather(*(world.book.keep(one, "production") for _ in range(5)))
        await world.book.keep(one, "production")
        assert await world.counted() == 1
        assert (world.result("counted"), world.result("repeated")) == (1, 5)


async def test_a_commit_whose_answer_was_lost_is_made_again_and_counts_once() -> None:
    async with running() as world:
        world.events.lose_answers = 1
        await world.book.keep(delivery(2), "production")
        assert await world.counted() == 2


async def test_while_the_database_is_away_deliveries_are_held_and_counted_when_it_is_back() -> None:
    async with running(acknowledge_seconds=0.05) as world:
        world.events.away = True
        for _ in range(3):
            await world.book.keep(delivery(), "production")
        assert world.book.has_room
        world.events.away = False
        await until_counted(world.counted, 3)


async def test_a_backlog_is_added_up_in_pieces_so_that_a_kill_waits_for_none_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    piece = 3 * delivery().size
    monkeypatch.setattr("controller.delivery.event_book.AT_ONCE", piece)
    async with running(acknowledge_seconds=0.01) as world:
        world.events.away = True
        for _ in range(10):
            await world.book.keep(delivery(), "production")
        world.events.away = False
        await until_counted(world.counted, 10)
        assert max(world.events.sizes) <= piece


async def test_what_is_held_is_bounded_and_a_refusal_leaves_a_gap() -> None:
    async with running(acknowledge_seconds=0.01, max_held=5) as world:
        await world.book.keep(delivery(7), "production")
        world.clock.elapsed += 12
        world.events.away = True
        while world.book.has_room:
            await world.book.keep(delivery(), "production")
        world.book.refuse("production")
        world.events.away = False
        await until(lambda: world.book.has_room and "production" in world.events.gaps)
        # What was held is in the slot of the gap: nothing is said of that either.
        assert await world.counted() == 0
        world.clock.elapsed += 12
        await world.book.keep(delivery(2), "production")
        await until_counted(world.counted, 2)
        assert world.result("refused") == 1


async def test_what_could_not_be_read_leaves_a_gap() -> None:
    async with running() as world:
        await world.book.keep(delivery(7), "production")
        world.clock.elapsed += 12
        world.book.garbled("production")
        await until_counted(world.counted, 0)


async def test_what_the_database_never_takes_keeps_nothing_else_from_it() -> None:
    async with running() as world:
        world.events.broken = True
        await world.book.keep(delivery(), "production")
        world.events.broken = False
        await until(lambda: "production" in world.events.gaps)
        world.clock.elapsed += 12
        await world.book.keep(delivery(2), "production")
        assert await world.counted() == 2
        assert world.result("refused") == 1


async def test_what_is_held_is_written_at_the_end() -> None:
    async with running(acknowledge_seconds=0.01) as world:
        world.events.away = True
        await world.book.keep(delivery(4), "production")
        world.events.away = False
    assert await world.counted() == 4


async def test_a_delivery_with_nothing_that_is_counted_waits_for_nobody() -> None:
    async with running() as world:
        world.events.away = True
        async with asyncio.timeout(1):
            await world.book.keep(Delivery(b"1", {}), "production")
        assert world.result("nothing") == 1


async def test_what_is_asked_for_is_counted_a_moment_later() -> None:
    async with running() as world:
        await world.events.watch([Watch("checkout", "another")], from_seconds=COUNTED_FROM_SECONDS)
        await until(lambda: world.book.wanted is not None and "another" in world.book.wanted.events)


async def test_what_was_asked_for_while_the_database_was_out_of_reach_leaves_a_gap() -> None:
    world = World()
    await world.events.watch([WATCH], from_seconds=-60)
    await world.book.look()
    world.book.start()
    await world.book.keep(delivery(3), "production")
    world.clock.elapsed += 30
    await world.events.watch([Watch("another", "error")], from_seconds=0)
    await until_counted(world.counted, 0)
    await world.book.close()


async def test_nothing_is_counted_before_it_is_known_what_is_asked_for() -> None:
    assert World().book.wanted is None
