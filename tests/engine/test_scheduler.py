"""The timers tell how late they are, and let nothing rise before every kill is in the database."""

from pathlib import Path
from typing import Any

import pytest

from controller.errors import StoreUnavailable
from controller.telemetry import Metrics
from tests.support.engine import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def value(metrics: Metrics, series: str) -> float:
    (line,) = [line for line in metrics.render().decode().splitlines() if line.startswith(f"{series} ")]
    return float(line.rsplit(" ", 1)[1])


async def test_a_tick_that_began_late_says_by_how_much(world: World) -> None:
    await world.timers.run("check_in")
    world.clock.elapsed += 0.5
    await world.timers.run("tick")
    assert value(world.metrics, "rampart_tick_lag_seconds_sum") == 0.0
    world.clock.elapsed += 4.5
    await world.timers.run("tick")
    assert value(world.metrics, "rampart_tick_lag_seconds_sum") == pytest.approx(4.0)


async def test_no_run_is_claimed_before_the_kills_are_merged_nor_while_the_database_is_away(world: World) -> None:
    claimed: list[Any] = []
    claim = world.store.claim_due

    async def counted(*args: Any, **more: Any) -> Any:
        claimed.append(args)
        return await claim(*args, **more)

    async def away(*_: object, **__: object) -> Any:
        raise StoreUnavailable("frozen")

    world.store.claim_due = counted  # type: ignore[method-assign]
    await world.timers.run("tick")
    assert claimed == []
    await world.timers.run("check_in")
    await world.timers.run("tick")
    assert len(claimed) == 1
    assert world.presence.merged
    active, world.store.active_kills = world.store.active_kills, away  # type: ignore[method-assign]
    await world.timers.run("check_in")
    await world.timers.run("tick")
    assert not world.presence.merged
    assert len(claimed) == 1
    world.store.active_kills = active
    await world.timers.run("check_in")
    await world.timers.run("tick")
    assert len(claimed) == 2
