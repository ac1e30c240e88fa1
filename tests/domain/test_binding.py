"""A policy bound to a plan: questions carry the right values, and wrong parameters are all named."""

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from controller.domain.binding import (
    VALUE_PATTERN,
    Guardrail,
    bind,
    is_value,
    param_problems,
    placeholders,
    prometheus_duration,
    substitute,
    value_message,
)
from controller.domain.evidence import QuantileQuestion, QueryQuestion, RatioQuestion
from controller.domain.plan import GuardrailUse, RolloutPlan
from controller.domain.policy import Baseline, GuardrailPolicy, Metric, Param, WhenUnknown
from controller.errors import Invalid


def plan(*, rollout: str = "on") -> RolloutPlan:
    return msgspec.convert(
        {
            "apiVersion": "rampart/v1",
            "kind": "RolloutPlan",
            "metadata": {"name": "checkout-v2"},
            "spec": {
                "flag": {"provider": "main", "environment": "production", "key": "checkout.v2"},
                "serve": {"rollout": rollout, "fallback": "off"},
                "stages": [{"name": "all", "exposure": "100%", "bake": "1h"}],
                "guardrails": [{"policy": "web"}],
            },
        },
        RolloutPlan,
    )


def policy(**changes: object) -> GuardrailPolicy:
    spec = {
        "source": "prom",
        "params": {"service": {"required": True}, "zone": {"default": "eu"}},
        "window": "5m",
        "every": "15s",
        "metrics": {
            "errors": {
                "bad": 'e{s="$service",v="$variation",z="${zone}"}',
                "total": 'r{f="$flag",e="$environment"}',
            },
            "p95": {"histogram": 'h_bucket{v="$variation"}', "quantile": 0.95, "unit": "seconds"},
            "depth": {"query": 'max_over_time(depth{c=~"a$$"}[$window])'},
        },
        "rules": [{"id": "slow", "if": "p95 > 2x baseline", "floor": "20ms", "then": "kill"}],
    }
    document = {
        "apiVersion": "rampart/v1",
        "kind": "GuardrailPolicy",
        "metadata": {"name": "web"},
        "spec": {**spec, **changes},
    }
    return msgspec.convert(document, GuardrailPolicy)


def bound(**with_: str) -> Guardrail:
    return bind(GuardrailUse(policy="web", with_=with_), policy(), plan())


def test_questions_name_flag_variation_environment_and_parameters() -> None:
    guardrail = bound(service="checkout")
    assert guardrail.question("errors", "on") == RatioQuestion(
        bad='e{s="checkout",v="on",z="eu"}', total='r{f="checkout.v2",e="production"}', window_seconds=300.0
    )
    assert guardrail.question("p95", "off", 3600) == QuantileQuestion(
        histogram='h_bucket{v="off"}', quantile=0.95, window_seconds=3600
    )


def test_a_raw_query_gets_its_window_and_keeps_an_escaped_dollar() -> None:
    guardrail = bound(service="checkout", zone="us")
    assert guardrail.question("depth", "on") == QueryQuestion(
        query='max_over_time(depth{c=~"a$"}[300s])', window_seconds=300
    )
    assert guardrail.question("depth", "on", 3600) == QueryQuestion(
        query='max_over_time(depth{c=~"a$"}[3600s])', window_seconds=3600
    )


def test_floor_and_defaults_arrive_in_base_units() -> None:
    guardrail = bound(service="checkout")
    assert guardrail.rules[0].floor == 0.02
    assert (guardrail.every_seconds, guardrail.window_seconds, guardrail.stale_after_seconds) == (15, 300, 30)


def test_every_wrong_parameter_is_named() -> None:
    with pytest.raises(Invalid) as caught:
        bound(servce="checkout", zone='x"} or vector(0)')
    assert [path for path, _ in caught.value.problems] == ["with.service", "with.zone", "with.servce"]
    assert 'has no parameter "servce"; it has: service, zone' in str(caught.value)


def test_a_variation_that_could_break_out_of_a_query_is_refused() -> None:
    with pytest.raises(Invalid, match="cannot stand in a query"):
        bind(GuardrailUse(policy="web", with_={"service": "x"}), policy(), plan(rollout='on"}'))


def test_a_condition_that_does_not_parse_or_names_no_metric_is_refused() -> None:
    rules = [{"id": "a", "if": "p95 >> 1s", "then": "kill"}, {"id": "b", "if": "p96 > 1s", "then": "kill"}]
    with pytest.raises(Invalid) as caught:
        bind(GuardrailUse(policy="web", with_={"service": "x"}), policy(rules=rules), plan())
    assert [path for path, _ in caught.value.problems] == ["spec.rules[0]", "spec.rules[1]"]


def test_a_placeholder_without_a_value_is_an_error_not_an_empty_string() -> None:
    with pytest.raises(Invalid, match=r"\$nobody"):
        substitute("up{a='$nobody'}", {"flag": "x"})


def test_a_lone_dollar_is_no_placeholder() -> None:
    assert placeholders('code=~"5..$", x="$flag" ${zone} $$flag') == [("flag", 17, 5), ("zone", 24, 7)]


@given(st.text(max_size=140))
def test_only_values_that_mean_nothing_to_promql_are_accepted(text: str) -> None:
    assert is_value(text) == (re.fullmatch(VALUE_PATTERN, text) is not None and "\n" not in text)


def test_a_trailing_line_break_is_no_value() -> None:
    assert not is_value("checkout\n")


@given(st.integers(min_value=1, max_value=10**9))
def test_durations_are_written_as_prometheus_reads_them(milliseconds: int) -> None:
    text = prometheus_duration(milliseconds / 1000)
    factor = 1 if text.endswith("ms") else 1000
    assert int(text.removesuffix("ms").removesuffix("s")) * factor == milliseconds


# — the whole of what is bound, and of what is refused —


def test_a_bound_policy_is_complete() -> None:
    changes = {
        "staleAfter": "40s",
        "minSample": {"requests": 7},
        "baseline": {"from": "control", "fallback": "before", "before": "2h"},
        "noData": {"after": "3m", "then": "hold"},
        "queryError": {"after": "4m", "then": "pause"},
    }
    written = policy(**changes)
    guardrail = bind(GuardrailUse(policy="web", with_={"service": "checkout", "zone": "us"}), written, plan())
    assert replace(guardrail, rules=()) == Guardrail(
        policy="web",
        source="prom",
        every_seconds=15.0,
        window_seconds=300.0,
        stale_after_seconds=40.0,
        min_sample=7,
        baseline=Baseline(from_="control", fallback="before", before="2h"),
        no_data=WhenUnknown(after="3m", then="hold"),
        query_error=WhenUnknown(after="4m", then="pause"),
        rules=(),
        metrics=written.spec.metrics,
        values={"service": "checkout", "zone": "us", "flag": "checkout.v2", "environment": "production"},
    )
    (rule,) = guardrail.rules
    assert (rule.rule, rule.floor) == (written.spec.rules[0], 0.02)
    assert [one.metric for part in rule.condition.parts for one in part.parts] == ["p95"]


def test_a_rule_without_a_floor_has_none() -> None:
    rules = [{"id": "slow", "if": "p95 > 2x baseline", "then": "kill"}]
    guardrail = bind(GuardrailUse(policy="web", with_={"service": "x"}), policy(rules=rules), plan())
    assert guardrail.rules[0].floor is None


def test_a_window_of_no_length_is_a_window_all_the_same() -> None:
    assert bound(service="x").question("depth", "on", 0) == QueryQuestion(
        query='max_over_time(depth{c=~"a$"}[0s])'
    )


def refused(use: dict[str, str], *, rollout: str = "on", **changes: object) -> Invalid:
    with pytest.raises(Invalid) as caught:
        bind(GuardrailUse(policy="web", with_=use), policy(**changes), plan(rollout=rollout))
    return caught.value


def test_a_refusal_names_policy_plan_and_every_problem() -> None:
    error = refused({"servce": "x"}, rollout='on"}')
    value = "cannot stand in a query: 1 to 128 of letters, digits and _ . : / - are allowed"
    problems = [
        ("with.service", 'the parameter "service" is required'),
        ("with.servce", 'the policy has no parameter "servce"; it has: service, zone'),
        ("serve.rollout", f'"on"}}" {value}'),
    ]
    assert list(error.problems) == problems
    told = "; ".join(f"{path}: {message}" for path, message in problems)
    assert str(error) == f'policy "web" cannot be used by plan "checkout-v2": {told}'


def test_a_fallback_that_could_break_out_of_a_query_is_refused_too() -> None:
    served = plan()
    hostile = replace(served.spec.serve, fallback="o ff")
    served = replace(served, spec=replace(served.spec, serve=hostile))
    with pytest.raises(Invalid) as caught:
        bind(GuardrailUse(policy="web", with_={"service": "x"}), policy(), served)
    assert [path for path, _ in caught.value.problems] == ["serve.fallback"]


def test_a_rule_that_cannot_be_read_hides_no_other() -> None:
    rules = [
        {"id": "a", "if": "p95 > 2x", "then": "kill"},
        {"id": "b", "if": "p95 ! 1", "then": "kill"},
        {"id": "c", "if": "z > 1 or y > 1", "then": "kill"},
        {"id": "d", "if": "p95 > 1s", "floor": "x", "then": "kill"},
    ]
    number = "write a finite number, as in 1%, 20ms or 2x baseline"
    assert list(refused({"service": "x"}, rules=rules).problems) == [
        (
            "spec.rules[0]",
            'expected "baseline" after "x"; write "2x baseline"; a limit is absolute otherwise',
        ),
        ("spec.rules[1]", 'expected one of > >= < <=, found "!"'),
        ("spec.rules[2]", 'metric "y" is not defined in the policy'),
        ("spec.rules[2]", 'metric "z" is not defined in the policy'),
        ("spec.rules[3]", f'expected a number, found "x"; {number}'),
    ]


def test_parameters_are_checked_one_by_one() -> None:
    params = {"needed": Param(required=True), "maybe": Param(), "set": Param(default="a b")}
    value = "cannot stand in a query: 1 to 128 of letters, digits and _ . : / - are allowed"
    assert param_problems({}, params) == [
        ("needed", 'the parameter "needed" is required'),
        ("set", f'"a b" {value}'),
    ]
    assert param_problems({"needed": "x", "maybe": "", "set": "y"}, params) == [("maybe", f'"" {value}')]
    assert param_problems({"other": "x"}, {}) == [("other", 'the policy has no parameter "other"; it has: none')]


def test_a_value_is_shown_by_its_first_forty_characters() -> None:
    assert value_message("x" * 50).startswith('"' + "x" * 40 + '" cannot')


def test_a_metric_without_a_complete_shape_is_refused_with_what_to_write() -> None:
    guardrail = bound(service="x")
    for incomplete in (Metric(bad="b"), Metric(total="t"), Metric(histogram="h"), Metric(quantile=0.5)):
        with pytest.raises(Invalid) as caught:
            replace(guardrail, metrics={"m": incomplete}).question("m", "on")
        assert str(caught.value) == (
            'metric "m" of policy "web" has no complete shape; '
            "write bad and total, or histogram and quantile, or query"
        )


def test_a_placeholder_without_a_value_lists_those_that_have_one() -> None:
    with pytest.raises(Invalid) as caught:
        substitute("$a ${nobody}", {"b": "1", "a": "2"})
    assert str(caught.value) == 'the placeholder "$nobody" has no value; known: a, b'
    with pytest.raises(Invalid) as caught:
        substitute("${}", {"a": "2"})
    assert str(caught.value) == 'the placeholder "$" has no value; known: a'


def test_an_empty_placeholder_is_found_as_one() -> None:
    assert placeholders("a${}b") == [("", 1, 3)]


@pytest.mark.parametrize(
    ("duration_seconds", "text"),
    [(300.0, "300s"), (0.25, "250ms"), (1.0004, "1s"), (1.0006, "1001ms"), (0.0, "0s"), (0.9996, "1s")],
)
def test_a_duration_is_whole_seconds_when_it_is_that_to_half_a_millisecond(
    duration_seconds: float, text: str
) -> None:
    assert prometheus_duration(duration_seconds) == text
