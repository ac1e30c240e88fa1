"""Which questions a tick asks, and what their answers amount to."""

from typing import Any

import pytest
from msgspec.structs import replace

from controller.domain.assess import (
    assess,
    baseline_readings,
    metrics_used,
    next_is_full,
    nobody_treated,
    poll_seconds,
    questions,
)
from controller.domain.convergence import Convergence
from controller.domain.evidence import Question, Reading
from controller.domain.flag import Unknown
from controller.domain.rollout import ApprovalRequest, Observations, Timer
from tests.support.rollouts import NOW, baked, make_guardrails, make_inputs, make_plan, make_run

PLAN = make_plan()
(WEB,) = make_guardrails(PLAN)
DB = replace(WEB, policy="db", source="other", every_seconds=5.0, window_seconds=600.0, baseline=None)
METRICS = ["error_rate", "latency_p95"]


def asked(variations: list[tuple[str, float | None]]) -> list[Question]:
    return [WEB.question(metric, variation, span) for metric in METRICS for variation, span in variations]


@pytest.mark.parametrize(
    ("stage", "variations"),
    [
        (-1, [("off", None), ("off", 3600.0)]),
        (0, [("on", None), ("off", None)]),
        (1, [("on", None), ("off", None)]),
        (2, [("on", None), ("off", None), ("off", 3600.0)]),
        (3, [("on", None)]),
    ],
)
def test_each_stage_asks_for_what_it_is_judged_by(stage: int, variations: list[tuple[str, float | None]]) -> None:
    assert questions(make_run(PLAN, stage=stage), PLAN, (WEB,)) == {"prom": asked(variations)}


def test_without_a_baseline_nothing_is_asked_of_the_time_before() -> None:
    without = replace(WEB, baseline=None)
    assert questions(make_run(PLAN), PLAN, (without,)) == {"prom": asked([("off", None)])}
    last = [without.question(metric, variation) for metric in METRICS for variation in ("on", "off")]
    assert questions(make_run(PLAN, stage=2), PLAN, (without,)) == {"prom": last}


def test_questions_are_grouped_by_source_and_policies_of_one_source_ask_together() -> None:
    second = replace(WEB, policy="more")
    wanted = questions(make_run(PLAN, stage=3), PLAN, (WEB, DB, second))
    assert list(wanted) == ["prom", "other"]
    assert wanted["prom"] == asked([("on", None)]) * 2
    assert wanted["other"] == [DB.question(metric, "on") for metric in METRICS]


def test_only_metrics_that_a_rule_names_are_asked_for() -> None:
    rules = [{"id": "slow", "if": "latency_p95 > 1s or latency_p95 > 2x baseline", "then": "pause"}]
    (guardrail,) = make_guardrails(PLAN, rules=rules)
    assert metrics_used(guardrail) == ["latency_p95"]
    assert metrics_used(WEB) == METRICS


def test_the_most_frequent_policy_sets_the_pace() -> None:
    assert poll_seconds((WEB, DB)) == 5.0


def test_nobody_is_treated_before_the_first_stage_and_everybody_next_only_before_the_last() -> None:
    runs = [make_run(PLAN, stage=stage) for stage in (-1, 0, 1, 2, 3)]
    assert [nobody_treated(run) for run in runs] == [True, False, False, False, False]
    assert [next_is_full(run, PLAN) for run in runs] == [False, False, False, True, False]
    short = make_plan(stages=[{"name": "a", "exposure": "50%", "bake": "1m"}])
    assert not next_is_full(make_run(short, stage=0), short)


# — the baseline that is kept —


def test_the_baseline_is_the_control_over_the_long_span_and_what_is_unusable_is_named() -> None:
    inputs = make_inputs(make_run(PLAN), PLAN, (WEB,))
    found, missing = baseline_readings(PLAN, (WEB,), inputs)
    hour = {metric: WEB.question(metric, "off", 3600.0) for metric in METRICS}
    read = dict(inputs.readings)
    assert found == {f"web/{metric}": read[hour[metric]] for metric in METRICS}
    assert missing == ()
    gone = [(question, reading) for question, reading in inputs.readings if question != hour["error_rate"]]
    found, missing = baseline_readings(PLAN, (WEB,), replace(inputs, readings=gone))
    assert (list(found), missing) == (["web/latency_p95"], ("web/error_rate",))
    stale = [(question, replace(reading, age_seconds=31.0)) for question, reading in inputs.readings]
    found, missing = baseline_readings(PLAN, (WEB,), replace(inputs, readings=stale))
    assert (found, missing) == ({}, ("web/error_rate", "web/latency_p95"))


def test_a_policy_without_a_baseline_needs_none_and_hides_none_of_another() -> None:
    inputs = make_inputs(make_run(PLAN), PLAN, (WEB,))
    found, missing = baseline_readings(PLAN, (DB, WEB), inputs)
    assert (list(found), missing) == (["web/error_rate", "web/latency_p95"], ())


# — what a tick amounts to —


def test_the_evidence_carries_everything_the_decision_rests_on() -> None:
    run = make_run(PLAN, stage=1)
    inputs = make_inputs(
        run,
        PLAN,
        (WEB,),
        observations=Observations(run_version=1, since_confirmed=1000.0),
        elapsed=100.0,
        automatic_kills=2,
        max_automatic_kills=5,
        obstacles=("a replica is absent",),
        bake_waived=True,
    )
    evidence = assess(run, PLAN, (WEB,), inputs)
    assert [verdict.outcome for verdict in evidence.verdicts] == ["pass"] * 4
    assert evidence.observations == Observations(
        run_version=1, since_confirmed=1030.0, bake=30.0, requests=30.0 * 1000 / 300
    ), "at most two polls are counted"
    assert evidence.convergence == Convergence(difference="none", text="the provider shows what was committed")
    assert (evidence.automatic_kills, evidence.max_automatic_kills) == (2, 5)
    assert (evidence.obstacles, evidence.bake_waived) == (("a replica is absent",), True)
    assert evidence.baselines_missing == ()


def test_the_flag_is_compared_with_the_time_since_the_latest_write() -> None:
    run = make_run(PLAN, stage=1, confirmed_at=None, confirmed_exposure=1_000)
    before = make_inputs(run, PLAN, (WEB,)).observed
    shows = replace(before, exposure=1_000) if not isinstance(before, Unknown) else before
    inputs = make_inputs(run, PLAN, (WEB,), observed=shows, since_apply=6.9, settle_seconds=7.0)
    assert assess(run, PLAN, (WEB,), inputs).convergence.difference == "settling"
    later = replace(inputs, since_apply=7.0)
    assert assess(run, PLAN, (WEB,), later).convergence.difference == "apply_again"


def test_before_a_start_nothing_accumulates_though_the_control_is_judged() -> None:
    silent = make_inputs(
        make_run(PLAN), PLAN, (WEB,), sides={"off": {"total": None}}, observations=baked(silent={"web": Timer(9)})
    )
    evidence = assess(make_run(PLAN), PLAN, (WEB,), silent)
    assert {verdict.outcome for verdict in evidence.verdicts} == {"no_data"}
    assert (evidence.observations.silent, evidence.observations.breached) == ({}, {})


def test_an_approval_waits_only_while_the_schedule_is_open() -> None:
    shut = make_plan(schedule={"advanceOnly": [{"days": "mon-thu", "from": "13:00", "to": "14:00"}]})
    waits = []
    for plan in (PLAN, shut):
        request = ApprovalRequest(id="r", stage=2, plan_revision=1, requested_at=NOW)
        run = make_run(plan, stage=1, approval=request)
        inputs = make_inputs(run, plan, (WEB,), observations=baked(approval_wait=1.0))
        waits.append(assess(run, plan, (WEB,), inputs).observations.approval_wait)
    assert waits == [16.0, 1.0]


def test_a_missing_baseline_matters_only_before_full_exposure() -> None:
    for stage, missing in ((1, ()), (2, ("web/error_rate", "web/latency_p95"))):
        run = make_run(PLAN, stage=stage)
        inputs = make_inputs(run, PLAN, (WEB,))
        short = [
            (question, reading)
            for question, reading in inputs.readings
            if question not in asked([("off", 3600.0)])
        ]
        assert assess(run, PLAN, (WEB,), replace(inputs, readings=short)).baselines_missing == missing


# — what `baseline` means —

BEFORE = {f"web/{metric}": Reading(query="before", value=0.05, bad=25.0, total=5000.0) for metric in METRICS}
STORED = {f"web/{metric}": Reading(query="stored", value=0.04, bad=20.0, total=4000.0) for metric in METRICS}


def baseline_of(
    run_changes: dict[str, Any], policy: dict[str, Any] | None = None, *, stage: int = 1, **sides: Any
) -> tuple[float | None, float | None]:
    """Of error_rate and of latency_p95."""
    (guardrail,) = make_guardrails(PLAN, **(policy or {}))
    run = make_run(PLAN, stage=stage, **run_changes)
    inputs = make_inputs(run, PLAN, (guardrail,), sides=sides, observations=baked())
    found = {verdict.metric: verdict.baseline for verdict in assess(run, PLAN, (guardrail,), inputs).verdicts}
    return found["error_rate"], found["latency_p95"]


FALLS_BACK = {"baseline": {"from": "control", "fallback": "before", "before": "1h"}}
NEVER_FALLS_BACK = {"baseline": {"from": "control", "fallback": None, "before": "1h"}}
FROM_BEFORE = {"baseline": {"from": "before", "fallback": None, "before": "1h"}}


def test_the_baseline_is_the_control_now_and_where_it_is_unusable_the_time_before() -> None:
    both = {"baselines_before": BEFORE, "baselines_control": STORED}
    assert baseline_of(both, FALLS_BACK) == (0.002, 0.1)
    assert baseline_of(both, FALLS_BACK, off={"p95": None}) == (0.002, 0.05)
    assert baseline_of(both, FALLS_BACK, off={"total": None}) == (0.005, 0.05)
    assert baseline_of(both, NEVER_FALLS_BACK, off={"total": None}) == (None, None)
    assert baseline_of({}, FALLS_BACK, off={"total": None}) == (None, None)


def test_from_before_means_the_time_before_at_every_stage() -> None:
    both = {"baselines_before": BEFORE, "baselines_control": STORED}
    assert baseline_of(both, FROM_BEFORE) == (0.005, 0.05)
    assert baseline_of(both, FROM_BEFORE, stage=3) == (0.005, 0.05)


def test_at_full_exposure_the_control_is_the_one_that_was_stored_and_then_the_time_before() -> None:
    both = {"baselines_before": BEFORE, "baselines_control": STORED}
    assert baseline_of(both, FALLS_BACK, stage=3) == (0.005, 0.04)
    assert baseline_of({"baselines_before": BEFORE}, FALLS_BACK, stage=3) == (0.005, 0.05)
    assert baseline_of({"baselines_before": BEFORE}, NEVER_FALLS_BACK, stage=3) == (None, None)


def test_without_a_declared_baseline_there_is_none() -> None:
    rules = [
        {"id": "e", "if": "error_rate > 1%", "then": "pause"},
        {"id": "p", "if": "latency_p95 > 1s", "then": "pause"},
    ]
    assert baseline_of({"baselines_before": BEFORE}, {"baseline": None, "rules": rules}) == (None, None)


def start_baseline(run_changes: dict[str, Any], policy: dict[str, Any], spans: dict[float | None, float]) -> Any:
    """What latency is compared with before a start; `spans` are the control's latencies over its windows."""
    (guardrail,) = make_guardrails(PLAN, **policy)
    run = make_run(PLAN, **run_changes)
    inputs = make_inputs(run, PLAN, (guardrail,))
    answers = {
        guardrail.question("latency_p95", "off", span): Reading(
            query=str(span), value=value, total=1e4, age_seconds=1.0
        )
        for span, value in spans.items()
    }
    inputs = replace(inputs, readings=list((dict(inputs.readings) | answers).items()))
    return next(v for v in assess(run, PLAN, (guardrail,), inputs).verdicts if v.rule == "p95-2x")


def test_before_a_start_the_control_is_compared_with_its_own_last_hour() -> None:
    verdict = start_baseline({}, FALLS_BACK, {None: 0.3, 3600.0: 0.1})
    assert (verdict.value, verdict.baseline, verdict.outcome, verdict.control_fails) == (0.3, 0.1, "breach", True)


def test_before_a_start_a_baseline_that_is_stored_already_is_used() -> None:
    verdict = start_baseline({"baselines_before": BEFORE}, FALLS_BACK, {None: 0.09, 3600.0: 0.01})
    assert (verdict.baseline, verdict.outcome) == (0.05, "pass")


def test_before_a_start_without_a_last_hour_the_control_is_its_own_baseline() -> None:
    (guardrail,) = make_guardrails(PLAN, **FALLS_BACK)
    run = make_run(PLAN)
    inputs = make_inputs(run, PLAN, (guardrail,))
    hour = guardrail.question("latency_p95", "off", 3600.0)
    short = [(question, reading) for question, reading in inputs.readings if question != hour]
    found = assess(run, PLAN, (guardrail,), replace(inputs, readings=short)).verdicts
    assert [(v.rule, v.baseline) for v in found if v.metric == "latency_p95"] == [("p95-2x", 0.1), ("p95-3x", 0.1)]


def test_a_stored_reading_is_not_too_old_and_must_be_large_enough_all_the_same() -> None:
    old = {name: replace(reading, age_seconds=1e9) for name, reading in BEFORE.items()}
    assert baseline_of({"baselines_before": old}, FROM_BEFORE) == (0.005, 0.05)
    few = {name: replace(reading, total=199.0) for name, reading in BEFORE.items()}
    assert baseline_of({"baselines_before": few}, FROM_BEFORE) == (None, None)


def test_a_breach_asks_the_control_against_the_time_before_whether_it_fails_too() -> None:
    run = make_run(PLAN, stage=1, baselines_before=BEFORE)
    slow = {"on": {"p95": 0.5}, "off": {"p95": 0.2}}
    inputs = make_inputs(run, PLAN, (WEB,), sides=slow, observations=baked())
    found = {v.rule: v for v in assess(run, PLAN, (WEB,), inputs).verdicts}
    assert (found["p95-2x"].outcome, found["p95-2x"].control_fails) == ("breach", True)
