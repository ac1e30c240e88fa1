"""A flag that Rampart only observes: what it would have done, beside what people do. Nothing is ever written."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from controller.domain.flag import FlagState
from controller.domain.plan import RolloutPlan
from controller.domain.proof import verify
from controller.domain.status import RunReport
from controller.errors import Refused
from tests.support.engine import DANA, World
from tests.support.proofs import proof_of
from tests.support.rollouts import NOW, make_plan


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    one = World(tmp_path)
    yield one
    one.journal.close()


def observing(world: World, **spec: Any) -> RolloutPlan:
    return make_plan(mode="observe", **({"stages": msgspec.to_builtins(world.plan.spec.stages)} | spec))


async def looking_on(world: World, plan: RolloutPlan | None = None) -> None:
    """People serve it to 1 % before the observation begins."""
    await world.apply(plan or observing(world))
    people(world, enabled=True, exposure=1_000)
    await world.commands.start("checkout-v2", DANA, "")
    await world.settle()


def people(world: World, **changes: Any) -> None:
    """At the provider, without Rampart. What is written by anybody else shows in the history."""
    flag = world.plan.spec.flag
    world.provider.flags[flag] = replace(world.flag, changed_by="erin", changed_at=NOW, **changes)


async def told(world: World) -> list[tuple[str, str, int | None]]:
    return [(line.column, line.text, line.exposure) for line in (await reported(world)).lines]


async def reported(world: World) -> RunReport:
    return await world.commands.report("checkout-v2")


BY = ", last changed by erin at 2026-11-18 12:00:00 UTC"


async def test_it_begins_with_what_people_serve_and_says_what_it_would_have_done(world: World) -> None:
    await looking_on(world)
    assert await told(world) == [
        ("people", "checkout-v2 was authorised to start", None),
        ("people", f"the flag is at 1 % to begin with{BY}", 1_000),
        ("rampart", "would have started at 1 % (canary): all required guardrails pass", 1_000),
    ]
    assert world.provider.history == []


async def test_a_stage_can_only_be_judged_while_people_serve_it_to_as_many(world: World) -> None:
    await looking_on(world)
    await world.run_for(50 * 60.0)
    run = await world.run()
    assert (run.exposure, run.confirmed, run.phase) == (10_000, False, "progressing")
    assert (await told(world))[-1][1].startswith("would have advanced from 1 % to 10 % (early)")
    await world.run_for(8 * 3600.0)
    assert (await world.run()).version == run.version, "it waits for people, and says so once"
    explained = await world.commands.explain("checkout-v2")
    assert "observe: early (10 %) can only be judged once people serve it to as many: people serve it to 1 %" in (
        explained.text
    )
    people(world, exposure=20_000)
    await world.run_for(30.0)
    assert (await told(world))[-1] == ("people", f"people changed the flag from 1 % to 20 %{BY}", 20_000)
    assert (await world.run()).confirmed
    await world.run_for(20 * 60.0)
    assert (await world.run()).exposure == 50_000


async def test_people_who_lower_it_begin_the_bake_anew(world: World) -> None:
    await looking_on(world)
    await world.run_for(30 * 60.0)
    people(world, enabled=False)
    await world.run_for(15.0)
    run, observations = await world.latest()
    assert (run.exposure, run.confirmed, observations.bake) == (1_000, False, 0.0)
    assert (await told(world))[-1] == (
        "people",
        f"people changed the flag from 1 % to off (1 % once it is on){BY}",
        0,
    )
    people(world, enabled=True)
    await world.run_for(30.0)
    run, observations = await world.latest()
    assert (run.exposure, run.confirmed, run.phase) == (1_000, True, "progressing")


async def test_rules_of_people_are_recorded_and_never_a_reason_to_pause(world: World) -> None:
    await looking_on(world)
    people(world, foreign=("segment beta",))
    await world.run_for(15.0)
    assert (await told(world))[-1] == (
        "people",
        f"people changed the flag from 1 % to 1 % beside segment beta{BY}",
        1_000,
    )
    assert (await world.run()).phase == "progressing"


async def test_silence_where_nobody_is_served_is_no_reason_to_pause(world: World) -> None:
    await world.apply(observing(world))
    world.source.sides["on"] = {"total": None, "p95": None}
    await world.commands.start("checkout-v2", DANA, "")
    await world.run_for(4 * 3600.0)
    run = await world.run()
    assert (run.phase, run.exposure, run.confirmed) == ("progressing", 1_000, False)


async def test_a_kill_rule_says_so_kills_nothing_and_goes_on_looking(world: World) -> None:
    await looking_on(world)
    world.source.sides["on"] = {"error_rate": 0.5}
    await world.run_for(300.0)
    run = await world.run()
    assert (run.phase, run.exposure, run.stage) == ("paused", 0, -1)
    column, text, exposure = (await told(world))[-1]
    assert (column, exposure) == ("rampart", 0)
    assert text.startswith("would have been killed by web/errors-jump: error_rate 50 % against a limit of 10 %")
    assert world.killbook.in_force() == []
    assert world.flag.effective_exposure == 1_000
    await world.run_for(3600.0)
    assert (await world.run()).version == run.version, "said once"
    people(world, exposure=500)
    await world.run_for(30.0)
    assert (await world.run()).status == text, "why it is paused stays to be read"
    people(world, exposure=10_000)
    await world.run_for(60.0)
    run = await world.run()
    assert (run.phase, run.exposure) == ("progressing", 1_000), (
        "people went on, and Rampart looks on from its first stage"
    )
    world.source.sides.clear()


async def test_with_the_database_away_nothing_is_killed_either(world: World) -> None:
    await looking_on(world)
    world.source.sides["on"] = {"error_rate": 0.5}
    await world.blind_for(600.0)
    assert world.killbook.in_force() == []


async def test_a_flag_that_is_off_to_begin_with_is_said_to_be_so(world: World) -> None:
    await world.apply(observing(world))
    await world.commands.start("checkout-v2", DANA, "")
    await world.settle()
    assert (await told(world))[1] == ("people", "the flag is off to begin with", 0)
    people(world, enabled=True, exposure=10_000)
    await world.run_for(15.0)
    assert (await told(world))[-1] == ("people", f"people changed the flag from off to 10 %{BY}", 10_000)


async def test_a_pause_ends_when_people_go_on(world: World) -> None:
    await looking_on(world)
    world.source.sides["on"] = {"error_rate": 0.05}
    await world.run_for(20 * 60.0)
    run = await world.run()
    assert run.phase == "paused"
    assert run.status.startswith("would have been ")
    people(world, exposure=500)
    await world.run_for(15.0)
    assert (await world.run()).phase == "paused", "lowering it is no going on"
    people(world, exposure=5_000)
    await world.run_for(15.0)
    assert (await world.run()).phase == "progressing"


async def test_approvals_are_told_and_not_waited_for(world: World) -> None:
    stages = [
        {"name": "canary", "exposure": "1%", "bake": "10m"},
        {"name": "everyone", "exposure": "100%", "bake": "10m", "approval": {"from": ["managers"]}},
    ]
    await looking_on(world, observing(world, stages=stages))
    await world.run_for(30 * 60.0)
    run = await world.run()
    assert run.exposure == 100_000
    assert run.status.endswith("all required guardrails pass, once managers had approved")
    assert run.approval is None


async def test_it_completes_with_people_who_go_all_the_way_and_nothing_was_written(world: World) -> None:
    await looking_on(world)
    for exposure in (10_000, 50_000, 100_000):
        await world.run_for(3600.0)
        people(world, exposure=exposure)
    run = await world.until("completed")
    assert run.status == "would have completed: 100 % baked without a breach"
    assert world.provider.history == []
    report = await reported(world)
    assert report.mode == "observe"
    for stage in report.stages:
        assert stage.rampart_at is not None
        assert stage.people_at is not None
        assert stage.people_at <= stage.rampart_at or stage.exposure > 1_000
    assert verify(await proof_of(world.store, run.id)).good


async def test_a_look_at_a_flag_that_is_not_there_is_refused_as_any_start(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.apply(observing(world))

    async def objections(plan: RolloutPlan) -> list[str]:
        assert plan.spec.mode == "observe", "by which a provider leaves out what is about writing"
        return ["there is no such flag"]

    monkeypatch.setattr(world.provider, "objections", objections)
    with pytest.raises(Refused) as refused:
        await world.commands.start("checkout-v2", DANA, "")
    assert list(refused.value.blocks) == ["there is no such flag"]


async def test_a_provider_that_cannot_be_read_is_neither_people_nor_off(world: World) -> None:
    await looking_on(world)
    lines = await told(world)
    world.provider.unreadable = "503"
    await world.run_for(60.0)
    assert await told(world) == lines
    run = await world.run()
    assert (run.phase, run.confirmed) == ("progressing", True)


async def test_a_report_of_a_run_that_acts_tells_the_same_from_its_rows(world: World) -> None:
    await world.started()
    await world.commands.pause("checkout-v2", DANA, "lunch")
    report = await reported(world)
    assert (report.mode, report.phase) == ("enforce", "paused")
    assert [(line.column, line.action, line.exposure) for line in report.lines] == [
        ("people", "authorise", None),
        ("rampart", "start", 1_000),
        ("people", "pause", None),
    ]
    assert report.stages[0].rampart_at is not None
    assert report.stages[1].rampart_at is None
    assert world.flag == FlagState(enabled=True, exposure=1_000, audience=("staff",), off_serves="off")
