"""A rule's recent values as a small picture in SVG: value, limit, and what was beyond it."""

from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

from controller.domain.quantities import duration_text
from controller.domain.status import RuleStatus
from controller.domain.wording import quantity
from controller.recent import Point
from controller.web.words import VERDICTS

WIDTH, HEIGHT, MARGIN = 240.0, 48.0, 3.0
FEWEST_POINTS = 2
BREAK_AFTER = timedelta(minutes=5)
"""A longer silence is shown as a gap, not as a line."""


class Curve(NamedTuple):
    """Ready for the template. `lines` and `breaches` are in the coordinates of the picture; `limit_y` may be None.

    `breaches` are (x, width) of the spans in which the rule was broken.
    """

    title: str
    lines: list[str]
    breaches: list[tuple[float, float]]
    limit_y: float | None
    above: bool


def curve(rule: RuleStatus, points: Sequence[Point]) -> Curve | None:
    """None while there is too little to draw."""
    values = [point.value for point in points if point.value is not None]
    if len(values) < FEWEST_POINTS:
        return None
    limits = [point.limit for point in points if point.limit is not None]
    limit = limits[-1] if limits else None
    low, high = min([0.0, *values]), max([*values, *([limit] if limit is not None else [])])
    spread = (high - low) * 1.1 or 1.0
    began, passed = points[0].at, (points[-1].at - points[0].at).total_seconds() or 1.0

    def x(point: Point) -> float:
        return round(MARGIN + (WIDTH - 2 * MARGIN) * (point.at - began).total_seconds() / passed, 1)

    def y(value: float) -> float:
        return round(HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * (value - low) / spread, 1)

    return Curve(
        title=_title(rule, points, values),
        lines=[" ".join(f"{x(p)},{y(p.value)}" for p in part if p.value is not None) for part in _parts(points)],
        breaches=_breaches([(x(point), point.breach) for point in points]),
        limit_y=y(limit) if limit is not None else None,
        above="<" not in rule.condition,
    )


def _parts(points: Sequence[Point]) -> list[list[Point]]:
    """Split where nothing was measured."""
    parts: list[list[Point]] = [[]]
    latest: Point | None = None
    for point in points:
        if point.value is None or (latest is not None and point.at - latest.at > BREAK_AFTER):
            parts.append([])
        if point.value is not None:
            parts[-1].append(point)
        latest = point
    return [part for part in parts if part]


def _breaches(marks: Sequence[tuple[float, bool]]) -> list[tuple[float, float]]:
    spans: list[tuple[float, float]] = []
    began: float | None = None
    for at, breach in marks:
        if breach and began is None:
            began = at
        elif not breach and began is not None:
            spans.append((began, round(max(at - began, 2.0), 1)))
            began = None
    if began is not None:
        spans.append((began, round(max(marks[-1][0] - began, 2.0), 1)))
    return spans


def _title(rule: RuleStatus, points: Sequence[Point], values: Sequence[float]) -> str:
    lasting = duration_text((points[-1].at - points[0].at).total_seconds())
    lowest, highest, now = (quantity(one, rule.unit) for one in (min(values), max(values), rule.value))
    limit = f", limit {quantity(rule.limit, rule.unit)}" if rule.limit is not None else ""
    return (
        f"{rule.rule} over the last {lasting}: now {now} ({VERDICTS[rule.outcome].word}), "
        f"lowest {lowest}, highest {highest}{limit}"
    )
