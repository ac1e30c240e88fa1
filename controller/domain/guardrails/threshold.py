"""Threshold rules: `if: latency_p95 > 2x baseline`, evaluated in three values: yes, no, unknown."""

from collections.abc import Iterable, Mapping
from typing import Protocol

from msgspec import Struct

from controller.domain.binding import BoundRule
from controller.domain.conditions import AllOf, Comparison


class Side(Protocol):
    @property
    def value(self) -> float | None: ...
    @property
    def problem(self) -> str | None: ...
    @property
    def detail(self) -> str: ...


class Compared(Struct, frozen=True, kw_only=True):
    """One comparison: `holds` None when a side is unknown; `problem` says which and why."""

    metric: str
    of_baseline: bool
    holds: bool | None
    value: float | None = None
    limit: float | None = None
    problem: tuple[str, str] | None = None


class Judged(Struct, frozen=True, kw_only=True):
    """`breached`: True or False when certain, None when unknown. `shown` is the comparison to show people."""

    breached: bool | None
    shown: Compared
    problems: tuple[tuple[str, str], ...]


def evaluate(bound: BoundRule, treated: Mapping[str, Side], baseline: Mapping[str, Side]) -> Judged:
    """Kleene logic: a breach is certain or it is none."""
    conjunctions = [_conjunction(part, bound, treated, baseline) for part in bound.condition.parts]
    compared = [one for _, parts in conjunctions for one in parts]
    return Judged(
        breached=_any(holds for holds, _ in conjunctions),
        shown=_to_show(conjunctions),
        problems=tuple(one.problem for one in compared if one.problem),
    )


def _conjunction(
    part: AllOf, bound: BoundRule, treated: Mapping[str, Side], baseline: Mapping[str, Side]
) -> tuple[bool | None, list[Compared]]:
    compared = [_compare(comparison, bound.floor, treated, baseline) for comparison in part.parts]
    return _all(one.holds for one in compared), compared


def _compare(
    comparison: Comparison, floor: float | None, treated: Mapping[str, Side], baseline: Mapping[str, Side]
) -> Compared:
    metric, of_baseline = comparison.metric, comparison.of_baseline
    side = (baseline if of_baseline else treated).get(metric)
    name = f"baseline({metric})" if of_baseline else metric
    limit, limit_problem = _limit(comparison, floor, baseline)
    if side is None or side.value is None:
        problem = (
            (side.problem or "no_data", f"{name}: {side.detail}") if side else ("no_data", f"{name}: not measured")
        )
        return Compared(metric=metric, of_baseline=of_baseline, holds=None, limit=limit, problem=problem)
    if limit is None:
        return Compared(
            metric=metric, of_baseline=of_baseline, holds=None, value=side.value, problem=limit_problem
        )
    holds = _holds(side.value, comparison.operator, limit)
    return Compared(metric=metric, of_baseline=of_baseline, holds=holds, value=side.value, limit=limit)


def _limit(
    comparison: Comparison, floor: float | None, baseline: Mapping[str, Side]
) -> tuple[float | None, tuple[str, str] | None]:
    if comparison.unit != "x baseline":
        return comparison.number, None
    side = baseline.get(comparison.metric)
    if side is None or side.value is None:
        detail = side.detail if side else "not measured"
        return None, (side.problem or "no_data" if side else "no_data", f"baseline({comparison.metric}): {detail}")
    # The floor keeps a multiple of almost nothing from being a limit.
    return max(comparison.number * side.value, floor or 0.0), None


def _holds(value: float, operator: str, limit: float) -> bool:
    match operator:
        case ">":
            return value > limit
        case ">=":
            return value >= limit
        case "<":
            return value < limit
        case _:
            return value <= limit


def _all(values: Iterable[bool | None]) -> bool | None:
    known = list(values)
    if False in known:
        return False
    return None if None in known else True


def _any(values: Iterable[bool | None]) -> bool | None:
    known = list(values)
    if True in known:
        return True
    return None if None in known else False


def _to_show(conjunctions: list[tuple[bool | None, list[Compared]]]) -> Compared:
    """The comparison that decides: of the breaching alternative if there is one, on the treated side if any."""
    _, parts = next((found for found in conjunctions if found[0]), conjunctions[0])
    return next((one for one in parts if not one.of_baseline), parts[0])
