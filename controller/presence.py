"""Whether this replica, and every other, has all its kills in the present life of the database.

Nothing rises before that: a replica that is silent, or has not merged its journal since the database was last
restarted or failed over, may know of a kill that the database does not. The commit of a raise checks it again.
"""

import asyncio
import uuid

import structlog

from controller.domain.audit import AuditEntry
from controller.domain.catalogue import Barrier, Head, Replica, Roll
from controller.domain.status import Raises, ReplicaStatus
from controller.errors import StoreUnavailable
from controller.journal import HeadRecord, Journal
from controller.kill_ledger import KillLedger
from controller.killbook import KillBook
from controller.ports import Clock, Store
from controller.telemetry import Metrics

log = structlog.get_logger()

HEAD_SECONDS = 30.0
"""How often the end of the audit log is written to the journal; in between it is remembered in memory."""

NOT_MERGED = "the database does not answer this replica, or has not taken up all kills that it knows"


class Presence:
    """`merged`: everything known here is in the database. `obstacles`: why nothing may rise, in words."""

    def __init__(
        self,
        *,
        replica: Replica,
        store: Store,
        killbook: KillBook,
        kill_ledger: KillLedger,
        journal: Journal,
        clock: Clock,
        metrics: Metrics,
        valid_seconds: float,
    ) -> None:
        self.replica = replica
        self._store = store
        self._killbook = killbook
        self._kill_ledger = kill_ledger
        self._journal = journal
        self._clock = clock
        self._metrics = metrics
        self._valid_seconds = valid_seconds
        self.merged = False
        self.obstacles: tuple[str, ...] = ()
        self.versions: frozenset[str] = frozenset()
        self.roll: Roll | None = None
        self._life = ""
        self._acknowledged = ""
        self._turn = asyncio.Lock()  # a roll is compared with the head it was asked about
        self._head = journal.head
        self._head_kept_at = clock.monotonic()
        metrics.raises_blocked(len([NOT_MERGED]))

    async def check_in(self) -> None:
        """Merge every kill, then say so. Raises StoreUnavailable; whether it counted is unknown then."""
        async with self._turn:
            try:
                await self._check_in()
            except StoreUnavailable as error:
                self.lose(error)
                raise

    async def _check_in(self) -> None:
        await self._kill_ledger.merge()
        if not self._kill_ledger.all_merged():
            return  # a kill came meanwhile: what we say must be true when we say it
        roll = await self._say()
        if not roll.counted:
            log.warning("database_lives_anew", life=roll.life)
            # Before we count as present: what was lost must block raises from the first moment they could be.
            await self._compare(roll)
            await self._require_acknowledged(roll.head)
            await self._kill_ledger.forgotten()
            self._life = roll.life
            if not self._kill_ledger.all_merged():
                return
            roll = await self._say()
        if not roll.counted:
            return  # restarted again: the next round says it
        self._killbook.meet(roll.others)
        self.versions = frozenset((self.replica.version, *roll.versions))
        await self._compare(roll)
        self.obstacles = roll.obstacles
        self.roll = roll
        self._metrics.raises_blocked(len(self.obstacles))
        self._metrics.replicas(present=1 + len(roll.others) - len(roll.absent), absent=len(roll.absent))
        if not self.merged:
            self.merged = True
            log.info("database_answers", replicas=[self.replica.name, *roll.others])

    def raises(self) -> Raises:
        """As the latest answer of the database had it; from memory."""
        here = ReplicaStatus(name=self.replica.name, state="here")
        absent = {one.name: one.seen_at for one in self.roll.absent} if self.roll else {}
        others = self.roll.others if self.roll else sorted(self._killbook.others)
        if not self.merged:
            unknown = [ReplicaStatus(name=name, state="unknown") for name in others]
            return Raises(allowed=False, database_answers=False, obstacles=[NOT_MERGED], replicas=[here, *unknown])
        seen = [
            ReplicaStatus(name=name, state="absent" if name in absent else "present", seen_at=absent.get(name))
            for name in others
        ]
        return Raises(
            allowed=not self.obstacles,
            database_answers=True,
            obstacles=list(self.obstacles),
            replicas=[here, *seen],
        )

    async def leave(self) -> None:
        """Stop for good, or until the next start: with everything merged nobody has to wait for us."""
        if self.merged and self._kill_ledger.all_merged():
            await self._keep(self._head)
            await self._store.check_out(self.replica.name)

    def lose(self, error: StoreUnavailable) -> None:
        if self.merged:
            log.error("database_lost", error=str(error))
        self.merged = False
        self._metrics.raises_blocked(len([NOT_MERGED]))

    async def _say(self) -> Roll:
        return await self._store.check_in(
            self.replica, life=self._life, valid_seconds=self._valid_seconds, remembered=self._head.sequence
        )

    async def _compare(self, roll: Roll) -> None:
        """The log that we remember must be a beginning of the one that is there."""
        ours = self._head
        if ours.sequence and roll.remembered != ours.hash:
            what = f"audit row {ours.sequence} ({ours.hash.hex()[:12]}…)"
            await self._block(f"head-{ours.sequence}-{ours.hash.hex()[:16]}", what, roll.head)
        if roll.head == ours:
            return
        self._head = roll.head
        now = self._clock.monotonic()
        if now - self._head_kept_at >= HEAD_SECONDS or roll.head.sequence < ours.sequence:
            self._head_kept_at = now
            await self._keep(roll.head)

    def acknowledge(self, entry_id: str) -> None:
        """The database said that this is recorded, and somebody may have been told: no later life may miss it."""
        self._acknowledged = entry_id

    async def _require_acknowledged(self, theirs: Head) -> None:
        """The end of the log is remembered at each check-in; what was recorded since then has no other witness."""
        entry_id = self._acknowledged
        if entry_id and await self._store.committed(entry_id) is None:
            what = f"an entry that was recorded since its last check-in ({entry_id[:12]}…)"
            await self._block(f"entry-{entry_id}", what, theirs)
            self._acknowledged = ""

    async def _block(self, barrier_id: str, remembered: str, theirs: Head) -> None:
        reason = (
            f"the database lost history: {self.replica.name} remembers {remembered}, the log there now ends at "
            f"row {theirs.sequence}; pauses, resets and decisions after the loss are gone, so a person must look"
        )
        barrier = Barrier(id=barrier_id, reason=reason, raised_at=self._clock.now())
        log.error("audit_history_lost", remembered=remembered, head=theirs.sequence)
        entry = AuditEntry(
            id=uuid.uuid4().hex, at=barrier.raised_at, actor="rampart", action="block_raises", cause="provider",
            subject=barrier.id, environment="", reason=reason,
        )  # fmt: skip
        await self._store.raise_barrier(barrier, entry)

    async def _keep(self, head: Head) -> None:
        if head != self._journal.head:
            await self._journal.append(HeadRecord(head=head))
