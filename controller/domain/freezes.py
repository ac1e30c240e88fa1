"""Freezes of the organisation: dated spans in which no plan that they cover may start or advance."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from msgspec import Struct

from controller.domain.selector import fits
from controller.errors import Invalid

FreezeState = Literal["holds", "to_come", "over", "lifted"]

LONGEST = timedelta(days=366)


class OrganisationFreeze(Struct, frozen=True, kw_only=True):
    """One order that nothing rises from `starts_at` to before `ends_at`, unless it is lifted before.

    No `environments` means all of them, no `labels` all plans. `timezone` is the one it was written in. `number`
    is the audit row that added it: of two freezes the newer has the higher one.
    """

    name: str
    starts_at: datetime
    ends_at: datetime
    added_by: str
    added_at: datetime
    reason: str
    timezone: str = "UTC"
    environments: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    number: int = 0
    lifted_at: datetime | None = None
    lifted_by: str = ""
    lifted_why: str = ""

    def covers(self, environment: str, *labels: Mapping[str, str]) -> bool:
        """`labels` of the plan as a run follows it, and as it stands now: one that fits is enough."""
        there = not self.environments or environment in self.environments
        return there and any(fits(self.labels, one) for one in labels)

    def holds(self, at: datetime) -> bool:
        return self.lifted_at is None and self.starts_at <= at < self.ends_at

    def is_over(self, now: datetime) -> bool:
        return self.lifted_at is not None or self.ends_at <= now

    @property
    def why(self) -> str:
        return f"frozen: {self.name}, until {self.clock(self.ends_at)} {self.timezone}, by {self.added_by}"

    def clock(self, at: datetime) -> str:
        """As the clocks show it where the freeze was written."""
        return f"{at.astimezone(ZoneInfo(self.timezone)):%Y-%m-%d %H:%M}"

    def state(self, now: datetime) -> FreezeState:
        if self.lifted_at is not None:
            return "lifted"
        if self.ends_at <= now:
            return "over"
        return "holds" if self.starts_at <= now else "to_come"


class FreezeStatus(Struct, frozen=True, kw_only=True):
    """A freeze as people are shown it. `plans` are those that it covers, as plans stand now."""

    name: str
    state: FreezeState
    starts_at: datetime
    ends_at: datetime
    timezone: str
    environments: list[str]
    labels: dict[str, str]
    reason: str
    added_by: str
    added_at: datetime
    plans: list[str] = []
    lifted_at: datetime | None = None
    lifted_by: str = ""
    lifted_why: str = ""


def span(
    begins: str | None, ends: str | None, lasts_seconds: float | None, timezone: str, now: datetime
) -> tuple[datetime, datetime]:
    """From when to when, in UTC. `begins` None is now; `ends` or `lasts_seconds` says until when.

    Texts are local times of `timezone`. Raises Invalid naming the field.
    """
    try:
        zone = ZoneInfo(timezone)
    except (OSError, ValueError, KeyError):
        raise _invalid("timezone", f'"{timezone}" is no time zone; write Europe/Berlin, or UTC') from None
    start = _instant("from", begins, zone) if begins is not None else now
    if ends is not None and lasts_seconds is None:
        end = _instant("to", ends, zone)
    elif lasts_seconds is not None and ends is None:
        end = start + timedelta(seconds=lasts_seconds)
    else:
        raise _invalid("to", "say either until when (to) or how long (for)")
    if end <= max(start, now):
        raise _invalid("to", "it ends before it begins" if end <= start else "it is over already")
    if end - start > LONGEST:
        raise _invalid("to", "it lasts longer than a year; see whether year and month are right")
    return start, end


def _instant(field: str, text: str, zone: ZoneInfo) -> datetime:
    try:
        return datetime.fromisoformat(text).replace(tzinfo=zone).astimezone(UTC)
    except (ValueError, OverflowError):
        raise _invalid(field, f'"{text}" is no day and time; write 2026-11-26T00:00') from None


def _invalid(field: str, message: str) -> Invalid:
    return Invalid(f"{field}: {message}", problems=[(field, message)])
