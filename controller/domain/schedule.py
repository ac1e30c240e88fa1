"""When exposure may rise: weekly windows and dated freezes, in the plan's own time zone.

Local times are resolved with the zone's rules, so that 09:00 stays 09:00 across a clock change. A local time
that a spring change skips means the instant the clock jumped to; one that an autumn change repeats, the first.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from msgspec import Struct

from controller.domain.freezes import OrganisationFreeze
from controller.domain.plan import AllowedWindow, Freeze, Schedule

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
HORIZON_DAYS = 400
"""How far ahead the next opening is looked for: beyond the longest freeze anybody should write."""


class Closed(Struct, frozen=True):
    """Why exposure may not rise now; `opens_at` None: not within the horizon."""

    why: str
    opens_at: datetime | None


@lru_cache(maxsize=1024)
def days_of(window: AllowedWindow) -> frozenset[int]:
    """`mon-thu` → {0,1,2,3}; `sat,sun` → {5,6}; `fri-mon` wraps."""
    chosen: set[int] = set()
    for part in window.days.split(","):
        first, _, last = part.partition("-")
        start, end = DAYS.index(first), DAYS.index(last or first)
        chosen.update((start + step) % 7 for step in range((end - start) % 7 + 1))
    return frozenset(chosen)


def closed(schedule: Schedule, now: datetime, freezes: Sequence[OrganisationFreeze] = ()) -> Closed | None:
    """None when exposure may rise at `now`. `freezes` are the organisation's that cover the plan."""
    why = _closed_because(schedule, freezes, now)
    return Closed(why, _opens_at(schedule, freezes, now)) if why else None


def _closed_because(schedule: Schedule, freezes: Sequence[OrganisationFreeze], at: datetime) -> str | None:
    holding = [freeze for freeze in freezes if freeze.holds(at)]
    if holding:
        return max(holding, key=lambda freeze: freeze.ends_at).why
    zone = ZoneInfo(schedule.timezone)
    for freeze in schedule.freezes:
        if freeze_start(freeze, zone) <= at < freeze_end(freeze, zone):
            return f"frozen: {freeze.name}, until {freeze.to.replace('T', ' ')} {schedule.timezone}"
    if schedule.advance_only and not any(_within(window, at.astimezone(zone)) for window in schedule.advance_only):
        hours = "; ".join(f"{w.days} {w.from_}-{w.to}" for w in schedule.advance_only)
        return f"outside the allowed hours ({hours} {schedule.timezone})"
    return None


def _within(window: AllowedWindow, local: datetime) -> bool:
    days, clock = days_of(window), f"{local:%H:%M}"
    if window.from_ < window.to:
        return local.weekday() in days and window.from_ <= clock < window.to
    # A window over midnight belongs to the day it starts on.
    yesterday = (local.weekday() - 1) % 7
    return (local.weekday() in days and clock >= window.from_) or (yesterday in days and clock < window.to)


def _opens_at(schedule: Schedule, freezes: Sequence[OrganisationFreeze], now: datetime) -> datetime | None:
    """The schedule can only open at the end of a freeze or at the start of a window: look at those, day by day."""
    zone = ZoneInfo(schedule.timezone)
    ends = sorted(
        [freeze_end(freeze, zone) for freeze in schedule.freezes]
        + [freeze.ends_at for freeze in freezes if freeze.lifted_at is None]
    )
    if not schedule.advance_only:
        return next((at for at in ends if at > now and not _closed_because(schedule, freezes, at)), None)
    today = now.astimezone(zone).date()
    for ahead in range(HORIZON_DAYS):
        day = today + timedelta(days=ahead)
        starts = _window_starts(schedule, day, zone)
        starts += [at for at in ends if at.astimezone(zone).date() == day]
        for at in sorted(starts):
            if at > now and not _closed_because(schedule, freezes, at):
                return at
    return None


def _window_starts(schedule: Schedule, day: date, zone: ZoneInfo) -> list[datetime]:
    return [
        _instant(datetime.combine(day, time.fromisoformat(window.from_)), zone)
        for window in schedule.advance_only
        if window.from_ != "24:00" and day.weekday() in days_of(window)
    ]


def freeze_start(freeze: Freeze, zone: ZoneInfo) -> datetime:
    return _instant(datetime.fromisoformat(freeze.from_), zone)


def freeze_end(freeze: Freeze, zone: ZoneInfo) -> datetime:
    return _instant(datetime.fromisoformat(freeze.to), zone)


def _instant(local: datetime, zone: ZoneInfo) -> datetime:
    return local.replace(tzinfo=zone).astimezone(UTC)
