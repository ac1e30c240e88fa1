"""The freezes of the organisation, as this replica knows them. Which it knew, every raise tells its commit."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from controller.domain.freezes import OrganisationFreeze


class FreezeBook:
    """Renewed from the database every few seconds, and at once when it tells of a change.

    `newest` is the number of the newest freeze known: a commit that raises is refused while a newer one holds.
    """

    def __init__(self) -> None:
        self.newest = 0
        self._freezes: tuple[OrganisationFreeze, ...] = ()

    def load(self, freezes: Iterable[OrganisationFreeze]) -> None:
        """All that were not lifted, those to come included."""
        self._freezes = tuple(freezes)
        self.newest = max((freeze.number for freeze in self._freezes), default=0)

    def covering(
        self, environment: str, *labels: Mapping[str, str], now: datetime
    ) -> tuple[OrganisationFreeze, ...]:
        """Those of a plan that hold or are to come."""
        return tuple(one for one in self._freezes if not one.is_over(now) and one.covers(environment, *labels))

    def holding(self, now: datetime) -> tuple[OrganisationFreeze, ...]:
        """Those that hold now, whatever they cover."""
        return tuple(one for one in self._freezes if one.holds(now))
