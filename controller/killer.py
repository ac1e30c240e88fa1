"""The kill path. It needs no lease, no database, no metric source and no other replica.

accept from memory → journal (fsync), provider, database and the other replicas at the same time → read back →
answer. What is not confirmed is tried again, at most a second apart, until it is read back as off.
"""

import asyncio
import math
import uuid
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, Literal

import structlog

from controller.access import Actor
from controller.domain.audit import AuditEntry
from controller.domain.catalogue import Kill, KillRecord, PeerAnswer
from controller.domain.flag import FlagState, Unknown
from controller.domain.plan import FlagRef, Serve
from controller.domain.status import KillReceipt, KillStatus
from controller.errors import (
    Conflict,
    KillInForce,
    NotFound,
    ProviderUnavailable,
    RampartError,
    StoreUnavailable,
)
from controller.faultpoints import reach
from controller.held import Held, is_off
from controller.journal import Journal, MergedRecord, ResetRecord
from controller.lastknown import KnownFlag
from controller.ports import Clock, FlagProvider, Peers, Store
from controller.telemetry import Metrics

log = structlog.get_logger()

ANSWER_WITHIN_SECONDS = 2.0
"""How long an answer waits for disk and provider. What is not done by then goes on and is shown as such."""

STORE_WAIT_SECONDS = 0.05
"""How long an answer waits for the database row. The row itself is tried without end."""

DISK_WAIT_SECONDS = 0.05
"""How long another replica, which told us of a kill, waits for our disk. Until it has it we may still raise."""

PEERS_WAIT_SECONDS = 0.25
"""How long the proof of a kill waits for the other replicas before it reads back without them."""

DOUBTFUL_SECONDS = 5.0
"""How long after a start the database is waited for, before a kill that it once had is pressed on with unasked."""

RELEASED_KEPT = 10_000
"""How many reset kills are remembered, so that a late word of one does not bring it back."""


class Killer:
    """Accepts, applies, confirms, merges and resets kills. `known` maps flags to the plans that name them."""

    def __init__(
        self,
        *,
        journal: Journal,
        store: Store,
        providers: Mapping[str, FlagProvider],
        clock: Clock,
        metrics: Metrics,
        replica: str,
        peers: Peers,
        provider_timeout_seconds: float,
        quiet_seconds: float,
        remember: Callable[[], Awaitable[None]],
    ) -> None:
        """`remember` saves the last known state: what a cold start serves once the journal holds no kill.

        After `quiet_seconds` no write can be on its way any more that another replica decided before it knew.
        """
        self._journal = journal
        self._store = store
        self._providers = providers
        self._clock = clock
        self._metrics = metrics
        self._replica = replica
        self._peers = peers
        self._timeout = provider_timeout_seconds
        self._quiet_seconds = quiet_seconds
        self._remember = remember
        self._others: frozenset[str] = frozenset()
        self._released: dict[str, None] = {}
        self._held: dict[str, Held] = {}
        self._of_flag: dict[FlagRef, dict[str, Held]] = {}
        self._changes = 0
        self._latest: dict[FlagRef, int] = {}
        self._known: dict[FlagRef, KnownFlag] = {}
        self._flags: frozenset[FlagRef] = frozenset()
        self._automatic: deque[datetime] = deque(maxlen=1000)
        self._writes: defaultdict[FlagRef, set[asyncio.Event]] = defaultdict(set)
        self._unsettled: dict[FlagRef, float] = {}
        self._store_answers = True
        self._tasks: set[asyncio.Task[None]] = set()

    # — what is known and in force —

    def learn(self, known: Iterable[KnownFlag], flags: Iterable[FlagRef] = ()) -> None:
        """The flags that plans name, and others that can be killed by their bare key."""
        self._known = {entry.flag: entry for entry in known}
        self._flags = frozenset(flags)

    def known(self) -> list[KnownFlag]:
        return list(self._known.values())

    def resume_journal(self) -> None:
        """Take up every kill the journal holds. They count as unconfirmed until read back.

        From here on nothing rises against them. One that the database once had may have been reset while this
        replica was away, and a new run begun: the provider is told of it once the database says it is in force.
        """
        for record in self._journal.kills.values():
            if record.kill.id not in self._held:
                held = self._hold(record)
                held.durable, held.doubtful = True, record.kill.id in self._journal.merged

    def meet(self, others: Iterable[str]) -> None:
        """The names of all other registered replicas: no kill is called confirmed while they may still raise."""
        self._others = frozenset(others)

    def others(self) -> list[str]:
        return sorted(self._others)

    def holds(self, flag: FlagRef) -> list[str]:
        """The ids of the kills that hold the flag. Asked for every run at every tick."""
        return list(self._of_flag.get(flag, ()))

    def mark(self) -> int:
        """A moment to hand to `writing`: whoever read or decided then knows of the kills and resets up to it."""
        return self._changes

    def _change(self, flag: FlagRef) -> None:
        self._changes += 1
        self._latest[flag] = self._changes

    def _hold(self, record: KillRecord) -> Held:
        held = Held(record=record, since=self._clock.monotonic())
        self._change(held.kill.flag)
        self._released.pop(held.kill.id, None)
        self._held[held.kill.id] = held
        self._of_flag.setdefault(held.kill.flag, {})[held.kill.id] = held
        if held.kill.cause == "policy":
            self._automatic.append(held.kill.accepted_at)
        return held

    def in_force(self) -> list[Held]:
        return list(self._held.values())

    def active(self) -> list[KillStatus]:
        return [held.status() for held in self._held.values()]

    def kills_of(self, flag: FlagRef) -> list[KillStatus]:
        return [held.status() for held in self._of_flag.get(flag, {}).values()]

    def automatic_kills(self, within_seconds: float) -> int:
        since = self._clock.now() - timedelta(seconds=within_seconds)
        return sum(at >= since for at in self._automatic)

    # — kill —

    async def kill(
        self, *, key: str, environment: str | None, provider: str | None, actor: Actor, reason: str
    ) -> list[KillReceipt]:
        """`key` is a flag key or a plan name; every match is killed. Raises NotFound, Forbidden."""
        flags = self._match(key, environment, provider)
        for flag in flags:
            actor.require("kill", flag.environment)
        killing = [self.kill_flag(flag, actor=actor.name, reason=reason, cause="user") for flag in flags]
        return list(await asyncio.gather(*killing))

    async def kill_flag(
        self,
        flag: FlagRef,
        *,
        actor: str,
        reason: str,
        cause: Literal["policy", "user"],
        run: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> KillReceipt:
        """Accepted from here on, whatever fails below."""
        held = self._accept(flag, actor, reason, cause, run, dict(details or {}))
        held.telling = self._spawn(self._tell([held]))
        lowering = {self._spawn(self._write_down(held)), self._spawn(self._lower(held))}
        merging = {self._spawn(self._merge_one(held))}
        await asyncio.wait(lowering, timeout=ANSWER_WITHIN_SECONDS)
        if self._store_answers:
            await asyncio.wait(merging, timeout=STORE_WAIT_SECONDS)
        return held.receipt(self._others)

    async def _write_down(self, held: Held) -> None:
        reach("journal.before")
        held.durable = await self._journal.append(held.record)
        reach("journal.after")

    def _accept(
        self,
        flag: FlagRef,
        actor: str,
        reason: str,
        cause: Literal["policy", "user"],
        run: str | None,
        details: dict[str, Any],
    ) -> Held:
        kill = Kill(
            id=f"kill-{uuid.uuid4().hex[:20]}",
            flag=flag,
            accepted_at=self._clock.now(),
            actor=actor,
            reason=reason,
            cause=cause,
            run=run,
        )
        held = self._hold(KillRecord(kill=kill, serve=self._serve(flag), details=details))
        held.accepted_here = True
        log.warning("kill_accepted", kill_id=kill.id, flag=str(flag), actor=actor, cause=cause, reason=reason)
        return held

    def _serve(self, flag: FlagRef) -> Serve | None:
        known = self._known.get(flag)
        return known.serve if known else None

    def _match(self, key: str, environment: str | None, provider: str | None) -> list[FlagRef]:
        """Every known flag of that key or plan; an unknown one too when there is no doubt which is meant."""

        def fits(flag: FlagRef) -> bool:
            return environment in (None, flag.environment) and provider in (None, flag.provider)

        matches = {e.flag for e in self._known.values() if key in (e.flag.key, e.plan) and fits(e.flag)}
        matches |= {flag for flag in self._flags if flag.key == key and fits(flag)}
        if matches:
            return sorted(matches)
        providers = [provider] if provider else list(self._providers)
        if environment is None or len(providers) != 1 or providers[0] not in self._providers:
            raise NotFound(
                f'no plan and no flag is called "{key}"'
                + (f" in {environment}" if environment else "")
                + "; to kill a flag that no plan names give its environment and provider"
            )
        return [FlagRef(provider=providers[0], environment=environment, key=key)]

    # — the other replicas —

    async def hear(self, records: Iterable[KillRecord]) -> PeerAnswer:
        """Another replica accepted these kills: from here on they are in force here, too."""
        known = [record for record in records if record.kill.id not in self._released]
        fresh = [self._hold(record) for record in known if record.kill.id not in self._held]
        writing_down = set()
        for held in fresh:
            self._spawn(self._lower(held))
            held.telling = self._spawn(self._tell([held]))
            writing_down.add(self._spawn(self._write_down(held)))
            self._spawn(self._merge_one(held))
            log.warning("kill_heard", kill_id=held.kill.id, flag=str(held.kill.flag), actor=held.kill.actor)
        # A built-in flag is shown off in the next turn, and what another provider makes of it is proven by the
        # read of whoever asked. Only the disk is waited for: a crash must not make what is said here untrue.
        if writing_down:
            await asyncio.wait(writing_down, timeout=DISK_WAIT_SECONDS)
        held_here = [self._held[record.kill.id] for record in known if record.kill.id in self._held]
        return PeerAnswer(
            replica=self._replica,
            holds=tuple(held.kill.id for held in held_here),
            writing=tuple(
                held.kill.id for held in held_here if self._may_land(held.kill.flag) or not held.durable
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

    def _quiet(self, held: Held) -> bool:
        """Whether no write can be on its way any more: neither ours nor one of a replica that knew of no kill."""
        if self._may_land(held.kill.flag):
            return False
        if not (held.accepted_here or held.durable or held.merged):
            return False  # a crash would make us forget what another replica told us
        long_ago = self._clock.monotonic() - held.since >= self._quiet_seconds
        return long_ago or not self._others - held.landed

    def _may_land(self, flag: FlagRef) -> bool:
        """Whether a write of ours is on its way, or its connection broke before it was answered."""
        return bool(self._writes.get(flag)) or self._unsettled.get(flag, -math.inf) > self._clock.monotonic()

    # — towards off, and the proof of it —

    async def _lower(self, held: Held) -> None:
        """One attempt: write, then read back. Leaves the kill unconfirmed when anything is in doubt."""
        provider = self._providers.get(held.kill.flag.provider)
        if provider is None:
            log.error("kill_provider_unknown", flag=str(held.kill.flag), kill_id=held.kill.id)
            return
        if held.lowering or held.kill.id not in self._held:
            return  # on its way already, or reset since somebody wanted this
        held.lowering = True
        try:
            await self._attempt(held, provider)
        finally:
            held.lowering = False

    async def _attempt(self, held: Held, provider: FlagProvider) -> None:
        flag = held.kill.flag
        held.attempts += 1
        try:
            async with asyncio.timeout(self._timeout):
                held.reached = tuple(await provider.kill(held.command()))
                held.updated_at = self._clock.now()
                if held.telling is not None and not held.telling.done():
                    await asyncio.wait({held.telling}, timeout=PEERS_WAIT_SECONDS)
                if await self._writes_landed(flag) and held.kill.id in self._held:
                    await provider.kill(held.command())
                quiet = self._quiet(held)
                seen = (await provider.observe([flag])).get(flag, Unknown("the provider did not answer for it"))
        except (ProviderUnavailable, TimeoutError) as error:
            log.warning(
                "kill_not_confirmed", flag=str(flag), kill_id=held.kill.id, error=str(error) or "timed out"
            )
            return
        if isinstance(seen, FlagState) and is_off(seen) and quiet:
            self._confirm(held)
        else:
            silent = [] if quiet else sorted(self._others - held.landed)
            log.warning("kill_not_confirmed", flag=str(flag), kill_id=held.kill.id, seen=repr(seen), silent=silent)

    def _confirm(self, held: Held) -> None:
        if held.confirmed_at is None:
            held.confirmed_at = self._clock.now()
            if held.accepted_here:
                latency = (held.confirmed_at - held.kill.accepted_at).total_seconds()
                self._metrics.kill(latency, held.kill.cause)
            log.warning("kill_confirmed", kill_id=held.kill.id, flag=str(held.kill.flag), attempts=held.attempts)

    async def _writes_landed(self, flag: FlagRef) -> bool:
        """Whether writes of ours were in flight; they have ended now. Only a read after that proves anything."""
        in_flight = list(self._writes.get(flag, ()))
        for write in in_flight:
            await write.wait()
        return bool(in_flight)

    @asynccontextmanager
    async def writing(self, flag: FlagRef, *, since: int) -> AsyncIterator[None]:
        """Every write of ours to a provider goes through here. Raises KillInForce; a later kill waits for it.

        A kill or a reset after the mark `since` forbids the write, though nothing holds the flag any more: what
        was read before may be of a run that the kill ended.
        """
        if self.holds(flag):
            raise KillInForce(f"{flag} is killed ({', '.join(self.holds(flag))}); reset it first")
        if self._latest.get(flag, 0) > since:
            raise KillInForce(f"{flag} was killed or reset after this write was decided; look again")
        landed, began = asyncio.Event(), self._clock.monotonic()
        self._writes[flag].add(landed)
        try:
            yield
        except (ProviderUnavailable, TimeoutError, asyncio.CancelledError) as error:
            if not (isinstance(error, ProviderUnavailable) and error.not_applied):
                self._unsettled[flag] = began + self._timeout  # it may still land until its deadline
            raise
        finally:
            landed.set()
            self._writes[flag].discard(landed)
            if not self._writes[flag]:
                del self._writes[flag]
        if self.holds(flag):
            # The kill came while we wrote: what we wrote may have landed after it.
            await asyncio.gather(*(self._lower(held) for held in self._of_flag.get(flag, {}).values()))

    async def retry(self) -> None:
        """Called at least once a second: press on with what is not confirmed."""
        open_kills = [held for held in self.in_force() if held.confirmed_at is None]
        oldest = min((held.kill.accepted_at for held in open_kills), default=None)
        self._metrics.kill_unconfirmed((self._clock.now() - oldest).total_seconds() if oldest else 0.0)
        self._tell_again([held for held in open_kills if self._others - held.landed])
        await asyncio.gather(*(self._lower(held) for held in open_kills if not self._in_doubt(held)))

    def _in_doubt(self, held: Held) -> bool:
        return held.doubtful and self._clock.monotonic() - held.since < DOUBTFUL_SECONDS

    async def sweep(self) -> None:
        """Called every few seconds: what was read back as off must stay off; what came back is lowered again."""
        confirmed = [held for held in self.in_force() if held.confirmed_at is not None]
        self._tell_again([held for held in confirmed if self._others - held.heard])
        for name, provider in self._providers.items():
            flags = {held.kill.flag for held in confirmed if held.kill.flag.provider == name}
            if flags:
                seen = await self._observe(provider, flags)
                risen = [
                    h for h in confirmed if isinstance(s := seen.get(h.kill.flag), FlagState) and not is_off(s)
                ]
                await asyncio.gather(*(self._came_back(held) for held in risen))

    async def _observe(
        self, provider: FlagProvider, flags: Collection[FlagRef]
    ) -> Mapping[FlagRef, FlagState | Unknown]:
        try:
            async with asyncio.timeout(self._timeout):
                return await provider.observe(flags)
        except TimeoutError:
            return {flag: Unknown("the provider did not answer in time") for flag in flags}

    async def _came_back(self, held: Held) -> None:
        log.error("killed_flag_came_back", flag=str(held.kill.flag), kill_id=held.kill.id)
        held.confirmed_at = None
        await self._lower(held)

    # — the database —

    async def merge(self) -> None:
        """Called when the database answers again, and regularly: exactly one row for every kill, both ways."""
        try:
            await self._merge_all()
        except StoreUnavailable:
            self._store_answers = False
            raise
        self._store_answers = True

    async def _merge_all(self) -> None:
        await self._recognise()
        for held in self.in_force():
            if not held.merged and not await self._merge_one(held):
                # One wait is enough to know. What waits last in line next time is not in the way of the others.
                if held.kill.id in self._held:
                    self._held[held.kill.id] = self._held.pop(held.kill.id)
                raise StoreUnavailable("the database does not take up kills; they are kept and tried again")
            if held.merged and held.confirmed_at is not None and not held.confirmation_stored:
                await self._store.confirm_kill(held.kill.id, held.confirmed_at)
                held.confirmation_stored = True
        recorded, asked = [held for held in self.in_force() if held.merged], self.mark()
        active = {one.kill.id: one for one in await self._store.active_kills()}
        for kill_id, one in active.items():
            # What was reset here since the question is still in force in the answer.
            if kill_id not in self._held and self._latest.get(one.kill.flag, 0) <= asked:
                held = self._hold(KillRecord(kill=one.kill, serve=self._serve(one.kill.flag)))
                held.merged = True
                held.durable = await self._journal.append(held.record)
                await self._lower(held)
        for held in recorded:
            held.doubtful = held.doubtful and held.kill.id not in active
        missing = [held for held in recorded if held.kill.id not in active and held.kill.id in self._held]
        if missing:
            await self._settle_missing(missing)
        fresh = self._held.keys() & active.keys() - self._journal.merged
        if fresh:
            await self._journal.append(MergedRecord(kill_ids=tuple(sorted(fresh))))

    async def _recognise(self) -> None:
        """What the database has already, by one question: a restart must not take longer with a thousand kills."""
        if sum(not held.merged for held in self.in_force()) < 2:
            return
        for one in await self._store.active_kills():
            held = self._held.get(one.kill.id)
            if held is not None:
                held.merged = True
                held.confirmation_stored = held.confirmation_stored or one.confirmed_at is not None

    async def _settle_missing(self, missing: Sequence[Held]) -> None:
        """Recorded once, and not in force there now: a reset elsewhere ends a kill, oblivion does not."""
        reset = await self._store.reset_among([held.kill.id for held in missing])
        for held in missing:
            if held.kill.id in reset:
                await self._let_go(held)
            else:
                held.merged = held.confirmation_stored = False

    async def _merge_one(self, held: Held) -> bool:
        try:
            await self._store.record_kill(held.kill, held.entry())
        except StoreUnavailable as error:
            self._store_answers = False
            log.warning("kill_not_merged", kill_id=held.kill.id, error=str(error))
            return False
        self._store_answers = True
        held.merged = True
        return True

    def all_merged(self) -> bool:
        return all(held.merged for held in self._held.values())

    async def forgotten(self) -> None:
        """Another life of the database may have lost what it once confirmed: merge everything again."""
        for held in self._held.values():
            held.merged = held.confirmation_stored = False
        await self.merge()

    # — reset —

    async def reset(
        self,
        *,
        key: str,
        environment: str | None,
        provider: str | None,
        kill_ids: Collection[str],
        actor: Actor,
        note: str,
    ) -> list[KillStatus]:
        """Release the named kills of the flag. The flag stays off. Raises NotFound, Conflict, Forbidden."""
        flags = self._match(key, environment, provider)
        in_force = {kill_id for flag in flags for kill_id in self.holds(flag)}
        unknown = sorted(set(kill_ids) - in_force)
        if unknown or not kill_ids:
            raise Conflict(
                f"{key} is not held by {', '.join(unknown)}"
                if unknown
                else f"name the kill ids of {key} to reset",
            )
        for flag in flags:
            actor.require("operate", flag.environment)
        return [status for flag in flags for status in await self._reset_flag(flag, kill_ids, actor, note)]

    async def _reset_flag(
        self, flag: FlagRef, kill_ids: Collection[str], actor: Actor, note: str
    ) -> Sequence[KillStatus]:
        covered = [self._held[kill_id] for kill_id in self.holds(flag) if kill_id in kill_ids]
        for held in covered:
            if not held.merged:
                await self._merge_one(held)
            if not held.merged:
                raise StoreUnavailable(
                    "the kill is not in the database yet, so it cannot be reset; try again later"
                )
        self._require_confirmed(covered)
        if not covered:
            return []
        names = ", ".join(held.kill.id for held in covered)
        entry = AuditEntry(
            id=uuid.uuid4().hex,
            at=self._clock.now(),
            actor=actor.name,
            action="reset",
            cause="user",
            subject=str(flag),
            environment=flag.environment,
            reason=f"reset {names}" + (f": {note}" if note else "") + "; the flag stays off",
            flag=str(flag),
            details={"kill_ids": [held.kill.id for held in covered]},
        )
        await self._settle(covered)
        await self._store.reset_kills(flag, [held.kill.id for held in covered], entry)
        statuses = [held.status() for held in covered]
        for held in covered:
            await self._let_go(held)
        return statuses

    def _require_confirmed(self, covered: Iterable[Held]) -> None:
        """Until then a raise may be on its way to the provider, and after a reset nothing would lower it."""
        for held in covered:
            if held.confirmed_at is None and held.kill.flag.provider in self._providers:
                raise Conflict(f"{held.kill.id} is not confirmed yet: wait until the flag was read back as off")

    async def _settle(self, covered: Iterable[Held]) -> None:
        """Before the reset, because after it a new run may begin: from then on nothing of this kill is written."""
        for held in covered:
            provider = self._providers.get(held.kill.flag.provider)
            if provider is not None:
                try:
                    async with asyncio.timeout(self._timeout):
                        await provider.settle_kill(held.command())
                except TimeoutError as error:
                    raise ProviderUnavailable("the provider did not answer in time; try again") from error

    async def _let_go(self, held: Held) -> None:
        """The journal forgets last: dying in between, the flag is held down once too often, not too little."""
        provider = self._providers.get(held.kill.flag.provider)
        if provider is not None:
            try:
                async with asyncio.timeout(self._timeout):
                    await provider.forget_kill(held.command())
            except (RampartError, TimeoutError) as error:
                log.warning("kill_not_released", kill_id=held.kill.id, error=str(error) or "timed out")
                return
        # No wait since the provider let go: whoever reloads flags must not find the kill in force again.
        self._change(held.kill.flag)
        self._held.pop(held.kill.id, None)
        of_flag = self._of_flag.get(held.kill.flag, {})
        of_flag.pop(held.kill.id, None)
        if not of_flag:
            self._of_flag.pop(held.kill.flag, None)
        self._released[held.kill.id] = None
        if len(self._released) > RELEASED_KEPT:
            del self._released[next(iter(self._released))]
        await self._remember()
        await self._journal.append(ResetRecord(kill_id=held.kill.id))

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
