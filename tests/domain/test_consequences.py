"""What follows from a decision: exactly what the provider, the store and the audit log are then told."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from controller.domain.assess import assess
from controller.domain.audit import AuditEntry
from controller.domain.consequences import (
    approval_request,
    audit_entry,
    basis,
    observations_after,
    share_of_run,
    state_after,
)
from controller.domain.decide import Decision
from controller.domain.flag import SetShare
from controller.domain.rollout import Accepted, Action, ApprovalRequest, Observations, Timer
from tests.support.rollouts import FLAG, NOW, baked, breached, make_guardrails, make_inputs, make_plan, make_run

PLAN = make_plan()


def decision(action: Action, **changes: Any) -> Decision:
    run = make_run(PLAN, stage=1)
    values: dict[str, Any] = {
        "action": action,
        "cause": "policy",
        "text": "because",
        "stage": run.stage,
        "exposure": run.exposure,
        "audience": run.audience,
    }
    return Decision(**(values | changes))


def test_a_raise_is_unconfirmed_until_it_is_read_back() -> None:
    after = state_after(make_run(PLAN, stage=1), decision("advance", stage=2, exposure=50_000), NOW, {})
    assert (after.exposure, after.confirmed_at, after.confirmed_exposure) == (50_000, None, 10_000)
    confirmed = state_after(after, decision("confirm", stage=2, exposure=50_000), NOW, {})
    assert (confirmed.confirmed_at, confirmed.confirmed_exposure, confirmed.turned_on) == (NOW, 50_000, True)


def test_a_confirmation_keeps_the_reason_of_the_step_it_confirms() -> None:
    run = make_run(PLAN, stage=1, status="advanced from 1 % to 10 %")
    assert state_after(run, decision("confirm"), NOW, {}).status == "advanced from 1 % to 10 %"


@pytest.mark.parametrize("action", ["complete", "abandon", "kill"])
def test_an_end_has_a_time(action: Action) -> None:
    assert state_after(make_run(PLAN, stage=1), decision(action), NOW, {}).ended_at == NOW


def test_every_step_counts_one_version() -> None:
    run = make_run(PLAN, stage=1)
    assert state_after(run, decision("pause"), NOW, {}).version == run.version + 1


def test_a_step_takes_back_the_approval_that_was_asked_for_before_it() -> None:
    run = make_run(PLAN, stage=1, approval=approval_request("r1", make_run(PLAN, stage=1), PLAN, NOW))
    assert run.approval is not None
    assert run.approval.stage == 2
    for action in ("advance", "step_back", "pause"):
        assert state_after(run, decision(action), NOW, {}).approval is None


def test_a_change_of_exposure_clears_the_bake_and_keeps_the_timers_of_breaches() -> None:
    grown = baked(breached=breached(p95_3x=60), silent={"web": Timer(5)})
    changed = observations_after(decision("advance"), grown, changed=True, version=7)
    assert (changed.bake, changed.run_version, changed.silent) == (0.0, 7, {})
    assert changed.breached == grown.breached
    assert observations_after(decision("pause"), grown, changed=False, version=7).bake == grown.bake


def test_a_resumed_or_adopted_run_bakes_anew() -> None:
    for action in ("resume", "adopt"):
        assert observations_after(decision(action), baked(), changed=False, version=7).bake == 0.0


def test_the_entry_names_where_from_where_to_by_which_rule_and_revisions() -> None:
    run = make_run(PLAN, stage=1)
    after = state_after(run, decision("step_back", stage=0, exposure=1_000), NOW, {})
    entry = audit_entry("e1", run, after, decision("step_back", rule="web/p95-2x"), "rampart", NOW, {"more": 1})
    assert (entry.id, entry.run_version, entry.actor, entry.reason) == ("e1", after.version, "rampart", "because")
    assert entry.details["from"] == {"phase": "progressing", "stage": 1, "exposure": 10_000}
    assert entry.details["to"] == {"phase": "paused", "stage": 0, "exposure": 1_000}
    assert (entry.details["rule"], entry.details["more"]) == ("web/p95-2x", 1)
    assert entry.details["policy_revisions"] == {"web": 1}


def test_the_flag_is_asked_for_weights_and_for_our_audience_only_while_it_is_in() -> None:
    inside = share_of_run(make_run(PLAN, stage=1), PLAN, "why")
    assert (inside.exposure, [rule.name for rule in inside.audience]) == (10_000, ["staff"])
    outside = share_of_run(make_run(PLAN, stage=0, audience=False, exposure=0), PLAN, "why")
    assert (outside.exposure, outside.audience) == (0, ())
    assert outside.comment == "Rampart checkout-v2#1 (canary), decision version 1: why"


# — the whole of what is committed, field by field —

LATER = NOW + timedelta(hours=1)
REQUEST = ApprovalRequest(id="r1", stage=2, plan_revision=1, requested_at=NOW)


@pytest.mark.parametrize(
    ("action", "phase"),
    [("advance", "progressing"), ("step_back", "paused"), ("lower", "paused")],
)
def test_a_step_commits_its_aim_and_its_reason_and_awaits_its_confirmation(action: Action, phase: Any) -> None:
    run = make_run(PLAN, stage=1, approval=REQUEST, version=4)
    step = decision(action, stage=0, exposure=1_000, audience=False, text="why")
    assert state_after(run, step, LATER, {}) == replace(
        run,
        phase=phase,
        stage=0,
        exposure=1_000,
        audience=False,
        status="why",
        committed_at=LATER,
        confirmed_at=None,
        approval=None,
        version=5,
    )


def test_a_start_commits_as_every_other_step_does() -> None:
    run = make_run(PLAN)
    after = state_after(run, decision("start", stage=0, exposure=1_000), LATER, {"kill_epoch": 7})
    assert (after.phase, after.committed_at, after.confirmed_at, after.kill_epoch) == (
        "progressing",
        LATER,
        None,
        7,
    )


def test_a_confirmation_changes_only_what_is_confirmed() -> None:
    run = make_run(
        PLAN, stage=1, confirmed_at=None, confirmed_exposure=None, confirmed_audience=False, turned_on=False
    )
    run = replace(run, status="advanced", approval=REQUEST)
    assert state_after(run, decision("confirm"), LATER, {}) == replace(
        run,
        confirmed_at=LATER,
        confirmed_exposure=10_000,
        confirmed_audience=True,
        turned_on=True,
        version=2,
    )


def test_a_run_was_turned_on_once_anything_above_zero_was_read_back_and_stays_so() -> None:
    zero = {"exposure": 0, "audience": False, "confirmed_at": None}
    never = make_run(PLAN, stage=0, turned_on=False, **zero)
    once = make_run(PLAN, stage=0, turned_on=True, **zero)
    least = make_run(PLAN, stage=0, turned_on=False, confirmed_at=None, exposure=1)
    nobody = decision("confirm", exposure=0)
    assert not state_after(never, nobody, LATER, {}).turned_on
    assert state_after(once, nobody, LATER, {}).turned_on
    assert state_after(least, decision("confirm", exposure=1), LATER, {}).turned_on


def test_a_request_for_approval_is_kept_and_nothing_else_moves() -> None:
    run = make_run(PLAN, stage=1)
    after = state_after(run, decision("request_approval"), LATER, {"approval": REQUEST})
    assert after == replace(run, approval=REQUEST, status="because", version=2)


def test_a_pause_takes_back_the_approval_and_unconfirms_only_a_changed_exposure() -> None:
    run = make_run(PLAN, stage=1, approval=REQUEST)
    paused = replace(run, phase="paused", status="because", approval=None, version=2)
    assert state_after(run, decision("pause"), LATER, {}) == paused
    lower = decision("pause", stage=0, exposure=500)
    assert state_after(run, lower, LATER, {}) == replace(
        paused, stage=0, exposure=500, committed_at=LATER, confirmed_at=None
    )


def test_other_actions_move_neither_confirmation_nor_approval() -> None:
    run = make_run(PLAN, stage=1, approval=REQUEST, phase="paused")
    after = state_after(run, decision("resume"), LATER, {})
    assert after == replace(run, phase="progressing", status="because", version=2)


def test_what_comes_from_elsewhere_wins_over_what_the_decision_says() -> None:
    after = state_after(make_run(PLAN, stage=1), decision("pause"), NOW, {"status": "as a person wrote"})
    assert after.status == "as a person wrote"


def test_the_accumulators_after_each_kind_of_decision() -> None:
    grown = baked(approval_wait=9.0, breached=breached(p95_3x=60), silent={"web": Timer(5)})
    asked = observations_after(decision("request_approval"), grown, changed=False, version=7)
    assert asked == replace(grown, approval_wait=0.0, run_version=7)
    confirmed = observations_after(decision("confirm"), grown, changed=True, version=7)
    assert confirmed == replace(
        grown, since_confirmed=0.0, bake=0.0, requests=0.0, silent={}, failing={}, run_version=7
    )
    assert observations_after(decision("pause"), grown, changed=False, version=7) == replace(grown, run_version=7)
    changed = observations_after(decision("pause"), grown, changed=True, version=7)
    assert changed == Observations(run_version=7, breached=grown.breached)


def test_an_audit_entry_is_complete() -> None:
    run = make_run(PLAN, stage=1, plan_revision=3)
    after = replace(run, phase="paused", stage=0, exposure=1_000, version=8)
    made = audit_entry("e1", run, after, decision("step_back", cause="drift"), "dana", LATER, {"more": 1})
    assert made == AuditEntry(
        id="e1",
        at=LATER,
        actor="dana",
        action="step_back",
        cause="drift",
        subject="checkout-v2#1",
        environment="production",
        reason="because",
        run="checkout-v2#1",
        run_version=8,
        flag="main/production/checkout-v2",
        details={
            "from": {"phase": "progressing", "stage": 1, "exposure": 10_000},
            "to": {"phase": "paused", "stage": 0, "exposure": 1_000},
            "plan_revision": 3,
            "policy_revisions": {"web": 1},
            "more": 1,
        },
    )


def test_the_basis_of_a_decision_is_all_it_can_be_made_again_from() -> None:
    run, guardrails = make_run(PLAN, stage=1), make_guardrails(PLAN)
    inputs = make_inputs(run, PLAN, guardrails)
    evidence = assess(run, PLAN, guardrails, inputs)
    assert basis(run, inputs, evidence) == {
        "verdicts": tuple(msgspec.to_builtins(verdict) for verdict in evidence.verdicts),
        "run": msgspec.to_builtins(run),
        "inputs": msgspec.to_builtins(inputs),
    }


def test_the_share_that_is_asked_for_is_complete() -> None:
    plan = make_plan(audience={"bucketBy": "account"})
    assert share_of_run(make_run(plan, stage=1), plan, "why") == SetShare(
        flag=FLAG,
        serve=plan.spec.serve,
        exposure=10_000,
        audience=tuple(plan.spec.audience.always),
        bucket_by="account",
        comment="Rampart checkout-v2#1 (early), decision version 1: why",
    )


def test_an_approval_is_requested_for_the_next_stage_under_the_plan_as_it_is() -> None:
    request = approval_request("r9", make_run(PLAN, stage=1, plan_revision=3), PLAN, LATER)
    assert request == ApprovalRequest(id="r9", stage=2, plan_revision=3, requested_at=LATER)


def test_a_run_that_moved_to_another_revision_may_bucket_otherwise_with_its_next_write() -> None:
    accepted = Accepted(foreign=("rule a",), bucketing="by key", ours=True)
    run = make_run(PLAN, stage=0, accepted=accepted)
    moved = state_after(run, decision("adopt"), NOW, {})
    assert moved.accepted == replace(accepted, ours=False)
    written = state_after(moved, decision("advance"), NOW, {})
    assert written.accepted == replace(accepted, bucketing="")
    assert state_after(make_run(PLAN, stage=0), decision("adopt"), NOW, {}).accepted is None
