"""The series that alerts rest on: there when something is to be alerted on, and gone when it is not."""

from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from controller.domain.plan import FlagRef
from controller.domain.status import ApprovalStatus
from controller.errors import StoreUnavailable
from controller.lastknown import KnownFlag
from controller.telemetry import KilledFlag, Metrics
from tests.support.engine import DANA, KIM, World
from tests.support.rollouts import make_plan
from tests.support.statuses import NOW, make_rule, make_status
from tests.telemetry.test_metrics import names, scraped, value

RUN = {"rollout": "checkout-v2", "environment": "production"}
FLAG = {**RUN, "provider": "main", "flag": "checkout-v2"}
GATED = make_plan(
    stages=[
        {"name": "canary", "exposure": "1%", "bake": "10m"},
        {"name": "everyone", "exposure": "100%", "bake": "10m", "approval": {"from": ["managers"]}},
    ]
)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def killed(key: str, *, minutes: int = 0) -> KilledFlag:
    flag = FlagRef(provider="main", environment="production", key=key)
    at = NOW + timedelta(minutes=minutes)
    return KilledFlag(flag=flag, rollout="", cause="user", accepted_at=at, confirmed=True)


async def test_a_kill_in_force_is_shown_with_its_rollout_from_its_acceptance_to_its_reset(world: World) -> None:
    await world.started()
    assert "rampart_kill_accepted_timestamp_seconds" not in names(world.metrics)
    accepted = world.clock.now().timestamp()
    (receipt,) = await world.commands_kill()
    await world.killer.retry()
    assert value(world.metrics, "kill_accepted_timestamp_seconds", **FLAG, cause="user") == accepted
    assert value(world.metrics, "kill_confirmed", **FLAG) == 1
    await world.kill_ledger.merge()
    await world.kill_ledger.reset(
        key="checkout-v2",
        environment=None,
        provider=None,
        kill_ids=[receipt.kill_id],
        actor=DANA,
        note="fixed",
    )
    assert "rampart_kill_accepted_timestamp_seconds" not in names(world.metrics)


async def test_a_kill_that_is_not_read_back_is_shown_as_unconfirmed(world: World) -> None:
    await world.started()
    world.provider.unreadable = "it is away"
    await world.commands_kill()
    assert value(world.metrics, "kill_confirmed", **FLAG) == 0


async def test_a_kill_is_shown_again_after_a_restart_as_accepted_when_it_was(world: World) -> None:
    await world.started()
    accepted = world.clock.now().timestamp()
    await world.commands_kill()
    world.clock.elapsed += 3600
    world.restart()
    assert value(world.metrics, "kill_accepted_timestamp_seconds", **FLAG, cause="user") == accepted


async def test_a_flag_that_is_killed_twice_has_one_series_of_the_older_kill(world: World) -> None:
    await world.started()
    accepted = world.clock.now().timestamp()
    await world.commands_kill()
    world.clock.elapsed += 60
    await world.commands_kill()
    found = [number for (name, _), number in scraped(world.metrics).items() if "kill_accepted" in name]
    assert found == [accepted]


async def test_a_flag_is_confirmed_as_off_only_when_each_of_its_kills_is(world: World) -> None:
    await world.started()
    await world.commands_kill()
    assert value(world.metrics, "kill_confirmed", **FLAG) == 1
    world.provider.unreadable = "it is away"
    await world.commands_kill()
    assert value(world.metrics, "kill_confirmed", **FLAG) == 0


async def test_a_killed_flag_that_several_plans_name_is_of_no_rollout(world: World) -> None:
    flag, serve = world.plan.spec.flag, world.plan.spec.serve
    world.killbook.learn([KnownFlag(plan=name, flag=flag, serve=serve) for name in ("checkout-v2", "checkout-v3")])
    await world.commands_kill()
    assert value(world.metrics, "kill_confirmed", **(FLAG | {"rollout": ""})) is not None


def test_of_too_many_killed_flags_the_oldest_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controller.telemetry.kills.MAX_KILLED_FLAGS", 10)
    metrics = Metrics()
    flags = [killed(f"flag-{number}", minutes=-number) for number in range(12)]
    metrics.kills_in_force(lambda: flags)
    shown = {dict(labels)["flag"] for name, labels in scraped(metrics) if name == "rampart_kill_confirmed"}
    assert shown == {f"flag-{number}" for number in range(2, 12)}


async def test_nothing_else_is_shown_of_a_run_that_was_killed_by_a_rule(world: World) -> None:
    await world.started()
    assert value(world.metrics, "rollout_state", **RUN, state="progressing") == 1
    world.source.sides["on"] = {"bad": 900.0}
    await world.until("killed")
    assert not {name for name in names(world.metrics) if "rampart_rollout" in name or "guardrail" in name}


async def test_nothing_else_is_shown_of_a_run_that_was_killed_by_a_person(world: World) -> None:
    await world.started()
    await world.commands_kill()
    world.reconciler.forget_ended()
    assert not {name for name in names(world.metrics) if "rampart_rollout" in name or "guardrail" in name}


async def test_nothing_is_shown_of_a_run_that_a_person_abandoned(world: World) -> None:
    await world.started()
    await world.commands.abandon("checkout-v2", DANA, "")
    assert not {name for name in names(world.metrics) if "rampart_rollout" in name or "guardrail" in name}


async def test_an_approval_is_shown_as_waiting_since_it_was_asked_for_until_it_is_given(world: World) -> None:
    await world.started(GATED)
    waiting = {**RUN, "stage": "everyone"}
    assert value(world.metrics, "approvals_pending") == 0
    while (run := await world.run()).approval is None:
        await world.run_for(30)
    asked = run.approval.requested_at.timestamp()
    assert value(world.metrics, "rollout_approval_requested_timestamp_seconds", **waiting) == asked
    assert value(world.metrics, "approvals_pending") == 1
    await world.commands.approve("checkout-v2", KIM, "")
    await world.run_for(15)
    assert "rampart_rollout_approval_requested_timestamp_seconds" not in names(world.metrics)
    assert value(world.metrics, "approvals_pending") == 0


def test_a_run_that_ended_waits_for_no_approval() -> None:
    metrics = Metrics()
    metrics.run_seen(make_status("checkout-v2#3", approval=ApprovalStatus(stage="half", requested_at=NOW)))
    assert value(metrics, "approvals_pending") == 1
    metrics.run_ended("checkout-v2#3")
    assert value(metrics, "approvals_pending") == 0


def test_what_is_not_known_yet_has_no_series() -> None:
    metrics = Metrics()
    assert not names(metrics) & {"rampart_audit_head_sequence", "rampart_last_tick_timestamp_seconds"}
    metrics.audit_head(0)
    metrics.ticks_begin(NOW)
    metrics.audit_head(7)
    assert value(metrics, "audit_head_sequence") == 7
    assert value(metrics, "last_tick_timestamp_seconds") == NOW.timestamp()


async def test_a_replica_that_never_gets_to_a_tick_is_as_late_as_one_that_stopped(world: World) -> None:
    assert value(world.metrics, "last_tick_timestamp_seconds") == world.clock.now().timestamp()


async def test_raises_are_shown_as_blocked_while_the_database_does_not_answer(world: World) -> None:
    assert value(world.metrics, "raises_blocked") == 1
    await world.presence.check_in()
    assert value(world.metrics, "raises_blocked") == 0
    world.presence.lose(StoreUnavailable("it is away"))
    assert value(world.metrics, "raises_blocked") == 1 == len(world.presence.raises().obstacles)


async def test_a_provider_that_shows_none_of_its_flags_is_not_counted_as_ok(world: World) -> None:
    await world.started()
    labels = {"provider": "main", "operation": "observe"}
    assert value(world.metrics, "provider_requests_total", **labels, result="unknown") is None
    world.provider.unreadable = "it is away"
    answered = value(world.metrics, "provider_requests_total", **labels, result="ok")
    await world.run_for(30)
    assert value(world.metrics, "provider_requests_total", **labels, result="ok") == answered
    assert value(world.metrics, "provider_requests_total", **labels, result="unknown")


def test_a_run_has_at_most_thirty_series_and_ten_more_for_each_of_its_rules() -> None:
    """So that a thousand rollouts of five rules have 80,000 at most, and usually half of that."""

    def series(runs: int, rules: int) -> int:
        metrics = Metrics()
        for number in range(runs):
            asked = ApprovalStatus(stage="half", requested_at=NOW)
            shown = [make_rule(f"rule-{index}", baseline=0.002) for index in range(rules)]
            metrics.run_seen(make_status(f"plan-{number}#1", rules=shown, approval=asked))
            metrics.decision(f"plan-{number}", "production", "advance", "policy")
        return len(scraped(metrics))

    none = series(0, 0)
    assert series(10, 0) - none <= 10 * 30
    assert series(10, 3) - series(10, 0) <= 10 * 3 * 10
    assert series(20, 3) - none == 2 * (series(10, 3) - none)


def test_labels_hold_names_of_settings_and_plans_and_words_of_closed_sets_only() -> None:
    """A reason, a person or a kill's id in a label would make a new series for each."""
    metrics = Metrics()
    metrics.run_seen(make_status("checkout-v2#3", reason="paused by dana: INC-4821"))
    metrics.kills_in_force(lambda: [killed("checkout-v2")])
    text = metrics.render().decode()
    assert not [word for word in ("dana", "INC-4821", "kill-") if word in text]


def test_a_run_that_ends_while_its_series_are_read_leaves_no_half_line_and_no_family_twice() -> None:
    metrics = Metrics()
    for number in range(3):
        metrics.run_seen(make_status(f"plan-{number}#1"))
    text = b""
    for count, piece in enumerate(metrics.pieces()):
        text += piece
        metrics.run_ended(f"plan-{count - 5}#1")
    lines = text.decode().splitlines()
    announced = [line for line in lines if line.startswith("# TYPE")]
    assert len(announced) == len(set(announced))
    assert list(text_string_to_metric_families(text.decode()))
    assert text.endswith(b"\n")
