"""Every raise traces to a person who held the scope for that environment (promise I19)."""

from pathlib import Path

import msgspec
import pytest

from controller.access import Actor
from controller.domain.audit import AuditEntry
from controller.domain.rollout import RAISING
from controller.errors import Forbidden
from tests.support.engine import DANA, World

ELSEWHERE = Actor(name="eve", scopes=("operate", "approve", "author"), environments=("staging",))
READER = Actor(name="rob", scopes=("read", "author", "approve", "kill"))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def entries(world: World) -> list[AuditEntry]:
    return [msgspec.json.decode(row.body, type=AuditEntry) for row in world.store.chain]


async def test_every_raise_belongs_to_a_run_that_a_person_authorised(world: World) -> None:
    await world.started()
    await world.until(10_000)
    await world.commands.pause("checkout-v2", DANA, "")
    await world.commands.resume("checkout-v2", DANA, "")
    await world.until("completed")
    told = await entries(world)
    raises = [entry for entry in told if entry.action in RAISING]
    assert len(raises) == 5
    for entry in raises:
        (began,) = [one for one in told if one.run == entry.run and one.run_version == 1]
        assert (began.action, began.actor) == ("authorise", "dana")
        assert entry.actor == ("dana" if entry.action == "resume" else "rampart")
    assert (await world.run()).started_by == "dana"


@pytest.mark.parametrize("actor", [ELSEWHERE, READER], ids=["another environment", "another scope"])
async def test_nobody_starts_without_the_scope_for_that_environment(world: World, actor: Actor) -> None:
    await world.apply()
    with pytest.raises(Forbidden):
        await world.commands.start("checkout-v2", actor, "")
    assert await world.store.latest_run("checkout-v2") is None


@pytest.mark.parametrize("actor", [ELSEWHERE, READER], ids=["another environment", "another scope"])
async def test_nobody_raises_a_run_without_the_scope_for_that_environment(world: World, actor: Actor) -> None:
    await world.started()
    with pytest.raises(Forbidden):
        await world.commands.advance("checkout-v2", actor, "")
    await world.commands.pause("checkout-v2", DANA, "")
    with pytest.raises(Forbidden):
        await world.commands.resume("checkout-v2", actor, "")
    assert world.flag.exposure == 1_000
