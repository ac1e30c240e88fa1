"""`rampart adopt`: a run that begins where people have brought the flag (I1, I2, I3, I19)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from controller.access import Actor
from controller.announcer import recipients
from controller.domain.audit import AuditEntry
from controller.domain.catalogue import Barrier
from controller.domain.flag import FlagState
from controller.domain.proof import verify
from controller.domain.rollout import Accepted
from controller.errors import (
    Conflict,
    Forbidden,
    KillInForce,
    NotFound,
    ProviderUnavailable,
    RaisesBlocked,
    Refused,
)
from tests.support.engine import DANA, World
from tests.support.proofs import edited, proof_of, rehashed
from tests.support.rollouts import make_plan, make_policy


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    one = World(tmp_path)
    yield one
    one.journal.close()


async def raised_by_hand(world: World, **changes: Any) -> None:
    await world.apply()
    served: dict[str, Any] = {"enabled": True, "exposure": 5_000, "off_serves": "off", "foreign": ("rule beta",)}
    world.provider.flags[world.plan.spec.flag] = FlagState(**(served | changes))


async def taken_over(world: World, key: str = "checkout-v2") -> None:
    await world.commands.take_over(key, None, DANA, "")
    await world.settle()


async def test_a_run_begins_at_the_share_that_people_reached_and_writes_nothing(world: World) -> None:
    await raised_by_hand(world, bucketing="by email")
    await taken_over(world)
    run = await world.run()
    assert (run.phase, run.stage, run.exposure, run.audience) == ("progressing", 1, 5_000, False)
    assert run.confirmed
    assert run.accepted == Accepted(foreign=("rule beta",), off_serves="off", bucketing="by email")
    assert world.provider.history == []
    assert [(action, why) for action, why in await world.reasons()] == [
        ("authorise", "checkout-v2 was authorised to take over main/production/checkout-v2"),
        ("take_over", "took the flag over at 5 % by dana"),
        ("confirm", "5 % was read back from the provider"),
    ]


async def test_nothing_rises_before_the_stage_has_baked_in_full_and_then_no_stage_is_skipped(world: World) -> None:
    await raised_by_hand(world)
    await taken_over(world)
    await world.run_for(14 * 60.0)
    assert world.provider.history == [], "10m of bake, after one window of 5m"
    await world.run_for(2 * 60.0)
    assert (world.flag.exposure, world.flag.audience) == (10_000, ("staff",)), "the audience comes with the raise"
    await world.until("completed")
    shares = [state.exposure for _, state in world.provider.history]
    assert shares == [10_000, 50_000, 100_000]
    run = await world.run()
    report = verify(await proof_of(world.store, run.id))
    assert report.good, report
    assert report.exposures == [0, 5_000, 10_000, 50_000, 100_000]


async def test_it_is_watched_from_the_first_tick_on(world: World) -> None:
    await raised_by_hand(world)
    await taken_over(world)
    world.source.sides["on"] = {"p95": 0.4}
    await world.run_for(300.0)
    assert (await world.run()).phase == "killed"
    assert not world.flag.enabled


async def test_a_share_that_changes_behind_it_is_drift_from_then_on(world: World) -> None:
    await raised_by_hand(world)
    await taken_over(world)
    world.provider.flags[world.plan.spec.flag] = replace(world.flag, exposure=9_000)
    await world.run_for(15.0)
    assert ((await world.run()).phase, world.flag.exposure) == ("paused", 5_000)


async def test_what_is_not_ours_is_accepted_and_what_comes_later_is_not(world: World) -> None:
    await raised_by_hand(world)
    await taken_over(world)
    await world.run_for(60.0)
    assert (await world.run()).phase == "progressing"
    world.provider.flags[world.plan.spec.flag] = replace(world.flag, foreign=("rule beta", "rule eu"))
    await world.run_for(15.0)
    assert (await world.run()).phase == "paused"


@pytest.mark.parametrize(("share", "stage"), [(1_000, 0), (1_001, 1), (10_000, 1), (50_000, 2), (100_000, 3)])
async def test_it_counts_as_the_lowest_stage_that_allows_it(world: World, share: int, stage: int) -> None:
    await raised_by_hand(world, exposure=share)
    await taken_over(world)
    run = await world.run()
    assert (run.stage, run.exposure) == (stage, share)


@pytest.mark.parametrize(
    ("shows", "why"),
    [
        ({"enabled": False}, "the flag is off: start the plan instead"),
        ({"exposure": 0}, "the flag exposes nobody: start the plan instead"),
        ({"exposure": 60_000}, "60 % is above the last stage of the plan; lower the flag, or add a stage"),
        (
            {"audience": ("beta",)},
            "of our audience rules it has beta, and the plan has staff; remove them at the provider, or make the "
            "plan say the same",
        ),
    ],
)
async def test_what_cannot_be_taken_over_is_refused_with_the_reason(
    world: World, shows: dict[str, Any], why: str
) -> None:
    world.plan = make_plan(stages=[{"name": "half", "exposure": "50%", "bake": "10m"}])
    await raised_by_hand(world, **shows)
    with pytest.raises(Refused) as refused:
        await world.commands.take_over("checkout-v2", None, DANA, "")
    assert list(refused.value.blocks) == [why]
    assert await world.store.latest_run("checkout-v2") is None


async def test_a_plan_that_only_observes_is_started_and_not_adopted(world: World) -> None:
    world.plan = make_plan(mode="observe")
    await raised_by_hand(world)
    with pytest.raises(Refused) as refused:
        await world.commands.take_over("checkout-v2", None, DANA, "")
    assert list(refused.value.blocks) == ["the plan only observes: start it, and it follows what people do"]


async def test_our_own_audience_is_taken_over_with_the_share(world: World) -> None:
    await raised_by_hand(world, audience=("staff",))
    await taken_over(world)
    run = await world.run()
    assert (run.phase, run.audience) == ("progressing", True)
    assert verify(await proof_of(world.store, run.id)).good


async def test_rules_whose_baseline_nobody_can_measure_any_more_are_named(world: World) -> None:
    await raised_by_hand(world)
    await world.apply(policy=make_policy(baseline={"from": "before", "before": "1h"}))
    await taken_over(world)
    (_, why), *_ = [one for one in await world.reasons() if one[0] == "take_over"]
    assert "web/p95-2x can never be judged in this run: its baseline was not measured when it was time" in why
    await world.run_for(3 * 3600.0)
    assert world.provider.history == [], "and so nothing ever rises by it"


async def test_it_takes_the_right_to_operate_there_and_no_kill_in_force(world: World) -> None:
    await raised_by_hand(world)
    reader = Actor(name="lee", scopes=("read", "author", "kill"))
    with pytest.raises(Forbidden):
        await world.commands.take_over("checkout-v2", None, reader, "")
    await world.commands_kill()
    with pytest.raises(KillInForce):
        await taken_over(world)


async def test_a_flag_that_cannot_be_read_is_not_taken_over(world: World) -> None:
    await raised_by_hand(world)
    world.provider.unreadable = "503"
    with pytest.raises(ProviderUnavailable, match="503"):
        await taken_over(world)


async def test_an_active_run_is_in_the_way_unless_it_only_waits_to_start(world: World) -> None:
    await raised_by_hand(world, enabled=False)
    await world.commands.start("checkout-v2", DANA, "")
    world.provider.flags[world.plan.spec.flag] = replace(world.flag, enabled=True)
    await world.run_for(60.0)
    assert (await world.run()).phase == "pending", "somebody else serves it"
    await taken_over(world)
    run = await world.run()
    assert (run.id, run.phase, run.exposure) == ("checkout-v2#1", "progressing", 5_000)
    assert verify(await proof_of(world.store, run.id)).good
    with pytest.raises(Conflict, match="one active run"):
        await taken_over(world)


async def test_a_flag_is_found_by_its_key_and_two_plans_for_it_must_be_told_apart(world: World) -> None:
    await raised_by_hand(world)
    search = replace(world.plan.spec.flag, key="search")
    world.provider.flags[search] = FlagState(enabled=True, exposure=1_000, off_serves="off")

    async def applied(name: str) -> None:
        plan = make_plan(flag=msgspec.to_builtins(search))
        named = replace(plan, metadata=replace(plan.metadata, name=name))
        await world.store.save_plan(named, world.entry("save_plan"))

    await applied("checkout-again")
    status = await world.commands.take_over("search", "production", DANA, "as it was")
    assert (status.plan, status.reason) == ("checkout-again", "took the flag over at 1 % by dana: as it was")
    await applied("third")
    with pytest.raises(Conflict, match="several plans are for search: checkout-again, third"):
        await world.commands.take_over("search", None, DANA, "")
    with pytest.raises(NotFound, match="in staging"):
        await world.commands.take_over("search", "staging", DANA, "")


async def test_no_proof_is_good_in_which_nobody_took_the_flag_over(world: World) -> None:
    await raised_by_hand(world)
    await taken_over(world)
    proof = await proof_of(world.store, (await world.run()).id)

    def by_nobody(entry: dict[str, Any]) -> None:
        entry["actor"] = "rampart"

    rows = [
        edited(row, by_nobody) if msgspec.json.decode(row.body, type=AuditEntry).action == "take_over" else row
        for row in proof.rows
    ]
    report = verify(rehashed(proof, rows))
    found = [finding.text for check in report.checks for finding in check.findings]
    assert any("only a person takes a flag over" in text for text in found), found


async def test_it_waits_as_every_raise_while_a_kill_may_be_missing_in_the_database(world: World) -> None:
    await raised_by_hand(world)
    barrier = Barrier(id="lost", reason="history was lost", raised_at=world.clock.now())
    await world.store.raise_barrier(barrier, world.entry("raise_barrier"))
    with pytest.raises(RaisesBlocked, match="history was lost"):
        await taken_over(world)
    assert (await world.run()).phase == "pending"
    await world.store.release_raises(world.entry("release_raises"))
    await taken_over(world)
    assert (await world.run()).phase == "progressing"


async def test_whoever_is_told_of_a_start_is_told_of_a_flag_that_was_taken_over(world: World) -> None:
    world.plan = make_plan(notify=[{"to": "oncall", "events": ["started"]}])
    await raised_by_hand(world)
    await taken_over(world)
    rows = await world.store.audit(run=(await world.run()).id)
    entries = [msgspec.json.decode(row.body, type=AuditEntry) for row in rows]
    told = [entry.action for entry in entries if recipients(entry, [world.plan])]
    assert told == ["take_over"]
