"""What cannot be read is not off and no reason to raise; what changed before a start is drift (I9, I10)."""

from pathlib import Path

import pytest

from controller.domain.flag import FlagState
from tests.support.engine import DANA, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def authorised(world: World) -> None:
    await world.apply()
    await world.commands.start("checkout-v2", DANA, "")


async def test_a_start_waits_while_the_provider_cannot_be_read(world: World) -> None:
    await authorised(world)
    world.provider.unreadable = "404"
    await world.run_for(300)
    run = await world.run()
    assert (run.phase, run.exposure, world.provider.history) == ("pending", 0, [])
    assert "could not be read: 404" in (await world.commands.explain("checkout-v2")).text
    world.provider.unreadable = None
    await world.until(1_000)


async def test_a_start_waits_while_somebody_else_serves_the_rollout(world: World) -> None:
    await authorised(world)
    raised = FlagState(enabled=True, exposure=500, off_serves="off")
    world.provider.flags[world.plan.spec.flag] = raised
    await world.run_for(300)
    assert ((await world.run()).phase, world.flag) == ("pending", raised)
    assert "the provider shows 0.5 %" in (await world.commands.explain("checkout-v2")).text
    world.provider.flags[world.plan.spec.flag] = FlagState(enabled=False, exposure=0, off_serves="off")
    await world.until(1_000)
