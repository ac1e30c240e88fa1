"""What follows from a decision: exactly what the provider, the store and the audit log are then told."""

from typing import Any

import pytest

from controller.domain.consequences import (
    approval_request,
    audit_entry,
    observations_after,
    share_of_run,
    state_after,
)
from controller.domain.decide import Decision
from controller.domain.rollout import Action, Timer
from tests.support.rollouts import NOW, baked, breached, make_plan, make_run

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
    assert outside.comment == "Rampart checkout-v2#1: why"
