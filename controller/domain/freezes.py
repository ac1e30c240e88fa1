"""Freezes of the organisation: dated spans in which no plan that they cover may start or advance."""

from collections.abc import Mapping
from datetime import datetime
from zoneinfo import ZoneInfo

from msgspec import Struct

from controller.domain.selector import fits


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
