"""Evidence that is older than two polls at its commit raises nothing (promise I1)."""

from collections.abc import Collection, Mapping
from pathlib import Path

import pytest

from controller.domain.evidence import Question, Reading
from controller.errors import SourceUnavailable
from tests.support.engine import DANA, ModelSource, World


class Slow(ModelSource):
    """Answers as of the moment it was asked, `takes` seconds later."""

    world: World
    takes = 0.0

    async def measure(self, questions: Collection[Question]) -> Mapping[Question, Reading]:
        answers = await super().measure(questions)
        for _ in range(4):
            self.world.clock.elapsed += self.takes / 4
            await self.world.reconciler.renew()
        return answers


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    slow = Slow()
    slow.world = world
    world.source = world.sources["prom"] = slow
    world.restart()
    return world


def slow(world: World, seconds: float) -> None:
    assert isinstance(world.source, Slow)
    world.source.takes = seconds


async def test_nothing_rises_on_evidence_that_is_older_than_two_polls(world: World) -> None:
    await world.started()
    await world.run_for(600)
    slow(world, 14.0)
    await world.run_for(1800)
    assert (await world.run()).exposure == 10_000, "as old as one poll is fresh"
    await world.run_for(600)
    slow(world, 31.0)
    await world.run_for(3600, step=2)
    assert (await world.run()).exposure == 10_000


async def test_nobody_advances_on_evidence_that_is_older_than_two_polls(world: World) -> None:
    await world.started()
    await world.run_for(600)
    slow(world, 31.0)
    with pytest.raises(SourceUnavailable, match="too old"):
        await world.commands.advance("checkout-v2", DANA, "")
    slow(world, 0.0)
    await world.commands.advance("checkout-v2", DANA, "")
