"""Freezes of the organisation: whom they cover, and what a decision makes of them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from controller.domain.assess import Inputs, assess_and_decide
from controller.domain.freezes import OrganisationFreeze
from controller.domain.plan import AllowedWindow, Freeze, Schedule
from controller.domain.rollout import ApprovalRequest
from controller.domain.schedule import closed
from controller.domain.selector import fits, selector, selector_text
from tests.support.rollouts import NOW, baked, breached, make_guardrails, make_inputs, make_plan, make_run

NOON = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)  # a Friday


def freeze(**values: Any) -> OrganisationFreeze:
    return OrganisationFreeze(
        **{
            "name": "black-friday",
            "starts_at": NOON - timedelta(days=1),
            "ends_at": datetime(2026, 12, 1, 7, 0, tzinfo=UTC),
            "timezone": "Europe/Berlin",
            "added_by": "dana",
            "added_at": NOON - timedelta(days=9),
            "reason": "the shop is full",
            **values,
        }
    )


def test_a_freeze_says_its_name_its_end_where_it_was_written_and_who_added_it() -> None:
    shut = closed(Schedule(), NOON, [freeze()])
    assert shut is not None
    assert shut.why == "frozen: black-friday, until 2026-12-01 08:00 Europe/Berlin, by dana"
    assert shut.opens_at == freeze().ends_at


def test_a_freeze_holds_from_its_start_to_before_its_end() -> None:
    one = freeze()
    assert not one.holds(one.starts_at - timedelta(seconds=1))
    assert one.holds(one.starts_at)
    assert one.holds(one.ends_at - timedelta(seconds=1))
    assert not one.holds(one.ends_at)


def test_a_lifted_freeze_holds_nothing() -> None:
    assert closed(Schedule(), NOON, [freeze(lifted_at=NOON)]) is None


def test_it_opens_when_the_last_of_several_is_over_and_the_plan_allows_it() -> None:
    office = AllowedWindow(days="mon-thu", from_="09:00", to="16:00")
    later = freeze(name="audit", starts_at=datetime(2026, 11, 30, tzinfo=UTC), ends_at=NOON + timedelta(days=5))
    own = Freeze(name="own", from_="2026-12-02", to="2026-12-03T10:00")
    shut = closed(Schedule(advance_only=[office], freezes=[own]), NOON, [freeze(), later])
    assert shut is not None
    assert shut.opens_at == datetime(2026, 12, 3, 10, 0, tzinfo=UTC)


def test_of_several_that_hold_the_one_that_lasts_longest_is_named() -> None:
    longer = freeze(name="year-end", ends_at=datetime(2027, 1, 7, tzinfo=UTC))
    shut = closed(Schedule(), NOON, [freeze(), longer])
    assert shut is not None
    assert shut.why.startswith("frozen: year-end")


@pytest.mark.parametrize(
    ("environments", "labels", "covered"),
    [
        ((), {}, True),
        (("production",), {}, True),
        (("staging", "production"), {"tier": "1"}, True),
        (("staging",), {}, False),
        ((), {"tier": "2"}, False),
        ((), {"tier": "1", "team": "checkout"}, True),
        ((), {"tier": "1", "team": "search"}, False),
        ((), {"region": "eu"}, False),
    ],
)
def test_a_freeze_covers_a_plan_where_environment_and_all_labels_fit(
    environments: tuple[str, ...], labels: dict[str, str], covered: bool
) -> None:
    plan = {"tier": "1", "team": "checkout"}
    assert freeze(environments=environments, labels=labels).covers("production", plan) is covered


def test_it_is_enough_that_the_plan_as_it_stands_now_fits() -> None:
    assert freeze(labels={"tier": "1"}).covers("production", {}, {"tier": "1"})


def test_a_selector_is_labels_with_values() -> None:
    assert selector("tier=1, team = checkout") == {"team": "checkout", "tier": "1"}
    assert selector_text(selector("tier=1,team=checkout")) == "team=checkout,tier=1"
    assert fits({}, {"tier": "1"})


@pytest.mark.parametrize("text", ["", "tier", "tier=", "=1", "tier=1,,team=x", "tier=1,tier=2"])
def test_what_is_no_selector_is_refused_and_selects_nothing(text: str) -> None:
    with pytest.raises(ValueError, match=r"label=value|at the same time"):
        selector(text)


@pytest.mark.parametrize("stage", [-1, 0])
def test_the_record_of_a_decision_says_by_which_freeze_it_was_held(stage: int) -> None:
    """Made again offline without the freeze it would have raised (promise I18)."""
    plan = make_plan()
    rules, run = make_guardrails(plan), make_run(plan, stage=stage)
    inputs = make_inputs(run, plan, rules, observations=baked())
    assert assess_and_decide(run, plan, rules, inputs)[1].action in ("start", "advance")
    frozen = replace(inputs, freezes=(freeze(starts_at=inputs.now),))
    held = assess_and_decide(run, plan, rules, msgspec.convert(msgspec.to_builtins(frozen), Inputs))[1]
    assert held.action == "hold"
    assert [block.code for block in held.blocks] == ["schedule"]
    assert held.blocks[0].clears_at == freeze().ends_at


def test_a_freeze_keeps_no_rule_from_pausing_or_killing() -> None:
    plan = make_plan()
    rules, run = make_guardrails(plan), make_run(plan, stage=1)
    for rate, action in ((0.05, "pause"), (0.2, "kill")):
        timers = baked(breached=breached(errors_high=300, errors_jump=120))
        sides = {"on": {"error_rate": rate}}
        inputs = make_inputs(run, plan, rules, observations=timers, sides=sides, freezes=(freeze(starts_at=NOW),))
        assert assess_and_decide(run, plan, rules, inputs)[1].action == action


def test_a_request_for_approval_opens_in_a_freeze_and_its_time_does_not_run() -> None:
    plan = make_plan(
        stages=[
            {"name": "all", "exposure": "100%", "bake": "1h", "approval": {"from": ["managers"], "timeout": "1h"}}
        ]
    )
    rules, run = make_guardrails(plan), make_run(plan)
    inputs = make_inputs(run, plan, rules, observations=baked(), freezes=(freeze(starts_at=NOW),))
    assert assess_and_decide(run, plan, rules, inputs)[1].action == "request_approval"
    asked = replace(run, approval=ApprovalRequest(id="1", stage=0, plan_revision=1, requested_at=NOW))
    frozen, decision = assess_and_decide(asked, plan, rules, inputs)
    assert decision.action == "hold"
    assert frozen.observations.approval_wait == 0.0
    assert assess_and_decide(asked, plan, rules, replace(inputs, freezes=()))[0].observations.approval_wait > 0
