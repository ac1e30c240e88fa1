"""Whole runs of the unchanged engine in virtual time: the promises, step by step."""

import asyncio
from copy import deepcopy
from pathlib import Path

import msgspec
import pytest

from controller.domain.audit import AuditEntry, verify_chain
from controller.domain.flag import FlagChange, FlagState, SetShare, TurnOn
from controller.errors import Conflict, Forbidden, KillInForce, Refused, StoreUnavailable
from tests.support.engine import DANA, KIM, World, timed_out
from tests.support.rollouts import make_plan


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def exposures(world: World) -> list[int]:
    """Every effective exposure the provider ever showed, without repetitions."""
    shown: list[int] = []
    for _, state in world.provider.history:
        if not shown or shown[-1] != state.effective_exposure:
            shown.append(state.effective_exposure)
    return shown


async def test_a_healthy_release_climbs_every_stage_and_completes(world: World) -> None:
    await world.started()
    await world.until("completed")
    assert exposures(world) == [0, 1_000, 10_000, 50_000, 100_000]
    assert world.flag == FlagState(enabled=True, exposure=100_000, audience=("staff",), off_serves="off")


async def test_each_version_of_a_run_is_one_audit_row_and_the_chain_verifies(world: World) -> None:
    await world.started()
    run = await world.until("completed")
    assert len(await world.store.audit(run=run.id)) == run.version
    assert verify_chain(world.store.chain).problem is None


async def test_a_start_writes_weights_and_rules_first_and_turns_on_last(world: World) -> None:
    await world.started()
    states = [state for _, state in world.provider.history]
    assert states[0] == FlagState(enabled=False, exposure=1_000, audience=("staff",), off_serves="off")
    assert states[1] == FlagState(enabled=True, exposure=1_000, audience=("staff",), off_serves="off")


async def test_every_write_names_run_stage_and_decision_to_whoever_reads_the_providers_history(
    world: World,
) -> None:
    told: list[str] = []

    async def record(change: FlagChange) -> None:
        told.append(change.comment)

    world.provider.before_apply = record
    run = await world.started()
    rows = [msgspec.json.decode(row.body, type=AuditEntry) for row in await world.store.audit(run=run.id)]
    (start,) = [entry for entry in rows if entry.action == "start"]
    named = f"Rampart checkout-v2#1 (canary), decision {start.id}: "
    assert told == [named + start.reason, named + "turned on by its start"]


async def test_stage_raises_never_touch_on_and_off(world: World) -> None:
    await world.started()
    changes: list[FlagChange] = []

    async def record(change: FlagChange) -> None:
        changes.append(change)

    world.provider.before_apply = record
    await world.until("completed")
    assert changes
    assert not [change for change in changes if isinstance(change, TurnOn)]


async def test_a_stage_bakes_its_whole_time_after_the_confirmation_and_one_window(world: World) -> None:
    await world.started()
    confirmed = world.clock.elapsed
    await world.until(10_000)
    assert world.clock.elapsed - confirmed >= 300 + 1800 - 15


async def test_a_breach_pauses_and_says_value_limit_baseline_and_sample(world: World) -> None:
    await world.started()
    await world.until(10_000)
    world.source.sides["on"] = {"error_rate": 0.05}
    run = await world.until("paused")
    assert world.flag.exposure == 10_000
    assert run.status.startswith("paused by web/errors-high: error_rate 5 % against a limit of 1 % for 5m")
    assert "baseline 0.2 %, 1000 requests" in run.status


async def test_a_kill_rule_turns_the_flag_off_for_everyone(world: World) -> None:
    await world.started()
    await world.until(10_000)
    world.source.sides["on"] = {"p95": 0.35}
    run = await world.until("killed")
    assert world.flag == FlagState(enabled=False, exposure=0, off_serves="off")
    assert "latency_p95 350 ms against a limit of 300 ms" in run.status


async def test_an_outage_in_both_arms_pauses_and_kills_nobody(world: World) -> None:
    await world.started()
    await world.until(10_000)
    world.source.sides = {"on": {"error_rate": 0.4}, "off": {"error_rate": 0.4}}
    await world.until("paused")
    assert world.flag.exposure == 10_000


async def test_a_dead_source_changes_no_exposure_and_the_state_says_why(world: World) -> None:
    await world.started()
    await world.until(10_000)
    world.source.failure = "connection refused"
    await world.run_for(3 * 3600)
    run = await world.run()
    assert (run.phase, world.flag.exposure) == ("progressing", 10_000)
    assert "connection refused" in (await world.commands.explain("checkout-v2")).text
    world.source.failure = None
    await world.until(50_000)


async def test_a_suspended_process_does_not_bake_while_it_sleeps(world: World) -> None:
    await world.started()
    world.clock.elapsed += 10_000
    await world.settle()
    assert (await world.run()).exposure == 1_000
    assert (await world.latest())[1].bake <= 60


async def test_a_write_that_timed_out_after_it_landed_is_settled_by_reading_back(world: World) -> None:
    await world.started()

    async def lose_answer(change: FlagChange) -> None:
        raise timed_out()

    world.provider.after_apply = lose_answer
    await world.until(10_000)
    assert (await world.run()).confirmed_exposure == 10_000


async def test_a_write_that_never_landed_is_applied_again_after_settling(world: World) -> None:
    await world.started()
    lost: list[FlagChange] = []

    async def lose_first(change: FlagChange) -> None:
        if len(lost) < 2:
            lost.append(change)
            raise timed_out(not_applied=True)

    world.provider.before_apply = lose_first
    await world.until(10_000)
    assert len(lost) == 2
    assert world.flag.exposure == 10_000


async def test_a_commit_whose_answer_was_lost_is_looked_up_and_then_applied(world: World) -> None:
    await world.started()
    commit = world.store.commit

    async def lose_answers(move):  # type: ignore[no-untyped-def]
        await commit(move)
        raise StoreUnavailable("the answer was lost")

    world.store.commit = lose_answers  # type: ignore[method-assign]
    run = await world.until("completed")
    assert exposures(world) == [0, 1_000, 10_000, 50_000, 100_000]
    assert len(await world.store.audit(run=run.id)) == run.version


async def test_a_flag_raised_by_hand_is_lowered_again_and_paused(world: World) -> None:
    await world.started()
    world.provider.put(world.plan.spec.flag, FlagState(enabled=True, exposure=90_000, audience=("staff",)))
    await world.until("paused")
    await world.run_for(30)
    assert world.flag.exposure == 1_000


async def test_a_flag_turned_off_by_hand_stays_off_and_is_not_resumed(world: World) -> None:
    await world.started()
    world.provider.put(world.plan.spec.flag, FlagState(enabled=False, exposure=1_000, audience=("staff",)))
    await world.until("paused")
    with pytest.raises(Refused, match="only a start turns a flag on"):
        await world.commands.resume("checkout-v2", DANA, "")
    await world.run_for(600)
    assert not world.flag.enabled


async def test_a_resume_adopts_the_lower_exposure_and_skips_no_stage(world: World) -> None:
    await world.started()
    await world.until(50_000)
    world.provider.put(world.plan.spec.flag, FlagState(enabled=True, exposure=5_000, audience=("staff",)))
    await world.until("paused")
    await world.commands.resume("checkout-v2", DANA, "looked at it")
    await world.until("completed")
    assert exposures(world)[-4:] == [5_000, 10_000, 50_000, 100_000]


async def test_a_step_back_lowers_by_one_stage_and_pauses(world: World) -> None:
    await world.started()
    await world.until(50_000)
    await world.commands.step_back("checkout-v2", DANA, "graphs look odd")
    await world.run_for(30)
    run = await world.run()
    assert (run.phase, run.exposure, world.flag.exposure) == ("paused", 10_000, 10_000)
    assert "by dana: graphs look odd" in run.status


async def test_a_step_back_from_the_first_stage_takes_the_audience_out_and_can_rise_again(world: World) -> None:
    await world.started()
    await world.commands.step_back("checkout-v2", DANA, "")
    await world.run_for(30)
    assert (world.flag.exposure, world.flag.audience) == (0, ())
    await world.commands.resume("checkout-v2", DANA, "")
    await world.until(1_000)
    assert world.flag.audience == ("staff",)


async def test_a_manual_advance_waives_the_bake_and_is_refused_while_a_rule_breaches(world: World) -> None:
    await world.started()
    world.source.sides["on"] = {"error_rate": 0.03}
    with pytest.raises(Refused, match="error_rate 3 %"):
        await world.commands.advance("checkout-v2", DANA, "")
    world.source.sides.clear()
    await world.commands.advance("checkout-v2", DANA, "hotfix")
    await world.settle()
    assert world.flag.exposure == 10_000


async def test_a_gated_stage_needs_a_second_person_from_the_group(world: World) -> None:
    plan = make_plan(
        stages=[
            {"name": "a", "exposure": "1%", "bake": "10m"},
            {"name": "b", "exposure": "50%", "bake": "10m", "approval": {"from": ["managers"]}},
            {"name": "c", "exposure": "100%", "bake": "10m"},
        ]
    )
    await world.started(plan)
    await world.run_for(3600)
    assert world.flag.exposure == 1_000
    with pytest.raises(Forbidden, match="in no group"):
        await world.commands.approve("checkout-v2", DANA, "")
    await world.commands.approve("checkout-v2", KIM, "fine")
    await world.until("completed")


async def test_nobody_approves_their_own_plan(world: World) -> None:
    plan = make_plan(
        stages=[
            {"name": "a", "exposure": "1%", "bake": "10m", "approval": {"from": ["managers"]}},
            {"name": "c", "exposure": "100%", "bake": "10m"},
        ]
    )
    await world.apply(plan)
    await world.commands.start("checkout-v2", KIM, "")
    await world.settle()
    with pytest.raises(Forbidden, match="second person"):
        await world.commands.approve("checkout-v2", KIM, "")
    assert world.flag.effective_exposure == 0


async def test_a_start_is_refused_while_the_flag_already_serves_the_rollout(world: World) -> None:
    await world.apply()
    world.provider.put(world.plan.spec.flag, FlagState(enabled=True, exposure=20_000))
    with pytest.raises(Refused, match="already serves on to 20 %"):
        await world.commands.start("checkout-v2", DANA, "")


async def test_a_flag_has_one_active_run(world: World) -> None:
    await world.started()
    with pytest.raises(Conflict, match="one active run"):
        await world.commands.start("checkout-v2", DANA, "")


async def test_a_stale_holder_changes_nothing_in_the_database(world: World) -> None:
    await world.started()
    claims = (await _claims(world))[0]
    world.clock.elapsed += 3600
    world.restart(owner="replica-2")
    await world.tick()
    version = (await world.run()).version
    world.restart(owner="replica-1")
    await world.reconciler.tick([claims])
    run, observations = await world.latest()
    assert run.version == version
    assert observations.run_version <= version


async def _claims(world: World):  # type: ignore[no-untyped-def]
    world.clock.elapsed += 15
    world.make_due((await world.run()).id)
    return (await world.reconciler.claim())[0]


async def test_a_new_holder_goes_on_with_the_bake_and_counts_nothing_for_the_gap(world: World) -> None:
    await world.started()
    await world.run_for(900)
    bake = (await world.latest())[1].bake
    world.clock.elapsed += 5_000
    world.restart(owner="replica-2")
    await world.settle(1)
    assert bake > 500
    assert (await world.latest())[1].bake == bake


# — kills —


async def test_after_a_kill_nothing_of_ours_raises_the_flag_until_a_start(world: World) -> None:
    await world.started()
    await world.until(10_000)
    (receipt,) = await world.commands_kill()
    assert receipt.confirmed_at is not None
    await world.settle()
    await world.run_for(600) if (await world.run()).active else None
    assert (await world.run()).phase == "killed"
    with pytest.raises(KillInForce):
        await world.commands.start("checkout-v2", DANA, "")
    await world.kill_ledger.reset(
        key="checkout-v2", environment=None, provider=None, kill_ids=[receipt.kill_id], actor=DANA, note="fixed"
    )
    assert not world.flag.enabled, "a reset leaves the flag off"
    await world.commands.start("checkout-v2", DANA, "again")
    await world.settle()
    assert (world.flag.enabled, world.flag.exposure) == (True, 1_000)


async def test_a_kill_with_a_raise_in_flight_wins(world: World) -> None:
    await world.started()
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def stall(change: FlagChange) -> None:
        if isinstance(change, SetShare) and change.exposure == 10_000:
            reached.set()
            await go_on.wait()

    world.provider.before_apply = stall
    raising = asyncio.create_task(world.until(10_000))
    await reached.wait()
    killing = asyncio.create_task(world.commands_kill())
    for _ in range(20):
        await asyncio.sleep(0)
    assert not killing.done(), "nothing is confirmed while a write of ours is in flight"
    go_on.set()
    (receipt,) = await killing
    raising.cancel()
    await asyncio.gather(raising, return_exceptions=True)
    await world.killer.retry()
    assert receipt.kill_id
    assert world.flag == FlagState(enabled=False, exposure=0, off_serves="off")


async def test_a_kill_while_the_provider_is_down_is_accepted_and_retried_until_it_is_read_back(
    world: World,
) -> None:
    await world.started()
    world.provider.kill_fault = timed_out()
    (receipt,) = await world.commands_kill()
    assert (receipt.durable, receipt.confirmed_at) == (True, None)
    await world.killer.retry()
    assert world.flag.enabled
    world.provider.kill_fault = None
    await world.killer.retry()
    assert not world.flag.enabled
    assert world.killbook.active()[0].confirmed_at is not None


async def test_a_kill_is_not_called_confirmed_when_the_flag_cannot_be_read_back(world: World) -> None:
    await world.started()
    world.provider.unreadable = "503"
    (receipt,) = await world.commands_kill()
    assert receipt.confirmed_at is None


async def test_a_killed_flag_that_comes_back_up_is_lowered_again(world: World) -> None:
    await world.started()
    await world.commands_kill()
    world.provider.put(world.plan.spec.flag, FlagState(enabled=True, exposure=50_000))
    await world.killer.sweep()
    assert not world.flag.enabled


async def test_a_kill_survives_a_restart_with_a_database_that_forgot_it(world: World) -> None:
    await world.started()
    await world.until(10_000)
    store = world.store
    before = deepcopy((store.rows, store.kills, store.epochs, store.chain, store.sequences))
    await world.commands_kill()
    # A failover to a standby that missed the kill.
    store.rows, store.kills, store.epochs, store.chain, store.sequences = before
    world.restart()
    await world.run_for(15)
    assert not world.flag.enabled, "the journal holds it down before the database has learnt of it"
    await world.kill_ledger.forgotten()
    assert (await world.run()).phase == "killed"


async def test_a_kill_is_recorded_once_however_often_it_is_merged(world: World) -> None:
    await world.started()
    await world.commands_kill()
    for _ in range(3):
        await world.kill_ledger.forgotten()
    assert [action for action, _ in await world.reasons()].count("kill") == 1


async def test_while_the_database_is_away_kill_rules_still_act_and_nothing_rises(world: World) -> None:
    await world.started()
    await world.until(10_000)

    async def away(*_: object, **__: object) -> None:
        raise StoreUnavailable("frozen")

    for method in ("claim_due", "commit", "committed", "record_kill", "active_kills", "save_observations"):
        setattr(world.store, method, away)
    await world.blind_for(3 * 3600)
    assert world.flag.exposure == 10_000
    world.source.sides["on"] = {"p95": 0.4}
    await world.blind_for(300)
    assert not world.flag.enabled
    assert (await world.run()).phase == "progressing", "the database does not know yet"


async def test_more_than_three_automatic_kills_in_ten_minutes_need_a_person(world: World) -> None:
    for number in range(3):
        await world.killer.kill_flag(
            world.plan.spec.flag.__class__(provider="main", environment="production", key=f"f{number}"),
            actor="rampart", reason="r", cause="policy",
        )  # fmt: skip
    await world.started()
    world.source.sides["on"] = {"p95": 0.4}
    run = await world.until("paused")
    assert "a person must look first" in run.status


async def test_an_ended_run_shows_what_the_provider_serves_now(world: World) -> None:
    await world.started()
    await world.until(10_000)
    await world.commands_kill()
    await world.settle()
    status = await world.commands.status("checkout-v2")
    assert (status.phase, status.observed_exposure, status.observed_enabled) == ("killed", 0, False)
    (summary,) = await world.commands.summaries()
    assert summary.observed_exposure == 0


async def test_a_reset_flag_is_remembered_as_off_before_the_journal_forgets_its_kill(world: World) -> None:
    await world.started()
    (receipt,) = await world.commands_kill()
    await world.kill_ledger.reset(
        key="checkout-v2", environment=None, provider=None, kill_ids=[receipt.kill_id], actor=DANA, note=""
    )
    assert world.remembered is not None
    flags, journalled = world.remembered
    assert not flags[world.plan.spec.flag].enabled
    assert receipt.kill_id in journalled
    assert receipt.kill_id not in world.journal.kills
