"""A policy bound to a plan: questions carry the right values, and wrong parameters are all named."""

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.binding import (
    VALUE_PATTERN,
    Guardrail,
    bind,
    is_value,
    placeholders,
    prometheus_duration,
    substitute,
)
from controller.domain.evidence import QuantileQuestion, QueryQuestion, RatioQuestion
from controller.domain.plan import GuardrailUse, RolloutPlan
from controller.domain.policy import GuardrailPolicy
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
    assert guardrail.question("depth", "on") == QueryQuestion(query='max_over_time(depth{c=~"a$"}[300s])')
    assert guardrail.question("depth", "on", 3600) == QueryQuestion(query='max_over_time(depth{c=~"a$"}[3600s])')


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
