"""Who changed a flag last, and when: from Unleash's event log, asked only when a flag looks different."""

from collections.abc import Iterable, Mapping
from datetime import datetime

import structlog
from msgspec import Struct

from controller.errors import RampartError
from controller.providers.unleash.admin import Admin
from controller.providers.unleash.strategies import Shown

ONE_BY_ONE = 3
"""For more flags than that, one request brings the project's latest events."""
EVENTS_OF_A_FLAG, EVENTS_OF_A_PROJECT = 10, 200
# What does not begin so, such as a tag or a description, changes nobody's exposure.
TELLING = ("feature-strategy-", "feature-environment-", "strategy-order-")

log = structlog.get_logger()


class Event(Struct, frozen=True, rename="camel"):
    type: str
    created_by: str
    created_at: datetime
    feature_name: str | None = None
    environment: str | None = None


class Events(Struct, frozen=True):
    """Newest first."""

    events: tuple[Event, ...]


class Change(Struct, frozen=True):
    """`by` is empty when Unleash did not tell."""

    by: str = ""
    at: datetime | None = None


class Authors:
    def __init__(self, admin: Admin, project: str) -> None:
        self._admin = admin
        self._project = project
        self._known: dict[tuple[str, str], tuple[Shown, Change]] = {}
        self._failure = ""

    async def of(self, environment: str, shown: Mapping[str, Shown]) -> Mapping[str, Change]:
        """The latest change of each flag. Never raises: a flag without an author is still a flag."""
        strange = [key for key, one in shown.items() if not self._seen_so(environment, key, one)]
        if strange:
            await self._try_to_learn(environment, {key: shown[key] for key in strange})
        return {key: self._change(environment, key, one) for key, one in shown.items()}

    def _seen_so(self, environment: str, key: str, shown: Shown) -> bool:
        known = self._known.get((environment, key))
        return known is not None and known[0] == shown

    def _change(self, environment: str, key: str, shown: Shown) -> Change:
        return self._known[environment, key][1] if self._seen_so(environment, key, shown) else Change()

    async def _try_to_learn(self, environment: str, shown: Mapping[str, Shown]) -> None:
        failure = ""
        try:
            await self._learn(environment, shown)
        except RampartError as error:
            failure = str(error)
        if failure and failure != self._failure:  # the same one comes back every tick
            log.warning("flag_authors_not_told", project=self._project, error=failure)
        self._failure = failure

    async def _learn(self, environment: str, shown: Mapping[str, Shown]) -> None:
        if len(shown) <= ONE_BY_ONE:
            events = [one for key in shown for one in await self._latest("feature", key, EVENTS_OF_A_FLAG)]
        else:
            events = await self._latest("project", self._project, EVENTS_OF_A_PROJECT)
        changes = _newest(events, environment)
        for key, one in shown.items():
            self._known[environment, key] = one, changes.get(key, Change())

    async def _latest(self, what: str, which: str, limit: int) -> list[Event]:
        query = {what: f"IS:{which}", "limit": str(limit)}
        return list((await self._admin.get("api/admin/search/events", Events, query)).events)


def _newest(events: Iterable[Event], environment: str) -> dict[str, Change]:
    changes: dict[str, Change] = {}
    for one in events:
        if one.feature_name and one.environment == environment and one.type.startswith(TELLING):
            changes.setdefault(one.feature_name, Change(one.created_by, one.created_at))
    return changes
