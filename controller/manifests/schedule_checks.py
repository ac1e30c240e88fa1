"""What can be wrong with a schedule whose times are possible: they mean something else than they look."""

from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from itertools import pairwise

from controller.domain.plan import AllowedWindow, Freeze, PlanSpec
from controller.domain.schedule import days_of
from controller.manifests.checks import Check, Context, reading
from controller.manifests.loader import Manifest
from controller.manifests.policy_checks import Problems
from controller.manifests.structure import Path

LONGEST_FREEZE = timedelta(days=60)
LONGEST_GAP = timedelta(days=14)
"""In more than two weeks every allowed hour comes round."""
MOST_COMPARED = 100
"""Windows and freezes compared with each other: a hostile file must not take minutes."""


def check_zone_written(manifest: Manifest, spec: PlanSpec, _: Context) -> Problems:
    schedule = spec.schedule
    if (schedule.advance_only or schedule.freezes) and "timezone" not in _schedule_keys(manifest):
        message = "these times are read as UTC, since no timezone is written"
        yield manifest.problem(
            ("spec", "schedule"), "R208", message, "write timezone: Europe/Berlin, or UTC", at_key=True
        )


def _schedule_keys(manifest: Manifest) -> set[str]:
    return set(manifest.node_at(("spec", "schedule")).entries)


def check_freeze_spans(manifest: Manifest, spec: PlanSpec, context: Context) -> Problems:
    for index, freeze in enumerate(spec.schedule.freezes):
        start, end = freeze_span(freeze)
        path: Path = ("spec", "schedule", "freezes", index, "to")
        if end - start > LONGEST_FREEZE:
            message = f'the freeze "{freeze.name}" lasts {(end - start).days} days'
            yield manifest.problem(path, "R209", message, "see whether year and month are right")
        if context.today is not None and start < end <= datetime.combine(context.today, time()):
            message = f'the freeze "{freeze.name}" is over since {freeze.to[:10]}'
            yield manifest.problem(path, "R210", message, "remove it, or write the next one's dates")


def freeze_span(freeze: Freeze) -> tuple[datetime, datetime]:
    """Local times of one zone are compared as they are written."""
    return datetime.fromisoformat(freeze.from_), datetime.fromisoformat(freeze.to)


def check_needless_hours(manifest: Manifest, spec: PlanSpec, _: Context) -> Problems:
    windows = spec.schedule.advance_only[:MOST_COMPARED]
    for index, window in enumerate(windows):
        for other_index, other in enumerate(windows):
            equal = _contains(other, window) and _contains(window, other)
            if index == other_index or not _contains(other, window) or (equal and other_index > index):
                continue
            message = (
                f"{window.days} {window.from_} to {window.to} lies within {other.days} {other.from_} to {other.to}"
            )
            path: Path = ("spec", "schedule", "advanceOnly", index, "days")
            yield manifest.problem(path, "R211", message, "remove it, or narrow the other one")
            break


def _contains(outer: AllowedWindow, inner: AllowedWindow) -> bool:
    if outer.from_ >= outer.to or inner.from_ >= inner.to or not days_of(inner) <= days_of(outer):
        return False
    return outer.from_ <= inner.from_ and inner.to <= outer.to


def check_gaps(manifest: Manifest, spec: PlanSpec, _: Context) -> Problems:
    if not spec.schedule.advance_only:
        return
    windows, freezes = spec.schedule.advance_only[:MOST_COMPARED], spec.schedule.freezes[:MOST_COMPARED]
    spans = sorted((*freeze_span(freeze), index) for index, freeze in enumerate(freezes))
    for (_start, end, first), (start, _end, second) in pairwise(span for span in spans if span[0] < span[1]):
        if end < start <= end + LONGEST_GAP and not any(_open(windows, end, start)):
            message = (
                f'no allowed hour lies between the freezes "{freezes[first].name}" and "{freezes[second].name}"'
            )
            path: Path = ("spec", "schedule", "freezes", second, "from")
            yield manifest.problem(path, "R212", message, "make them one, or leave an opening between them")


def _open(windows: list[AllowedWindow], start: datetime, end: datetime) -> Iterator[bool]:
    """For every opening that begins around these times, whether it reaches into them."""
    day: date = start.date() - timedelta(days=1)
    while day <= end.date():
        for window in windows:
            if day.weekday() in days_of(window):
                opens, closes = _on(day, window.from_), _on(day, window.to)
                # A window over midnight ends on the day after.
                closes += timedelta(days=1) if closes <= opens else timedelta()
                yield max(opens, start) < min(closes, end)
        day += timedelta(days=1)


def _on(day: date, clock: str) -> datetime:
    hours, minutes = clock.split(":")
    return datetime.combine(day, time()) + timedelta(hours=int(hours), minutes=int(minutes))


SCHEDULE_CHECKS: tuple[Check[PlanSpec], ...] = (
    Check(check_zone_written, reading("schedule")),
    Check(check_freeze_spans, reading("schedule")),
    Check(check_needless_hours, reading("schedule")),
    Check(check_gaps, reading("schedule")),
)
