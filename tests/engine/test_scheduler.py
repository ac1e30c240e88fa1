"""The timers tell how late they are, and let nothing rise before every kill is in the database."""

from pathlib import Path
from typing import Any

import pytest

from controller.errors import StoreUnavailable
from controller.scheduler import Scheduler
from controller.telemetry import Metrics
from tests.support.engine import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def scheduler(world: World, metrics: Metrics) -> Scheduler:
    return Scheduler(
        store=world.store,
        reconciler=world.reconciler,
        killer=world.killer,
        clock=world.clock,
        metrics=metrics,
        poll_seconds=0.5,
        lease_seconds=15.0,
    )


def value(metrics: Metrics, series: str) -> float:
    (line,) = [line for line in metrics.render().decode().splitlines() if line.startswith(f"{series} ")]
    return float(line.rsplit(" ", 1)[1])


async def test_a_tick_that_began_late_says_by_how_much(world: World) -> None:
    metrics = Metrics()
    timers = scheduler(world, metrics)
    await timers._merge()
    world.clock.elapsed += 0.5
    await timers._tick()
    assert value(metrics, "rampart_tick_lag_seconds_sum") == 0.0
    world.clock.elapsed += 4.5
    await timers._tick()
    assert value(metrics, "rampart_tick_lag_seconds_sum") == pytest.approx(4.0)


async def test_no_run_is_claimed_before_the_kills_are_merged_nor_while_the_database_is_away(world: World) -> None:
    claimed: list[Any] = []
    claim = world.store.claim_due

    async def counted(*args: Any, **more: Any) -> Any:
        claimed.append(args)
        return await claim(*args, **more)

    async def away(*_: object, **__: object) -> Any:
        raise StoreUnavailable("frozen")

    world.store.claim_due = counted  # type: ignore[method-assign]
    timers = scheduler(world, Metrics())
    await timers._tick()
    assert claimed == []
    await timers._merge()
    await timers._tick()
    assert len(claimed) == 1
    assert timers.store_answers
    active, world.store.active_kills = world.store.active_kills, away  # type: ignore[method-assign]
    await timers._merge()
    await timers._tick()
    assert not timers.store_answers
    assert len(claimed) == 1
    world.store.active_kills = active
    await timers._merge()
    await timers._tick()
    assert len(claimed) == 2
