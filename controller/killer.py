"""The kill path. It needs no lease, no database, no metric source and no other replica.

accept from memory → journal (fsync), provider, database and the other replicas at the same time → read back →
answer. What is not confirmed is tried again, at most a second apart, until it is read back as off.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

import structlog
from msgspec import Struct

from controller.access import Actor
from controller.domain.catalogue import Kill, KillRecord, PeerAnswer
from controller.domain.plan import FlagRef
from controller.domain.status import KilledAndNot, KillReceipt, NotKilled
from controller.errors import Forbidden, NotFound
from controller.faultpoints import reach
from controller.held import Held
from controller.in_flight import InFlight
from controller.journal import Journal
from controller.kill_ledger import KillLedger
from controller.killbook import KillBook
from controller.lowering import Lowering
from controller.ports import Clock, Peers
from controller.telemetry import KilledFlag, Metrics

log = structlog.get_logger()

ANSWER_WITHIN_SECONDS = 2.0
"""How long an answer waits for disk and provider. What is not done by then goes on and is shown as such."""

STORE_WAIT_SECONDS = 0.05
"""How long an answer waits for the database row. The row itself is tried without end."""

DISK_WAIT_SECONDS = 0.05
"""How long another replica, which told us of a kill, waits for our disk. Until it has it we may still raise."""

MERGED_AT_ONCE = 6
"""Of many kills that were ordered together. The pool has a few connections more, for everything else."""

AT_A_TIME = 50
"""Of many flags that are killed together: one write to disk, and how long another kill waits for its turn."""

APART_SECONDS = 0.002
ROUND_SECONDS = 0.25
"""Between two attempts of one round, and from its first to its last."""

DOUBTFUL_SECONDS = 5.0
"""How long after a start the database is waited for, before a kill that it once had is pressed on with unasked."""


class UnderWay(Struct, frozen=True):
    """What was begun for kills that were accepted together."""

    lowering: set[asyncio.Task[None]]
    merging: set[asyncio.Task[None]]


class Killer:
    """Accepts kills, hears and tells of them, and presses on until each is confirmed."""

    def __init__(
        self,
        *,
        killbook: KillBook,
        in_flight: InFlight,
        lowering: Lowering,
        ledger: KillLedger,
        journal: Journal,
        peers: Peers,
        clock: Clock,
        metrics: Metrics,
        replica: str,
    ) -> None:
        self._killbook = killbook
        self._in_flight = in_flight
        self._lowering = lowering
        self._ledger = ledger
        self._journal = journal
        self._peers = peers
        self._clock = clock
        self._metrics = metrics
        self._replica = replica
        self._tasks: set[asyncio.Task[None]] = set()
        self._merging = asyncio.Semaphore(MERGED_AT_ONCE)
        metrics.kills_in_force(self._killed_flags)

    # — kill —

    async def kill(
        self, *, key: str, environment: str | None, provider: str | None, actor: Actor, reason: str
    ) -> list[KillReceipt]:
        """`key` is a flag key or a plan name; every match is killed. Raises NotFound, Forbidden."""
        flags = self._killbook.match(key, environment, provider)
        for flag in flags:
            actor.require("kill", flag.environment)
        killing = [self.kill_flag(flag, actor=actor.name, reason=reason, cause="user") for flag in flags]
        return list(await asyncio.gather(*killing))

    async def kill_flags(self, flags: Sequence[FlagRef], *, actor: Actor, reason: str) -> KilledAndNot:
        """All at once, and each for itself: what is refused to one hinders no other."""
        refused = {flag: why for flag in flags if (why := self._why_not(flag, actor))}
        allowed = [flag for flag in dict.fromkeys(flags) if flag not in refused]
        held: list[Held] = []
        under_way: list[UnderWay] = []
        for start in range(0, len(allowed), AT_A_TIME):
            if start:
                await asyncio.sleep(0)  # somebody else's kill comes in between
            part = [self._accept(self._order(flag, actor, reason), {}) for flag in allowed[start:][:AT_A_TIME]]
            under_way.append(self._begin(part))
            held += part
        await self._wait(under_way)
        others = self._killbook.others
        return KilledAndNot(
            kills=[one.receipt(others) for one in held],
            refused=[NotKilled(flag=flag, why=why) for flag, why in refused.items()],
        )

    def _why_not(self, flag: FlagRef, actor: Actor) -> str:
        try:
            actor.require("kill", flag.environment)
            self._killbook.require_provider(flag)
        except (Forbidden, NotFound) as error:
            return str(error)
        return ""

    def _order(self, flag: FlagRef, actor: Actor, reason: str) -> Kill:
        return Kill(id=_fresh_id(), flag=flag, accepted_at=self._clock.now(), actor=actor.name, reason=reason)

    async def kill_flag(
        self,
        flag: FlagRef,
        *,
        actor: str,
        reason: str,
        cause: Literal["policy", "user"],
        run: str | None = None,
        details: Mapping[str, Any] | None = None,
        kill_id: str = "",
    ) -> KillReceipt:
        """Accepted from here on, whatever fails below. `kill_id`: of a kill that others may order as well."""
        kill = Kill(
            id=kill_id or _fresh_id(),
            flag=flag,
            accepted_at=self._clock.now(),
            actor=actor,
            reason=reason,
            cause=cause,
            run=run,
        )
        held = self._accept(kill, dict(details or {}))
        await self._wait([self._begin([held])])
        return held.receipt(self._killbook.others)

    def _begin(self, kills: Sequence[Held]) -> UnderWay:
        """Everything that follows from having accepted them, in the same moment."""
        telling = self._spawn(self._tell(kills))
        for held in kills:
            held.telling = telling
        lowering = {self._spawn(self._write_down(kills)), self._spawn(self._press_on(kills))}
        merge = self._ledger.record if len(kills) == 1 else self._merge_in_turn
        return UnderWay(lowering=lowering, merging={self._spawn(merge(held)) for held in kills})

    async def _wait(self, under_way: Sequence[UnderWay]) -> None:
        """For what an answer should tell, and not for longer."""
        if not under_way:
            return
        lowering = set().union(*(one.lowering for one in under_way))
        await asyncio.wait(lowering, timeout=ANSWER_WITHIN_SECONDS)
        if self._ledger.store_answers:
            merging = set().union(*(one.merging for one in under_way))
            await asyncio.wait(merging, timeout=STORE_WAIT_SECONDS)

    async def _merge_in_turn(self, held: Held) -> None:
        """A thousand at once would wait for the database's few connections, and give up.

        While it does not answer they are left to the ledger, which merges whatever is not merged.
        """
        async with self._merging:
            if self._ledger.store_answers:
                await self._ledger.record(held)

    async def _write_down(self, kills: Sequence[Held]) -> None:
        reach("journal.before")
        records = [held.record for held in kills]
        durable = await (self._journal.append_all(records) if records[1:] else self._journal.append(records[0]))
        for held in kills:
            held.durable = durable
        reach("journal.after")

    def _accept(self, kill: Kill, details: dict[str, Any]) -> Held:
        record = KillRecord(kill=kill, serve=self._killbook.serve(kill.flag), details=details)
        held = self._killbook.hold(record)
        held.accepted_here = True
        log.warning(
            "kill_accepted",
            kill_id=kill.id,
            flag=str(kill.flag),
            actor=kill.actor,
            cause=record.cause,
            reason=kill.reason,
        )
        return held

    # — the other replicas —

    async def hear(self, records: Iterable[KillRecord]) -> PeerAnswer:
        """Another replica accepted these kills: from here on they are in force here, too."""
        known = [record for record in records if not self._killbook.was_released(record.kill.id)]
        fresh = [self._killbook.hold(record) for record in known if record.kill.id not in self._killbook]
        writing_down = set()
        for held in fresh:
            self._spawn(self._lowering.lower(held))
            held.telling = self._spawn(self._tell([held]))
            writing_down.add(self._spawn(self._write_down([held])))
            self._spawn(self._ledger.record(held))
            log.warning("kill_heard", kill_id=held.kill.id, flag=str(held.kill.flag), actor=held.kill.actor)
        # A built-in flag is shown off in the next turn, and what another provider makes of it is proven by the
        # read of whoever asked. Only the disk is waited for: a crash must not make what is said here untrue.
        if writing_down:
            await asyncio.wait(writing_down, timeout=DISK_WAIT_SECONDS)
        held_here = [here for record in known if (here := self._killbook.get(record.kill.id)) is not None]
        return PeerAnswer(
            replica=self._replica,
            holds=tuple(held.kill.id for held in held_here),
            writing=tuple(
                held.kill.id for held in held_here if self._in_flight.may_land(held.kill.flag) or not held.durable
            ),
        )

    async def _tell(self, kills: Sequence[Held]) -> None:
        async for answer in self._peers.tell([held.record for held in kills]):
            for held in kills:
                if held.kill.id in answer.holds:
                    held.heard.add(answer.replica)
                    if held.kill.id not in answer.writing:
                        held.landed.add(answer.replica)

    def _tell_again(self, kills: Iterable[Held]) -> None:
        """Waits for nobody: a replica that hangs must not put off what is done about the kill here."""
        idle = [held for held in kills if held.telling is None or held.telling.done()]
        if idle:
            telling = self._spawn(self._tell(idle))
            for held in idle:
                held.telling = telling

    # — our own writes, and what is not done yet —

    @asynccontextmanager
    async def writing(self, flag: FlagRef, *, since: int) -> AsyncIterator[None]:
        """Every write of ours to a provider goes through here. Raises KillInForce; a later kill waits for it.

        `since` is the mark of the killbook from before whatever the write rests on was read.
        """
        self._killbook.permit_write(flag, since=since)
        with self._in_flight.write(flag):
            yield
        if self._killbook.holds(flag):
            # The kill came while we wrote: what we wrote may have landed after it.
            await asyncio.gather(*(self._lowering.lower(held) for held in self._killbook.holding(flag)))

    async def retry(self) -> None:
        """Called at least once a second: press on with what is not confirmed."""
        open_kills = [held for held in self._killbook.in_force() if held.confirmed_at is None]
        oldest = min((held.kill.accepted_at for held in open_kills), default=None)
        self._metrics.kill_unconfirmed((self._clock.now() - oldest).total_seconds() if oldest else 0.0)
        self._tell_again([held for held in open_kills if self._killbook.others - held.landed])
        await self._press_on([held for held in open_kills if not self._in_doubt(held)])

    def _killed_flags(self) -> list[KilledFlag]:
        """A flag that is killed twice is no second reason to look at it."""
        oldest: dict[FlagRef, Held] = {}
        for held in sorted(self._killbook.in_force(), key=lambda one: (one.kill.accepted_at, one.kill.id)):
            oldest.setdefault(held.kill.flag, held)
        return [
            KilledFlag(
                flag=flag,
                rollout=self._killbook.rollout_of(held.kill),
                cause=held.record.cause,
                accepted_at=held.kill.accepted_at,
                confirmed=all(one.confirmed_at is not None for one in self._killbook.holding(flag)),
            )
            for flag, held in oldest.items()
        ]

    async def _press_on(self, open_kills: Sequence[Held]) -> None:
        """Not all in one moment: a hundred attempts begun at once would keep a new kill waiting."""
        attempts: list[asyncio.Task[None]] = []
        for held in open_kills:
            if attempts:
                await asyncio.sleep(min(APART_SECONDS, ROUND_SECONDS / len(open_kills)))
            attempts.append(self._spawn(self._lowering.lower(held)))
        await asyncio.gather(*attempts)

    def _in_doubt(self, held: Held) -> bool:
        return held.doubtful and self._clock.monotonic() - held.since < DOUBTFUL_SECONDS

    async def sweep(self) -> None:
        """Called every few seconds: what was read back as off must stay off; what came back is lowered again."""
        confirmed = [held for held in self._killbook.in_force() if held.confirmed_at is not None]
        self._tell_again([held for held in confirmed if self._killbook.others - held.heard])
        await self._lowering.keep_off(confirmed)

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _fresh_id() -> str:
    return f"kill-{uuid.uuid4().hex[:20]}"
