"""Who is to be told of an audit entry, and what."""

from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec
import structlog
from msgspec.structs import replace

from controller.domain.audit import AuditEntry
from controller.domain.message import ENDS, EVENTS, Message, message
from controller.domain.notification import Owed
from controller.domain.plan import RolloutPlan
from controller.errors import Refused
from controller.ports import Channel, Store

log = structlog.get_logger()


def recipients(
    entry: AuditEntry, plans: Iterable[RolloutPlan], resolving: Collection[str] = ()
) -> list[tuple[str, RolloutPlan, bool]]:
    """The channels to tell of this entry, each once, by name, with the first plan that wants it told there.

    The last is true where no plan asks for this event, but one does for an event that it ends, and the channel is
    in `resolving`.
    """
    event = EVENTS.get(entry.action)
    if event is None:
        return []
    asked: dict[str, RolloutPlan] = {}
    ended: dict[str, RolloutPlan] = {}
    for plan in plans:
        for notify in plan.spec.notify:
            if event in notify.events:
                asked.setdefault(notify.to, plan)
            elif notify.to in resolving and ENDS.get(event, frozenset()).intersection(notify.events):
                ended.setdefault(notify.to, plan)
    only_ended = [(name, plan, True) for name, plan in ended.items() if name not in asked]
    return [(name, plan, False) for name, plan in asked.items()] + only_ended


class Recipients:
    """Reads the plans that say who is to be told."""

    def __init__(self, store: Store, channels: Mapping[str, Channel], public_url: str) -> None:
        self._store = store
        self._known = frozenset(channels)
        self._resolving = frozenset(name for name, channel in channels.items() if channel.resolves)
        self._public_url = public_url

    async def owed(self, rows: Sequence[tuple[int, AuditEntry]]) -> list[Owed]:
        """For each of these rows, in order. Raises StoreUnavailable."""
        found: list[Owed] = []
        plans: dict[tuple[str | None, str], Sequence[RolloutPlan]] = {}
        for sequence, entry in rows:
            if entry.action not in EVENTS:
                continue
            about = (entry.run, entry.flag or entry.subject)
            if about not in plans:
                plans[about] = await self._plans(entry)
            found += self._owed(sequence, entry, plans[about])
        return found

    def _owed(self, sequence: int, entry: AuditEntry, plans: Sequence[RolloutPlan]) -> list[Owed]:
        found = []
        for name, plan, only_ends in recipients(entry, plans, self._resolving):
            if name not in self._known:
                log.error("notification_channel_unknown", channel=name, run=entry.run, action=entry.action)
            told = self._message(sequence, entry, plan)
            if told is not None:
                told = replace(told, only_ends=only_ends)
                found.append(Owed(channel=name, thread=entry.flag or entry.subject, message=told))
        return found

    def _message(self, sequence: int, entry: AuditEntry, plan: RolloutPlan) -> Message | None:
        try:
            return message(sequence, entry, plan, self._public_url)
        except msgspec.ValidationError as error:
            # Evidence that another version wrote: whoever waits for this is told without the numbers.
            log.error("notification_without_evidence", entry=entry.id, error=str(error))
            return message(sequence, replace(entry, details={}), plan, self._public_url)

    async def _plans(self, entry: AuditEntry) -> Sequence[RolloutPlan]:
        """The plan the run is pinned to; for a flag that was killed without a run, every plan that names it."""
        try:
            found = await self._store.run(entry.run) if entry.run else None
            if found is not None:
                revision = await self._store.plan(found[0].plan, found[0].plan_revision)
                return [revision.plan] if revision else []
        except Refused as error:
            # It cannot be read, which must neither hold up others nor keep a kill from being told.
            log.error("notification_plan_unreadable", run=entry.run, error=str(error))
        return [one.plan for one in await self._store.plans() if str(one.plan.spec.flag) == entry.flag]
