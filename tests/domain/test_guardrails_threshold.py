"""Threshold rules in three values: certain, certainly not, and unknown, which is neither."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from controller.domain.binding import BoundRule
from controller.domain.conditions import parse
from controller.domain.guardrails.threshold import evaluate
from controller.domain.policy import Rule


class Side(Struct, frozen=True):
    value: float | None
    problem: str | None = None
    detail: str = ""


def breached(
    condition: str,
    treated: dict[str, float | None],
    baseline: dict[str, float | None] | None = None,
    floor: float | None = None,
) -> bool | None:
    judged = evaluate(bound(condition, floor), sides(treated), sides(baseline or {}))
    assert (judged.breached is None) <= bool(judged.problems)
    return judged.breached


def bound(condition: str, floor: float | None = None) -> BoundRule:
    rule = Rule(id="rule", condition=condition, then="kill")
    return BoundRule(rule=rule, condition=parse(condition), floor=floor)


def sides(values: dict[str, float | None]) -> dict[str, Side]:
    return {
        metric: Side(value) if value is not None else Side(None, "no_data", "no series")
        for metric, value in values.items()
    }


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        (">", [False, False, True]),
        (">=", [False, True, True]),
        ("<", [True, False, False]),
        ("<=", [True, True, False]),
    ],
)
def test_operators_mean_what_they_say_at_the_limit_too(operator: str, expected: list[bool]) -> None:
    assert [breached(f"queue {operator} 5", {"queue": value}) for value in (4.0, 5.0, 6.0)] == expected


def test_a_multiple_is_of_the_baseline_and_never_below_the_floor() -> None:
    assert breached("p95 > 2x baseline", {"p95": 0.21}, {"p95": 0.1}) is True
    assert breached("p95 > 2x baseline", {"p95": 0.19}, {"p95": 0.1}) is False
    assert breached("p95 > 2x baseline", {"p95": 0.004}, {"p95": 0.001}, floor=0.02) is False
    assert breached("p95 > 2x baseline", {"p95": 0.021}, {"p95": 0.001}, floor=0.02) is True


def test_without_a_baseline_a_multiple_of_it_is_unknown() -> None:
    assert breached("p95 > 2x baseline", {"p95": 9.0}, {"p95": None}) is None
    assert breached("p95 > 2x baseline", {"p95": 9.0}) is None


def test_a_metric_nobody_measured_is_unknown() -> None:
    assert breached("p95 > 200ms", {}) is None


VALUES: dict[bool | None, float | None] = {True: 6.0, False: 4.0, None: None}


@pytest.mark.parametrize(("left", "right"), list(product(VALUES, VALUES)))
def test_and_needs_both_and_or_needs_one_and_the_unknown_decides_nothing(
    left: bool | None, right: bool | None
) -> None:
    values = {"a": VALUES[left], "b": VALUES[right]}
    both = False if False in (left, right) else None if None in (left, right) else True
    one = True if True in (left, right) else None if None in (left, right) else False
    assert breached("a > 5 and b > 5", values) is both
    assert breached("a > 5 or b > 5", values) is one


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 1e6))
def test_a_higher_floor_never_makes_a_breach(value: float, base: float, floor: float) -> None:
    without = breached("p95 > 2x baseline", {"p95": value}, {"p95": base})
    assert not (breached("p95 > 2x baseline", {"p95": value}, {"p95": base}, floor=floor) and not without)


def test_what_is_shown_is_the_treated_side_of_the_alternative_that_breaches() -> None:
    condition = "a > 5 or baseline(b) < 1 and b > 5"
    judged = evaluate(bound(condition), sides({"a": 1.0, "b": 9.0}), sides({"b": 0.5}))
    assert judged.breached
    assert (judged.shown.metric, judged.shown.of_baseline, judged.shown.value, judged.shown.limit) == (
        "b",
        False,
        9.0,
        5.0,
    )
