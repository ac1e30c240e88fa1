"""A freeze of the organisation, and runs under way: nothing rises, whoever asks and whenever it was added."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from controller.domain.audit import AuditEntry
from controller.domain.freezes import OrganisationFreeze
from controller.domain.rollout import Run
from controller.errors import FreezeBegan, Refused
from tests.support.engine import DANA, World
from tests.support.rollouts import make_plan


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def freeze(world: World, **values: Any) -> OrganisationFreeze:
    now = world.clock.now()
    return OrganisationFreeze(
        **{
            "name": "black-friday",
            "starts_at": now,
            "ends_at": now + timedelta(hours=6),
            "added_by": "dana",
            "added_at": now,
            "reason": "the shop is full",
            **values,
        }
    )


async def add(world: World, *, known: bool = True, **values: Any) -> None:
    """`known`: this replica has heard of it."""
    await world.store.add_freeze(freeze(world, **values), world.entry("add_freeze"))
    if known:
        await world.engine.refresh()


async def test_a_run_stays_where_it_is_until_the_freeze_is_over_and_then_goes_on(world: World) -> None:
    await world.started()
    await add(world)
    await world.run_for(4 * 3600)
    run, observations = await world.latest()
    assert (run.phase, run.exposure) == ("progressing", 1_000)
    assert observations.seen is not None
    (block,) = observations.seen.blocks
    assert block.text.startswith("frozen: black-friday, until 2026-11-18 18:")
    assert block.clears_at == (await world.store.freezes())[0].ends_at
    assert "frozen: black-friday" in (await world.commands.explain("checkout-v2")).text
    await world.until(10_000, limit=3 * 3600)


async def test_nobody_advances_over_a_freeze_by_hand(world: World) -> None:
    await world.started()
    await world.run_for(600)
    await add(world)
    with pytest.raises(Refused, match="frozen: black-friday"):
        await world.commands.advance("checkout-v2", DANA, "please")
    assert (await world.run()).exposure == 1_000


async def test_a_start_is_authorised_in_a_freeze_and_begins_after_it(world: World) -> None:
    await world.apply()
    await add(world)
    status = await world.commands.start("checkout-v2", DANA, "")
    await world.run_for(600)
    assert (status.phase, world.flag.enabled) == ("pending", False)
    await world.run_for(6 * 3600)
    assert (await world.run()).phase == "progressing"


async def test_who_has_not_heard_of_a_freeze_raises_nothing_against_it(world: World) -> None:
    """It was added between the decision and its commit, or its announcement was lost."""
    await world.started()
    await add(world, known=False)
    await world.run_for(3 * 3600)
    assert (await world.run()).exposure == 1_000
    assert world.flag.exposure == 1_000
    rows = [msgspec.json.decode(row.body, type=AuditEntry).action for row in await world.store.audit()]
    assert rows[-1] == "add_freeze"


async def test_who_has_not_heard_of_a_freeze_advances_nothing_by_hand(world: World) -> None:
    await world.started()
    await world.run_for(600)
    await add(world, known=False)
    with pytest.raises(FreezeBegan, match="a freeze was added meanwhile"):
        await world.commands.advance("checkout-v2", DANA, "please")


async def test_a_freeze_that_comes_while_a_tick_decides_stops_its_raise(world: World) -> None:
    await world.started()
    commit, between = world.store.commit, list[Run]()

    async def racing(move: Any) -> int:
        if move.after.exposure > move.before.exposure and not between:
            between.append(move.before)
            await add(world)  # also heard of here, before this commit
        return await commit(move)

    world.store.commit = racing  # type: ignore[method-assign, assignment]
    await world.run_for(2 * 3600)
    assert between
    assert (await world.run()).exposure == 1_000


async def test_a_freeze_of_other_plans_stops_nothing(world: World) -> None:
    await world.started()
    await add(world, environments=("staging",))
    await add(world, name="tier-1", labels={"tier": "1"})
    assert (await world.until(10_000)).exposure == 10_000


async def test_a_plan_that_got_its_label_after_its_run_began_is_covered(world: World) -> None:
    await world.started()
    plan = make_plan()
    labelled = replace(plan, metadata=replace(plan.metadata, labels={"tier": "1"}))
    await world.store.save_plan(labelled, world.entry("save_plan_again"))
    await add(world, labels={"tier": "1"})
    await world.run_for(2 * 3600)
    assert (await world.run()).exposure == 1_000


async def test_in_a_freeze_people_pause_resume_and_step_back_and_rules_still_kill(world: World) -> None:
    await world.started()
    await world.until(10_000)
    await add(world)
    await world.commands.pause("checkout-v2", DANA, "")
    assert (await world.commands.resume("checkout-v2", DANA, "")).phase == "progressing"
    await world.settle()
    assert (await world.commands.step_back("checkout-v2", DANA, "")).desired_exposure == 1_000
    await world.commands.resume("checkout-v2", DANA, "")
    world.source.sides = {"on": {"error_rate": 0.5}}
    await world.until("killed")
    assert not world.flag.enabled


async def test_a_lifted_freeze_lets_a_run_go_on_at_once(world: World) -> None:
    await world.started()
    await add(world)
    await world.run_for(3600)
    lifted = freeze(world, lifted_at=world.clock.now(), lifted_by="dana")
    await world.store.lift_freeze(lifted, world.entry("lift_freeze"))
    await world.engine.refresh()
    await world.run_for(60)
    assert (await world.run()).exposure == 10_000
