"""Somebody changes the flag behind our back: noticed at the next tick, told with who and when (I9)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from controller.domain.flag import FlagState
from controller.domain.plan import Serve
from controller.domain.proof import verify
from controller.domain.rollout import Accepted
from controller.errors import Refused
from controller.lastknown import KnownFlag
from tests.support.engine import DANA, World
from tests.support.proofs import proof_of
from tests.support.rollouts import NOW


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    one = World(tmp_path)
    yield one
    one.journal.close()


async def climbing(world: World) -> None:
    """Confirmed at the first stage, beside a rule that was there before."""
    await world.apply()
    flag = world.plan.spec.flag
    before = FlagState(
        enabled=False, exposure=0, off_serves="off", foreign=("rule legal-hold", "variation third for 5 %"),
        bucketing="by email",
    )  # fmt: skip
    world.provider.put(flag, before)

    async def as_we_write_it(change: Any) -> None:
        state = world.provider.flags[flag]
        left = tuple(one for one in state.foreign if not one.startswith("variation"))
        world.provider.put(flag, replace(state, foreign=left, bucketing="off,on by key"))

    world.provider.after_apply = as_we_write_it
    await world.commands.start("checkout-v2", DANA, "")
    await world.settle()
    run = await world.run()
    assert (run.phase, run.stage, run.confirmed) == ("progressing", 0, True)


async def edited(world: World, **changes: Any) -> None:
    """By somebody, in the provider's own user interface; then one tick."""
    world.provider.put(world.plan.spec.flag, replace(world.flag, changed_by="erin", changed_at=NOW, **changes))
    await world.run_for(15.0)


BEHIND = "paused: the flag was changed outside this run: "
BY = ", last changed by erin at 2026-11-18 12:00:00 UTC"
ACCEPT = "; a resume accepts it"

ALTERED = [
    ({"foreign": ("rule legal-hold", "strategy 2")}, "strategy 2 appeared"),
    ({"foreign": ()}, "rule legal-hold is gone"),
    ({"off_serves": "on"}, 'when off it serves "on" now'),
    (
        {"bucketing": "on,off by key"},
        "it is decided otherwise now who is in the share (order of variations, salt, seed or attribute)",
    ),
]


async def test_what_our_own_writes_replace_is_not_taken_for_somebody_elses_change(world: World) -> None:
    await climbing(world)
    await world.until(10_000)
    run = await world.run()
    assert run.accepted == Accepted(
        foreign=("rule legal-hold",), off_serves="off", bucketing="off,on by key", ours=True
    )


@pytest.mark.parametrize(("changes", "told"), ALTERED)
async def test_what_is_not_ours_is_noticed_within_one_tick_pauses_and_is_left_alone(
    world: World, changes: dict[str, Any], told: str
) -> None:
    await climbing(world)
    await edited(world, **changes)
    run = await world.run()
    assert (run.phase, run.exposure, run.status) == ("paused", 1_000, f"{BEHIND}{told}{BY}{ACCEPT}")
    written = list(world.provider.history)
    await world.run_for(3_600.0)
    assert world.provider.history == written, "it is not ours to take away"
    assert await world.run() == run, "said once"
    explained = await world.commands.explain("checkout-v2")
    assert f"- drift: not accepted yet: {told}{BY}" in explained.text


@pytest.mark.parametrize(("changes", "told"), ALTERED)
async def test_a_person_accepts_it_by_resuming_and_the_whole_bake_starts_anew(
    world: World, changes: dict[str, Any], told: str
) -> None:
    await climbing(world)
    await edited(world, **changes)
    await world.commands.resume("checkout-v2", DANA, "it is meant so")
    await world.run_for(30 * 60.0)
    run = await world.run()
    assert (run.phase, run.exposure, run.confirmed) == ("progressing", 1_000, True)
    run = await world.until(10_000)
    assert run.phase == "progressing"
    assert verify(await proof_of(world.store, run.id)).good


async def test_it_pauses_also_while_a_raise_is_not_read_back_yet(world: World) -> None:
    await climbing(world)
    await world.commands.advance("checkout-v2", DANA, "")
    assert not (await world.run()).confirmed
    await edited(world, foreign=("rule legal-hold", "segment beta"))
    run = await world.run()
    assert (run.phase, run.exposure, run.confirmed) == ("paused", 10_000, False)
    await world.run_for(60.0)
    run = await world.run()
    assert (run.phase, run.exposure, run.confirmed) == ("paused", 10_000, True)


async def test_nobody_advances_over_it_by_hand(world: World) -> None:
    await climbing(world)
    world.provider.put(world.plan.spec.flag, replace(world.flag, foreign=("rule legal-hold", "strategy 2")))
    with pytest.raises(Refused, match="strategy 2 appeared"):
        await world.commands.advance("checkout-v2", DANA, "")
    assert world.flag.exposure == 1_000


async def test_a_share_raised_beside_it_is_lowered_once_and_both_are_told(world: World) -> None:
    await climbing(world)
    await edited(world, exposure=80_000, foreign=("rule legal-hold", "strategy 2"))
    run = await world.run()
    assert (run.phase, run.exposure, world.flag.exposure) == ("paused", 1_000, 1_000)
    assert run.status == (
        f"{BEHIND}the provider shows 80 % with the audience rules staff; committed is 1 %{BY}; "
        f"strategy 2 appeared{BY}; lowered again until a person decides"
    )
    written = len(world.provider.history)
    await world.run_for(3_600.0)
    assert len(world.provider.history) == written
    assert (await world.run()).confirmed


async def test_a_start_does_not_go_on_when_the_flag_was_changed_since_it_was_authorised(world: World) -> None:
    await world.apply()
    world.source.sides["off"] = {"total": None, "p95": None}
    await world.commands.start("checkout-v2", DANA, "")
    await edited(world, foreign=("strategy 2",))
    world.source.sides.clear()
    await world.run_for(600.0)
    assert (await world.run()).phase == "pending"
    assert not world.flag.enabled
    explained = await world.commands.explain("checkout-v2")
    assert f"strategy 2 appeared{BY}; abandon and start anew to accept it" in explained.text
    await world.commands.abandon("checkout-v2", DANA, "")
    await world.commands.start("checkout-v2", DANA, "")
    await world.settle()
    assert (await world.run()).phase == "progressing"


async def test_a_provider_that_cannot_be_read_changed_nothing(world: World) -> None:
    await climbing(world)
    world.provider.unreadable = "503"
    await world.run_for(60.0)
    assert (await world.run()).phase == "progressing"


async def test_what_a_kill_left_beside_foreign_rules_is_lowered_when_somebody_turns_it_on(world: World) -> None:
    await climbing(world)
    (receipt,) = await world.commands_kill()
    assert receipt.confirmed_at is not None
    come_back = replace(world.flag, enabled=True, foreign=("rule beta",))
    world.provider.put(world.plan.spec.flag, come_back)
    await world.killer.sweep()
    assert not world.flag.enabled, "at 0 %, and yet the rule may serve the rollout"

    sparing = Serve(rollout="on", fallback="off", kill="fallthrough")
    world.killbook.learn([KnownFlag(plan="checkout-v2", flag=world.plan.spec.flag, serve=sparing)])
    await world.kill_ledger.reset(
        key="checkout-v2", environment=None, provider=None, kill_ids=[receipt.kill_id], actor=DANA, note=""
    )
    (receipt,) = await world.commands_kill()
    world.provider.put(world.plan.spec.flag, come_back)
    await world.killer.sweep()
    assert world.flag == come_back, "the plan wants rules of others to survive a kill"
    world.provider.put(world.plan.spec.flag, replace(come_back, exposure=1))
    await world.killer.sweep()
    assert world.flag.exposure == 0
