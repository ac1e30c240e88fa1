"""A gated stage needs an approver who is not the author, also after the plan changed under a run (promise I14)."""

from pathlib import Path
from typing import Any

import pytest

from controller.access import Actor
from controller.domain.audit import AuditEntry
from controller.domain.plan import RolloutPlan
from controller.errors import Forbidden, Refused
from tests.support.engine import DANA, KIM, World
from tests.support.rollouts import make_plan, make_policy

GATE = {"from": ["managers"]}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def gated(bake: str = "10m", gate: dict[str, Any] | None = GATE) -> RolloutPlan:
    half: dict[str, Any] = {"name": "half", "exposure": "50%", "bake": bake}
    if gate:
        half["approval"] = gate
    return make_plan(
        stages=[
            {"name": "canary", "exposure": "1%", "bake": bake},
            half,
            {"name": "everyone", "exposure": "100%", "bake": bake},
        ]
    )


def by(world: World, actor: Actor, action: str) -> AuditEntry:
    entry: AuditEntry = world.entry(action)
    return AuditEntry(**{name: getattr(entry, name) for name in entry.__struct_fields__} | {"actor": actor.name})


async def test_whoever_wrote_the_plan_that_was_adopted_does_not_approve_it(world: World) -> None:
    await world.started(gated())
    await world.store.save_plan(gated(bake="12m"), by(world, KIM, "save_plan"))
    await world.commands.adopt("checkout-v2", DANA, "")
    await world.run_for(3600)
    assert (await world.run()).approval is not None
    with pytest.raises(Forbidden, match="second person"):
        await world.commands.approve("checkout-v2", KIM, "")
    assert world.flag.exposure == 1_000


async def test_nobody_adopts_a_looser_policy_of_their_own(world: World) -> None:
    await world.started(gated())
    await world.store.save_policy(make_policy(minSample={"requests": 1}), by(world, KIM, "save_policy"))
    with pytest.raises(Refused, match="not the author"):
        await world.commands.adopt("checkout-v2", KIM, "")
    await world.commands.adopt("checkout-v2", DANA, "read it")


async def test_nobody_removes_the_approval_from_the_plan_of_a_run_alone(world: World) -> None:
    await world.started(gated())
    await world.store.save_plan(gated(gate=None), by(world, KIM, "save_plan"))
    with pytest.raises(Refused, match="not the author"):
        await world.commands.adopt("checkout-v2", KIM, "")
    await world.commands.adopt("checkout-v2", DANA, "read it")


async def test_what_changes_neither_rules_nor_approvals_is_adopted_by_one_person(world: World) -> None:
    await world.started(gated())
    await world.store.save_plan(gated(bake="30m"), by(world, KIM, "save_plan"))
    await world.commands.adopt("checkout-v2", KIM, "")


async def test_breaking_the_glass_lowers_alone_and_never_raises_alone(world: World) -> None:
    await world.started(gated())
    killer = Actor(name="oncall", scopes=("kill",))
    for raising in (world.commands.advance, world.commands.resume, world.commands.adopt, world.commands.approve):
        with pytest.raises(Forbidden):
            await raising("checkout-v2", killer, "")
    await world.commands.step_back("checkout-v2", killer, "")
    with pytest.raises(Forbidden):
        await world.commands.resume("checkout-v2", killer, "")
    (kill,) = await world.killer.kill(
        key="checkout-v2", environment=None, provider=None, actor=killer, reason="INC-1"
    )
    with pytest.raises(Forbidden):
        await world.kill_ledger.reset(
            key="checkout-v2", environment=None, provider=None, kill_ids=[kill.kill_id], actor=killer, note=""
        )
    assert not world.flag.enabled
