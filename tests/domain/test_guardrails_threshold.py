"""Threshold rules in three values: certain, certainly not, and unknown, which is neither."""

from itertools import product

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from controller.domain.binding import BoundRule
from controller.domain.conditions import parse
from controller.domain.guardrails.threshold import Compared, Judged, evaluate
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


# — the whole of what is judged —


def judged(
    condition: str, treated: dict[str, Side], baseline: dict[str, Side] | None = None, floor: float | None = None
) -> Judged:
    return evaluate(bound(condition, floor), treated, baseline or {})


def unknown(metric: str, *, of_baseline: bool = False, **more: object) -> Compared:
    values: dict[str, object] = {"metric": metric, "of_baseline": of_baseline, "holds": None}
    return msgspec.convert(values | more, Compared)


def test_what_is_certain_shows_value_and_limit_and_no_problem() -> None:
    shown = Compared(metric="a", of_baseline=False, holds=True, value=6.0, limit=5.0)
    assert judged("a > 5", {"a": Side(6.0)}) == Judged(breached=True, shown=shown, problems=())
    of_baseline = Compared(metric="a", of_baseline=True, holds=False, value=4.0, limit=5.0)
    found = judged("baseline(a) > 5", {"a": Side(9.0)}, {"a": Side(4.0)})
    assert found == Judged(breached=False, shown=of_baseline, problems=())


def test_an_unknown_side_is_named_with_its_problem_and_keeps_the_limit() -> None:
    side = Side(None, "too_few", "7 requests")
    problem = ("too_few", "a: 7 requests")
    assert judged("a > 5", {"a": side}) == Judged(
        breached=None, shown=unknown("a", limit=5.0, problem=problem), problems=(problem,)
    )
    problem = ("too_few", "baseline(a): 7 requests")
    assert judged("baseline(a) > 5", {}, {"a": side}) == Judged(
        breached=None, shown=unknown("a", of_baseline=True, limit=5.0, problem=problem), problems=(problem,)
    )


def test_a_side_that_is_not_there_was_not_measured() -> None:
    problem = ("no_data", "a: not measured")
    assert judged("a > 5", {}).shown == unknown("a", limit=5.0, problem=problem)
    problem = ("no_data", "baseline(a): not measured")
    assert judged("baseline(a) > 5", {"a": Side(1.0)}).shown == unknown(
        "a", of_baseline=True, limit=5.0, problem=problem
    )
    assert judged("a > 2x baseline", {"a": Side(1.0)}).shown == unknown("a", value=1.0, problem=problem)


def test_a_side_without_a_number_and_without_a_reason_is_no_data() -> None:
    assert judged("a > 5", {"a": Side(None, None, "odd")}).problems == (("no_data", "a: odd"),)
    found = judged("a > 2x baseline", {"a": Side(1.0)}, {"a": Side(None, None, "odd")})
    assert found.problems == (("no_data", "baseline(a): odd"),)


def test_a_baseline_that_is_unknown_leaves_a_multiple_without_a_limit() -> None:
    found = judged("a > 2x baseline", {"a": Side(1.0)}, {"a": Side(None, "error", "503")})
    problem = ("error", "baseline(a): 503")
    assert found == Judged(breached=None, shown=unknown("a", value=1.0, problem=problem), problems=(problem,))


def test_a_multiple_of_nothing_without_a_floor_is_a_limit_of_zero() -> None:
    found = judged("a > 2x baseline", {"a": Side(0.0)}, {"a": Side(0.0)})
    assert (found.breached, found.shown.limit) == (False, 0.0)
    assert judged("a > 2x baseline", {"a": Side(0.5)}, {"a": Side(0.0)}).breached


def test_a_floor_is_for_multiples_only() -> None:
    assert judged("a > 5", {"a": Side(6.0)}, floor=100.0).shown.limit == 5.0


def test_without_a_breach_the_first_alternative_is_shown() -> None:
    assert judged("a > 5 or b > 5", {"a": Side(1.0), "b": Side(1.0)}).shown.metric == "a"
    assert judged("a > 5 or b > 5", {"a": Side(1.0), "b": Side(9.0)}).shown.metric == "b"
    only_baselines = judged("baseline(a) > 5 and baseline(b) > 5", {}, {"a": Side(9.0), "b": Side(9.0)})
    assert (only_baselines.shown.metric, only_baselines.shown.of_baseline) == ("a", True)
