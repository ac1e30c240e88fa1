"""What a reading is worth, and what a rule says of it. Silence, NaN, age and failure are settled here, once.

The denominator is checked apart from the numerator: a missing error series with traffic is zero errors; without
traffic it is no data. Nothing but a finite, fresh number above the minimum sample is ever compared.
"""

import math
from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from controller.domain.binding import BoundRule, Guardrail
from controller.domain.evidence import Outcome, Reading, Verdict
from controller.domain.guardrails import threshold
from controller.domain.policy import MetricShape

Problem = Literal["error", "no_data", "too_few"]
SEVERITY: tuple[Problem, ...] = ("error", "no_data", "too_few")


class Side(Struct, frozen=True, kw_only=True):
    """A reading, settled: a number that may be compared, or the problem that forbids it."""

    value: float | None = None
    sample: float | None = None
    problem: Problem | None = None
    detail: str = ""
    query: str = ""


Sides = Mapping[str, Side]
NOT_ASKED = Side(problem="no_data", detail="was not measured")


def settle(reading: Reading | None, shape: MetricShape, *, min_sample: int, stale_after: float | None) -> Side:
    """`stale_after` in seconds; None for a stored reading, whose age was checked when it was taken."""
    if reading is None:
        return NOT_ASKED
    problem, detail = _problem(reading, shape, min_sample, stale_after)
    sample = reading.total if shape != "query" and _finite(reading.total) else None
    value = None if problem else _value(reading, shape)
    return Side(value=value, sample=sample, problem=problem, detail=detail, query=reading.query)


def _problem(
    reading: Reading, shape: MetricShape, min_sample: int, stale_after: float | None
) -> tuple[Problem | None, str]:
    if reading.failure is not None:
        return "error", f"the source could not answer: {reading.failure}"
    if reading.series > 1:
        return "error", f"{reading.series} series where one was expected"
    number, what = (reading.value, "the query") if shape == "query" else (reading.total, "the total")
    if number is None or not _finite(number):
        return "no_data", _silence(number, what)
    stale = _staleness(reading.age_seconds, shape, stale_after)
    if stale:
        return "no_data", stale
    if shape == "query":
        return None, ""
    if number < min_sample or number <= 0:
        return "too_few", f"{number:.0f} requests in the window, {min_sample} needed"
    if shape == "ratio" and reading.bad is not None and not _finite(reading.bad):
        return "no_data", _silence(reading.bad, "the error count")
    if shape == "quantile" and not _finite(reading.value):
        return "no_data", _silence(reading.value, "the quantile")
    return None, ""


def _staleness(age: float | None, shape: MetricShape, stale_after: float | None) -> str:
    """Empty when it is fresh, or is a raw query's whose age the source cannot tell."""
    if stale_after is None or (age is None and shape == "query"):
        return ""
    if age is None:
        return "the age of the newest sample is unknown"
    return "" if age <= stale_after else f"the newest sample is {age:.0f} s old (limit {stale_after:g} s)"


def _value(reading: Reading, shape: MetricShape) -> float | None:
    if shape == "ratio" and reading.total is not None:
        return (reading.bad or 0.0) / reading.total
    return reading.value


def _finite(number: float | None) -> bool:
    return number is not None and math.isfinite(number)


def _silence(number: float | None, what: str) -> str:
    return f"{what} returned nothing" if number is None else f"{what} is not a number ({number})"


def judge(
    guardrail: Guardrail, *, treated: Sides, control: Sides, baseline: Sides, before: Sides
) -> tuple[Verdict, ...]:
    """One verdict for every rule, in the order they were written.

    `baseline` is what the rules' `baseline` means at this stage; `before` is the time before the first
    exposure, used only to ask whether the control breaks the same condition (common cause).
    """
    return tuple(
        _verdict(guardrail, rule, treated=treated, control=control, baseline=baseline, before=before)
        for rule in guardrail.rules
    )


def _verdict(
    guardrail: Guardrail, bound: BoundRule, *, treated: Sides, control: Sides, baseline: Sides, before: Sides
) -> Verdict:
    judged = threshold.evaluate(bound, treated, baseline)
    common_cause = threshold.evaluate(bound, control, before).breached if judged.breached else None
    shown = judged.shown
    side = treated.get(shown.metric, NOT_ASKED)
    outcome, detail = _outcome(judged)
    metric = guardrail.metrics[shown.metric]
    return Verdict(
        policy=guardrail.policy,
        rule=bound.rule.id,
        then=bound.rule.then,
        enforced=bound.rule.mode == "enforce",
        outcome=outcome,
        detail=detail,
        condition=bound.rule.condition,
        metric=shown.metric,
        unit="ratio" if metric.shape == "ratio" else metric.unit or "",
        value=shown.value,
        limit=shown.limit,
        baseline=baseline.get(shown.metric, NOT_ASKED).value,
        sample=side.sample,
        control_sample=control.get(shown.metric, NOT_ASKED).sample,
        query=side.query,
        for_seconds=bound.rule.for_seconds,
        control_fails=common_cause,
        even_if_control_fails=bound.rule.even_if_control_fails,
    )


def _outcome(judged: threshold.Judged) -> tuple[Outcome, str]:
    if judged.breached:
        return "breach", ""
    # A rule passes only when everything it names is known: a certain "no" beside an unknown is still unknown.
    for problem in SEVERITY:
        for found, detail in judged.problems:
            if found == problem:
                return problem, detail
    return "pass", ""
