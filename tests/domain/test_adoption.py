"""Which changes of a rule are called looser or stricter, and that every change of a guardrail is told."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from controller.domain.adoption import (
    GUARDRAIL_WORDS,
    consequences,
    obstacles,
    second_person_because,
    tendency,
)
from controller.domain.binding import BoundRule, Guardrail
from controller.domain.plan import RolloutPlan
from controller.domain.rollout import NOT_STARTED, Observations
from tests.support.rollouts import POLICY, make_guardrails, make_plan, make_run, merged, reading

RULE = {"id": "r", "if": "error_rate > 1%", "for": "5m", "then": "step_back"}
PLAN = make_plan()
RUN = make_run(PLAN, stage=0)


def bound(**changes: Any) -> BoundRule:
    (rule,) = make_guardrails(PLAN, rules=[merged(RULE, changes)])[0].rules
    return rule


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"if": "error_rate > 2%"}, "looser"),
        ({"if": "error_rate > 0.5%"}, "stricter"),
        ({"if": "error_rate < 0.5%"}, ""),
        ({"if": "error_rate >= 2%"}, ""),
        ({"if": "latency_p95 > 2s"}, ""),
        ({"if": "error_rate > 1% and latency_p95 > 1s"}, ""),
        ({"for": "10m"}, "looser"),
        ({"for": "300s"}, ""),
        ({"then": "pause"}, "looser"),
        ({"then": "kill"}, "stricter"),
        ({"mode": "observe"}, "looser"),
        ({"evenIfControlFails": True}, "stricter"),
        ({"floor": "20ms"}, ""),
        ({"if": "error_rate > 2%", "for": "10m"}, "looser"),
        ({"if": "error_rate > 2%", "for": "1m"}, ""),
    ],
)
def test_a_rule_is_called_looser_only_when_no_part_of_it_became_stricter(
    change: dict[str, Any], word: str
) -> None:
    opposite = {"looser": "stricter", "stricter": "looser", "": ""}
    assert tendency(bound(), bound(**change)) == word
    assert tendency(bound(**change), bound()) == opposite[word]


def test_a_limit_below_works_the_other_way_round() -> None:
    one, other = (bound(**{"if": f"error_rate > 1% and baseline(error_rate) < {limit}%"}) for limit in (1, 2))
    assert tendency(one, other) == "stricter"


def test_a_higher_floor_is_looser() -> None:
    one, other = (bound(**{"if": "latency_p95 > 2x baseline", "floor": floor}) for floor in ("20ms", "0.1s"))
    assert tendency(one, other) == "looser"


def test_every_part_of_a_guardrail_has_a_word() -> None:
    assert set(GUARDRAIL_WORDS) | {"policy", "rules"} == set(Guardrail.__struct_fields__)


@given(
    st.lists(st.sampled_from(POLICY["spec"]["rules"]), min_size=1, unique_by=lambda rule: rule["id"]),
    st.lists(st.sampled_from(POLICY["spec"]["rules"]), min_size=1, unique_by=lambda rule: rule["id"]),
    st.sampled_from(["5m", "10m"]),
)
def test_whatever_differs_is_told_and_nothing_is_when_nothing_does(
    one: list[dict[str, Any]], other: list[dict[str, Any]], window: str
) -> None:
    before, after = make_guardrails(PLAN, rules=one), make_guardrails(PLAN, rules=other, window=window)
    because = second_person_because(RUN, (PLAN, before), (PLAN, after))
    assert bool(because) == (before != after)


def because(before: tuple[Guardrail, ...], after: tuple[Guardrail, ...]) -> list[str]:
    return second_person_because(RUN, (PLAN, before), (PLAN, after))


def test_a_changed_rule_is_told_with_what_was_written_before_and_after() -> None:
    before = make_guardrails(PLAN, rules=[RULE])
    after = make_guardrails(PLAN, rules=[merged(RULE, {"for": "10m", "then": "pause"})])
    assert because(before, after) == [
        "changes the step_back rule web/r (then: step_back → pause; for: 5m → 10m; looser)"
    ]


def test_rules_that_only_changed_places_are_told_as_that() -> None:
    both = [RULE, merged(RULE, {"id": "s"})]
    before, after = make_guardrails(PLAN, rules=both), make_guardrails(PLAN, rules=both[::-1])
    assert because(before, after) == ["changes the order or number of the guardrails"]
    assert because(before, before) == []


def test_a_policy_that_comes_or_goes_is_told_with_its_rules() -> None:
    (one,) = make_guardrails(PLAN, rules=[RULE])
    other = replace(one, policy="other", rules=(*one.rules, *one.rules))
    assert because((one,), (one, other)) == ["adds the policy other with 2 rules"]
    assert because((one, other), (other,)) == ["drops the policy web with 1 rule"]


def test_approvals_that_come_or_change_are_told_by_their_stage() -> None:
    plain = _stages()
    asking = [plain[0], {**plain[1], "approval": {"from": ["managers"]}}, *plain[2:]]
    longer = [plain[0], {**plain[1], "approval": {"from": ["managers"], "timeout": "2h"}}, *plain[2:]]
    guardrails = make_guardrails(PLAN)

    def told(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> list[str]:
        plans = make_plan(stages=before), make_plan(stages=after)
        return second_person_because(RUN, (plans[0], guardrails), (plans[1], guardrails))

    assert told(plain, asking) == ["adds an approval before 10 %"]
    assert told(asking, longer) == ["changes the approval before 10 %"]
    assert told(asking, asking) == []


def test_an_approval_behind_the_run_takes_no_second_person() -> None:
    stages = [{**stage, "approval": {"from": ["managers"]}} for stage in _stages()]
    before, after = make_plan(stages=stages), make_plan(stages=[stages[0], *_stages()[1:]])
    guardrails = make_guardrails(PLAN)
    reached = make_run(before, stage=3)
    assert second_person_because(reached, (before, guardrails), (after, guardrails)) == []
    first = make_run(before, stage=0)
    assert second_person_because(first, (before, guardrails), (after, guardrails)) == [
        "removes the approval before 10 %",
        "removes the approval before 50 %",
        "removes the approval before 100 %",
    ]


def against(before: RolloutPlan, after: RolloutPlan, **at: Any) -> list[str]:
    return obstacles(make_run(before, **at), before, after)


def test_a_run_moves_to_a_plan_that_only_differs_ahead_of_it() -> None:
    assert against(PLAN, PLAN, stage=0) == []
    assert against(PLAN, make_plan(stages=_stages()[:1] + _stages()[2:]), stage=0) == []
    assert against(PLAN, make_plan(stages=_stages()[1:]), stage=NOT_STARTED) == []


def test_a_run_does_not_move_to_another_flag_other_variations_or_another_mode() -> None:
    start_anew = "abandon the run and start anew"
    assert against(PLAN, make_plan(flag={"key": "search"}), stage=0) == [
        f"the plan is for another flag, main/production/search; {start_anew}"
    ]
    assert against(PLAN, make_plan(serve={"rollout": "new"}), stage=0) == [
        f"the plan serves other variations; {start_anew}"
    ]
    assert against(PLAN, make_plan(mode="observe"), stage=0) == [f"the mode becomes observe; {start_anew}"]


def test_nobody_is_let_in_or_out_between_two_plans_once_somebody_is_exposed() -> None:
    other = make_plan(audience={"always": []})
    assert PLAN.spec.audience != other.spec.audience
    assert against(PLAN, other, stage=NOT_STARTED) == []
    said = ["the audience changes, and somebody is exposed already; abandon the run and start anew"]
    assert against(PLAN, other, stage=0) == said
    assert against(PLAN, other, stage=NOT_STARTED, audience=True) == said


def test_a_run_that_stands_at_no_stage_of_a_plan_does_not_move_to_it() -> None:
    later = make_plan(stages=_stages()[1:])
    assert against(PLAN, later, stage=0) == [
        f"1 %, where {make_run(PLAN, stage=0).id} is now, is no stage of the plan (10 %, 50 %, 100 %)"
    ]


@pytest.mark.parametrize(
    ("declared", "exposure", "stored", "there"),
    [
        (None, 100_000, "", True),
        ({"from": "control"}, 50_000, "", True),
        ({"from": "control"}, 100_000, "", False),
        ({"from": "control"}, 100_000, "control", True),
        ({"from": "control", "fallback": None}, 100_000, "before", False),
        ({"from": "control", "fallback": "before"}, 100_000, "before", True),
        ({"from": "before"}, 50_000, "", False),
        ({"from": "before"}, 50_000, "before", True),
        ({"from": "before"}, 50_000, "control", False),
    ],
)
def test_a_rule_is_told_to_lack_its_baseline_when_neither_the_control_nor_a_stored_one_is_there(
    declared: dict[str, Any] | None, exposure: int, stored: str, there: bool
) -> None:
    rule = {"id": "r", "if": "error_rate > 2x baseline", "for": "5m", "then": "pause"}
    (guardrail,) = make_guardrails(PLAN, rules=[rule], baseline=declared or {"from": "control"})
    guardrail = guardrail if declared else replace(guardrail, baseline=None)
    run = make_run(PLAN, stage=3 if exposure == 100_000 else 2)
    kept = {f"{guardrail.policy}/error_rate": reading(guardrail.question("error_rate", "off"))}
    if stored:
        run = replace(run, **{f"baselines_{stored}": kept})
    told = consequences(run, PLAN, (PLAN, [guardrail]), Observations())
    lacking = "web/r can never be judged in this run: its baseline was not measured when it was time"
    assert (lacking not in told) is there


def test_a_rule_without_a_baseline_lacks_none() -> None:
    (guardrail,) = make_guardrails(PLAN, rules=[RULE], baseline={"from": "before"})
    run = make_run(PLAN, stage=3)
    assert consequences(run, PLAN, (PLAN, [guardrail]), Observations()) == [
        "the bake of everyone starts anew: none is lost"
    ]


def _stages() -> list[dict[str, Any]]:
    return [{"name": one.name, "exposure": one.exposure, "bake": one.bake} for one in PLAN.spec.stages]
