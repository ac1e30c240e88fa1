"""One kill in force, as this replica holds it, and what others are told of it."""

import asyncio
from collections.abc import Collection
from datetime import datetime

from msgspec import Struct

from controller.domain.audit import AuditEntry
from controller.domain.catalogue import Kill, KillRecord
from controller.domain.flag import FlagKill, FlagState
from controller.domain.plan import Serve
from controller.domain.status import KillReceipt, KillStatus


class Held(Struct, kw_only=True):
    """Mutable, and lost at a restart: the journal and the database hold what matters.

    `since` is the monotonic time at which this replica learned of it. `accepted_here`: this process took the
    order, so that of all replicas it alone counts the kill. `doubtful`: the database had it before this process
    began, and may know of its reset. `landed` names the replicas that hold it, too, and had no write of theirs on
    its way any more when they said so; `heard` all that hold it. `covered_by` is whoever serves another provider's
    flag with this kill laid over: applications are off there, which says nothing of the provider.
    """

    record: KillRecord
    since: float
    accepted_here: bool = False
    doubtful: bool = False
    durable: bool = False
    merged: bool = False
    lowering: bool = False
    confirmation_stored: bool = False
    attempts: int = 0
    updated_at: datetime | None = None
    confirmed_at: datetime | None = None
    reached: tuple[str, ...] = ()
    covered_by: tuple[str, ...] = ()
    heard: set[str] = set()
    landed: set[str] = set()
    telling: asyncio.Task[None] | None = None

    @property
    def kill(self) -> Kill:
        return self.record.kill

    def is_done(self, seen: FlagState) -> bool:
        return is_off(seen, self.record.serve)

    def command(self) -> FlagKill:
        kill = self.kill
        stage = f" ({self.record.details['stage']})" if "stage" in self.record.details else ""
        of_run = f" {kill.run}{stage}" if kill.run else ""
        comment = f"Rampart{of_run}, decision {kill.id} by {kill.actor}: {kill.reason}"
        return FlagKill(flag=self.kill.flag, kill_id=self.kill.id, serve=self.record.serve, comment=comment)

    def status(self) -> KillStatus:
        kill = self.kill
        return KillStatus(
            kill_id=kill.id,
            flag=kill.flag,
            accepted_at=kill.accepted_at,
            actor=kill.actor,
            reason=kill.reason,
            confirmed_at=self.confirmed_at,
            run=kill.run,
        )

    def receipt(self, others: Collection[str]) -> KillReceipt:
        """`others` are all other registered replicas."""
        kill = self.kill
        return KillReceipt(
            kill_id=kill.id,
            flag=kill.flag,
            accepted_at=kill.accepted_at,
            durable=self.durable,
            provider_updated_at=self.updated_at,
            confirmed_at=self.confirmed_at,
            replicas=sorted({*self.reached, *self.covered_by, *self.heard}),
            run=kill.run,
            silent=sorted({*others} - self.heard),
            attempts=self.attempts,
        )

    def entry(self) -> AuditEntry:
        """The same entry however often it is merged, and by whom: its id is the kill's."""
        kill = self.kill
        return AuditEntry(
            id=kill.id,
            at=kill.accepted_at,
            actor=kill.actor,
            action="kill",
            cause=self.record.cause,
            subject=str(kill.flag),
            environment=kill.flag.environment,
            reason=kill.reason if kill.cause == "policy" else f"killed by {kill.actor}: {kill.reason}",
            flag=str(kill.flag),
            run=kill.run,
            details={"kill_id": kill.id, **self.record.details},
        )


def is_off(seen: FlagState, serve: Serve | None = None) -> bool:
    """Whether the flag is as its kill promised. `serve` is None when no plan is known for it.

    Off, unless an off flag serves the rollout. Or on with no share and none of our rules, and then nothing of
    others may be left that could serve it, unless the plan wants that to survive.
    """
    if not seen.enabled:
        return serve is None or seen.off_serves != serve.rollout
    spared = serve is not None and serve.kill == "fallthrough"
    return seen.exposure == 0 and not seen.audience and (spared or not seen.foreign)
