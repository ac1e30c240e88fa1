"""Whether a commit happened is looked up and never assumed, either way (promise I8)."""

from pathlib import Path

import pytest

from controller.domain.catalogue import Transition
from controller.errors import StoreUnavailable
from tests.support.engine import DANA, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_what_was_not_committed_is_at_no_moment_applied(world: World) -> None:
    await world.started()

    async def refuse(_: Transition) -> int:
        raise StoreUnavailable("gone")

    world.store.commit = refuse  # type: ignore[assignment,method-assign]
    await world.run_for(3600)
    assert max(state.effective_exposure for _, state in world.provider.history) == 1_000


async def test_a_command_whose_answer_was_lost_is_carried_out_at_once(world: World) -> None:
    await world.started()
    await world.run_for(600)
    commit = world.store.commit

    async def lose_the_answer(move: Transition) -> int:
        await commit(move)
        raise StoreUnavailable("the answer was lost")

    world.store.commit = lose_the_answer  # type: ignore[assignment,method-assign]
    status = await world.commands.advance("checkout-v2", DANA, "")
    assert (status.desired_exposure, world.flag.exposure) == (10_000, 10_000)
