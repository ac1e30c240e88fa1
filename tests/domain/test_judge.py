"""Silence, NaN, age and failure are settled once (I1, I10, I12)."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.assess import assess
from controller.domain.evidence import Reading, Verdict
from controller.domain.judge import Side, judge, settle
from controller.domain.policy import MetricShape
from tests.support.rollouts import baked, make_guardrails, make_inputs, make_plan, make_run

PLAN = make_plan()


def settled(shape: MetricShape, **values: Any) -> tuple[str | None, float | None]:
    side = settle(Reading(query="q", **values), shape, min_sample=100, stale_after=30.0)
    return side.problem, side.value


def verdicts(policy: dict[str, Any] | None = None, *, stage: int = 1, **inputs: Any) -> dict[str, Verdict]:
    run, guardrails = make_run(PLAN, stage=stage), make_guardrails(PLAN, **(policy or {}))
    evidence = assess(run, PLAN, guardrails, make_inputs(run, PLAN, guardrails, observations=baked(), **inputs))
    return {verdict.rule: verdict for verdict in evidence.verdicts}


def test_silence_is_no_data_not_a_pass() -> None:
    assert settled("ratio", total=None) == ("no_data", None)
    assert settled("quantile", value=None, total=None) == ("no_data", None)
    assert settled("query", value=None) == ("no_data", None)


def test_a_missing_numerator_with_traffic_is_zero_and_without_traffic_is_no_data() -> None:
    assert settled("ratio", total=500.0, age_seconds=1.0) == (None, 0.0)
    assert settled("ratio", total=None, bad=None) == ("no_data", None)


def test_a_dead_target_whose_rate_keeps_answering_is_no_data() -> None:
    assert settled("ratio", total=500.0, bad=0.0, age_seconds=31.0)[0] == "no_data"
    assert settled("ratio", total=500.0, bad=0.0, age_seconds=30.0)[0] is None


def test_an_unknown_age_is_not_fresh() -> None:
    assert settled("ratio", total=500.0, bad=0.0)[0] == "no_data"
    assert settled("ratio", total=500.0, bad=0.0, age_seconds=math.nan)[0] == "no_data"


def test_what_a_raw_query_gives_is_stale_when_its_age_is_known_to_be() -> None:
    assert settled("query", value=3.0, age_seconds=31.0)[0] == "no_data"
    assert settled("query", value=3.0, age_seconds=math.nan)[0] == "no_data"
    assert settled("query", value=3.0, age_seconds=30.0) == (None, 3.0)
    assert settled("query", value=3.0) == (None, 3.0)


def test_too_small_a_sample_is_too_few_and_zero_traffic_too() -> None:
    assert settled("ratio", total=99.0, bad=0.0, age_seconds=1.0)[0] == "too_few"
    zero = settle(Reading(query="q", total=0.0, age_seconds=1.0), "ratio", min_sample=0, stale_after=30.0)
    assert zero.problem == "too_few"


def test_two_series_are_no_verdict() -> None:
    assert settled("query", value=1.0, series=2)[0] == "error"


def test_a_failure_is_an_error_whatever_else_is_in_the_reading() -> None:
    assert settled("ratio", total=500.0, bad=0.0, age_seconds=1.0, failure="503")[0] == "error"


@given(st.builds(Reading, query=st.just("q"), value=st.none() | st.floats(), bad=st.none() | st.floats(),
                 total=st.none() | st.floats(), age_seconds=st.none() | st.floats(), series=st.integers(0, 3),
                 failure=st.none() | st.just("x")), st.sampled_from(["ratio", "quantile", "query"]))  # fmt: skip
def test_only_a_finite_number_is_ever_compared(reading: Reading, shape: MetricShape) -> None:
    side = settle(reading, shape, min_sample=100, stale_after=30.0)
    assert (side.value is None) == (side.problem is not None)
    if side.value is not None:
        assert math.isfinite(side.value)
        assert reading.failure is None
        assert reading.series <= 1


def test_a_verdict_carries_value_limit_baseline_sample_and_query() -> None:
    verdict = verdicts(sides={"on": {"p95": 0.25}})["p95-2x"]
    assert (verdict.outcome, verdict.value, verdict.limit, verdict.baseline) == ("breach", 0.25, 0.2, 0.1)
    assert (verdict.sample, verdict.control_sample, verdict.query) == (1000.0, 1000.0, "q")


def test_a_certain_no_beside_an_unknown_is_still_unknown() -> None:
    rules = [{"id": "both", "if": "error_rate > 50% and baseline(error_rate) < 1%", "then": "kill"}]
    assert verdicts({"rules": rules, "baseline": {"from": "control", "fallback": None}},
                    sides={"off": {"total": None}})["both"].outcome == "no_data"  # fmt: skip


def test_a_certain_breach_beside_an_unknown_is_a_breach() -> None:
    rules = [{"id": "either", "if": "latency_p95 > 10s or error_rate > 50%", "then": "kill"}]
    sides = {"on": {"error_rate": 0.9, "p95": None}}
    assert verdicts({"rules": rules}, sides=sides)["either"].outcome == "breach"


@pytest.mark.parametrize(
    ("operator", "value", "breach"),
    [
        (">", 0.01, False),
        (">", 0.0101, True),
        (">=", 0.01, True),
        ("<", 0.0099, True),
        ("<", 0.01, False),
        ("<=", 0.01, True),
    ],
)
def test_the_limit_itself_belongs_to_the_operators_that_say_so(operator: str, value: float, breach: bool) -> None:
    rules = [{"id": "r", "if": f"error_rate {operator} 1%", "then": "pause"}]
    outcome = verdicts({"rules": rules}, sides={"on": {"error_rate": value}})["r"].outcome
    assert outcome == ("breach" if breach else "pass")


def test_the_time_before_the_rollout_stands_in_for_a_control_that_is_too_small() -> None:
    run, guardrails = make_run(PLAN, stage=1), make_guardrails(PLAN)
    before = Reading(query="before", value=0.05, total=5000.0)
    run = make_run(PLAN, stage=1, baselines_before={"web/latency_p95": before, "web/error_rate": before})
    inputs = make_inputs(
        run, PLAN, guardrails, sides={"off": {"total": 10.0}, "on": {"p95": 0.12}}, observations=baked()
    )
    found = {v.rule: v for v in assess(run, PLAN, guardrails, inputs).verdicts}
    assert (found["p95-2x"].baseline, found["p95-2x"].outcome) == (0.05, "breach")


def test_at_full_exposure_the_baseline_is_the_stored_control() -> None:
    guardrails = make_guardrails(PLAN)
    stored = Reading(query="then", value=0.04, total=5000.0)
    run = make_run(PLAN, stage=3, baselines_control={"web/latency_p95": stored, "web/error_rate": stored})
    inputs = make_inputs(
        run, PLAN, guardrails, sides={"on": {"p95": 0.1}, "off": {"p95": 9.0}}, observations=baked()
    )
    found = {v.rule: v for v in assess(run, PLAN, guardrails, inputs).verdicts}
    assert found["p95-2x"].baseline == 0.04


def test_whether_the_control_fails_too_is_told_for_a_breach() -> None:
    alone = verdicts(sides={"on": {"error_rate": 0.5}})["errors-jump"]
    together = verdicts(sides={"on": {"error_rate": 0.5}, "off": {"error_rate": 0.4}})["errors-jump"]
    untold = verdicts(sides={"on": {"error_rate": 0.5}, "off": {"total": None}})["errors-jump"]
    assert (alone.control_fails, together.control_fails, untold.control_fails) == (False, True, None)


# — what people read of it —


@pytest.mark.parametrize(
    ("shape", "values", "problem", "detail"),
    [
        ("ratio", {"total": 500.0, "failure": "503"}, "error", "the source could not answer: 503"),
        ("query", {"value": 1.0, "series": 2}, "error", "2 series where one was expected"),
        ("query", {}, "no_data", "the query returned nothing"),
        ("query", {"value": math.nan}, "no_data", "the query is not a number (nan)"),
        ("ratio", {}, "no_data", "the total returned nothing"),
        ("quantile", {"value": 1.0, "total": math.inf}, "no_data", "the total is not a number (inf)"),
        ("ratio", {"total": 500.0}, "no_data", "the age of the newest sample is unknown"),
        (
            "ratio",
            {"total": 500.0, "age_seconds": 31.4},
            "no_data",
            "the newest sample is 31 s old (limit 30 s)",
        ),
        ("ratio", {"total": 99.0, "age_seconds": 1.0}, "too_few", "99 requests in the window, 100 needed"),
        (
            "ratio",
            {"total": 500.0, "bad": math.nan, "age_seconds": 1.0},
            "no_data",
            "the error count is not a number (nan)",
        ),
        ("quantile", {"total": 500.0, "age_seconds": 1.0}, "no_data", "the quantile returned nothing"),
        ("query", {"value": 1.0}, None, ""),
        ("ratio", {"total": 100.0, "bad": 1.0, "age_seconds": 30.0}, None, ""),
        ("quantile", {"total": 100.0, "bad": math.nan, "value": 1.0, "age_seconds": 30.0}, None, ""),
    ],
)
def test_what_is_wrong_with_a_reading_is_told_in_one_sentence(
    shape: MetricShape, values: dict[str, Any], problem: str | None, detail: str
) -> None:
    side = settle(Reading(query="q", **values), shape, min_sample=100, stale_after=30.0)
    assert (side.problem, side.detail) == (problem, detail)


def test_a_question_nobody_asked_is_no_data_and_says_so() -> None:
    assert settle(None, "ratio", min_sample=0, stale_after=None) == Side(
        problem="no_data", detail="was not measured"
    )


def test_one_request_is_a_sample_when_none_is_demanded() -> None:
    side = settle(Reading(query="q", total=1.0, bad=1.0), "ratio", min_sample=0, stale_after=None)
    assert (side.problem, side.value) == (None, 1.0)


def test_a_number_that_may_not_be_compared_still_shows_its_sample_and_query() -> None:
    few = settle(Reading(query="q", total=7.0, bad=1.0), "ratio", min_sample=100, stale_after=None)
    assert (few.value, few.sample, few.query) == (None, 7.0, "q")


def test_a_raw_query_has_no_sample_and_neither_has_a_total_that_is_no_number() -> None:
    raw = settle(Reading(query="q", value=1.0, total=7.0), "query", min_sample=0, stale_after=None)
    assert (raw.value, raw.sample) == (1.0, None)
    odd = settle(Reading(query="q", total=math.nan), "ratio", min_sample=0, stale_after=None)
    assert odd.sample is None


def test_a_verdict_says_all_of_its_rule_and_of_what_was_seen() -> None:
    rules = [
        {
            "id": "slow",
            "if": "latency_p95 > 2x baseline",
            "floor": "20ms",
            "for": "5m",
            "then": "step_back",
            "mode": "observe",
            "evenIfControlFails": True,
        }
    ]
    (guardrail,) = make_guardrails(PLAN, rules=rules)
    sides = {"latency_p95": Side(value=0.25, sample=900.0, query="treated")}
    control = {"latency_p95": Side(value=0.3, sample=800.0, query="control")}
    baseline = {"latency_p95": Side(value=0.1, sample=700.0, query="baseline")}
    before = {"latency_p95": Side(value=0.2, sample=600.0, query="before")}
    assert judge(guardrail, treated=sides, control=control, baseline=baseline, before=before) == (
        Verdict(
            policy="web",
            rule="slow",
            then="step_back",
            enforced=False,
            outcome="breach",
            detail="",
            condition="latency_p95 > 2x baseline",
            metric="latency_p95",
            unit="seconds",
            value=0.25,
            limit=0.2,
            baseline=0.1,
            sample=900.0,
            control_sample=800.0,
            query="treated",
            for_seconds=300.0,
            control_fails=False,
            even_if_control_fails=True,
        ),
    )


def test_without_any_side_every_rule_is_no_data_and_nothing_is_blamed() -> None:
    (guardrail,) = make_guardrails(PLAN)
    judged = judge(guardrail, treated={}, control={}, baseline={}, before={})
    assert [verdict.rule for verdict in judged] == ["errors-high", "errors-jump", "p95-2x", "p95-3x"]
    assert {verdict.outcome for verdict in judged} == {"no_data"}
    assert judged[0].detail == "error_rate: not measured"
    assert {(v.value, v.sample, v.baseline, v.control_sample, v.control_fails) for v in judged} == {(None,) * 5}


def test_a_pass_needs_no_words() -> None:
    assert {(verdict.outcome, verdict.detail) for verdict in verdicts().values()} == {("pass", "")}


def test_a_rule_is_told_in_the_unit_of_its_metric() -> None:
    (guardrail,) = make_guardrails(
        PLAN,
        metrics={"queue": {"query": "sum(queue)"}, "age": {"query": "max(age)", "unit": "seconds"}},
        rules=[
            {"id": "errors", "if": "error_rate > 1%", "then": "pause"},
            {"id": "queue", "if": "queue > 10", "then": "pause"},
            {"id": "age", "if": "age > 10s", "then": "pause"},
        ],
    )
    judged = judge(guardrail, treated={}, control={}, baseline={}, before={})
    assert [(verdict.rule, verdict.unit) for verdict in judged] == [
        ("errors", "ratio"),
        ("queue", ""),
        ("age", "seconds"),
    ]


def test_a_source_error_outranks_silence_and_silence_a_small_sample() -> None:
    rules = [{"id": "r", "if": "error_rate > 1% or latency_p95 > 1s", "then": "pause"}]
    few = {"total": 1.0}
    assert verdicts({"rules": rules}, sides={"on": few | {"failure": "503"}})["r"].outcome == "error"
    (guardrail,) = make_guardrails(PLAN, rules=rules)
    treated = {
        "error_rate": Side(problem="too_few", detail="1 request"),
        "latency_p95": Side(problem="no_data", detail="gone"),
    }
    (verdict,) = judge(guardrail, treated=treated, control={}, baseline={}, before={})
    assert (verdict.outcome, verdict.detail) == ("no_data", "latency_p95: gone")
