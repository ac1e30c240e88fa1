"""Kills and the database: exactly one row for every kill, both ways, and the reset that alone ends one.

A kill waits for it for a moment, if at all. What could not be recorded is tried again at every merge.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence

import structlog

from controller.access import Actor
from controller.domain.audit import AuditEntry
from controller.domain.catalogue import Kill, KillRecord
from controller.domain.plan import FlagRef
from controller.domain.status import KillStatus
from controller.errors import Conflict, ProviderUnavailable, RampartError, StoreUnavailable
from controller.held import Held
from controller.journal import Journal, MergedRecord, ResetRecord
from controller.killbook import KillBook
from controller.lowering import Lowering
from controller.ports import Clock, FlagProvider, Store

log = structlog.get_logger()


class KillLedger:
    """Merges and resets kills. `store_answers`: whether the latest attempt to reach the database succeeded."""

    def __init__(
        self,
        *,
        killbook: KillBook,
        lowering: Lowering,
        journal: Journal,
        store: Store,
        providers: Mapping[str, FlagProvider],
        clock: Clock,
        provider_timeout_seconds: float,
        remember: Callable[[], Awaitable[None]],
    ) -> None:
        """`remember` saves the last known state: what a cold start serves once the journal holds no kill."""
        self._killbook = killbook
        self._lowering = lowering
        self._journal = journal
        self._store = store
        self._providers = providers
        self._clock = clock
        self._timeout = provider_timeout_seconds
        self._remember = remember
        self.store_answers = True

    # — merge —

    async def merge(self) -> None:
        """Called when the database answers again, and regularly. Raises StoreUnavailable."""
        try:
            await self._merge_all()
        except StoreUnavailable:
            self.store_answers = False
            raise
        self.store_answers = True

    async def _merge_all(self) -> None:
        await self._recognise()
        for held in self._killbook.in_force():
            if not held.merged and not await self.record(held):
                # One wait is enough to know.
                self._killbook.put_last(held)
                raise StoreUnavailable("the database does not take up kills; they are kept and tried again")
            if held.merged and held.confirmed_at is not None and not held.confirmation_stored:
                await self._store.confirm_kill(held.kill.id, held.confirmed_at)
                held.confirmation_stored = True
        await self._compare()

    async def _compare(self) -> None:
        """With what is in force in the database: what came or went elsewhere comes or goes here."""
        recorded = [held for held in self._killbook.in_force() if held.merged]
        asked = self._killbook.mark()
        active = {one.kill.id: one for one in await self._store.active_kills()}
        for kill_id, one in active.items():
            # What was reset here since the question is still in force in the answer.
            if kill_id not in self._killbook and not self._killbook.changed(one.kill.flag, since=asked):
                await self._take_up(one.kill)
        for held in recorded:
            held.doubtful = held.doubtful and held.kill.id not in active
        missing = [held for held in recorded if held.kill.id not in active and held.kill.id in self._killbook]
        if missing:
            await self._settle_missing(missing)
        fresh = {kill_id for kill_id in active if kill_id in self._killbook} - self._journal.merged
        if fresh:
            await self._journal.append(MergedRecord(kill_ids=tuple(sorted(fresh))))

    async def _take_up(self, kill: Kill) -> None:
        held = self._killbook.hold(KillRecord(kill=kill, serve=self._killbook.serve(kill.flag)))
        held.merged = True
        held.durable = await self._journal.append(held.record)
        await self._lowering.lower(held)

    async def _recognise(self) -> None:
        """What the database has already, by one question: a restart must not take longer with a thousand kills."""
        if sum(not held.merged for held in self._killbook.in_force()) < 2:
            return
        for one in await self._store.active_kills():
            held = self._killbook.get(one.kill.id)
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

    async def record(self, held: Held) -> bool:
        """False: the database did not take it up. The next merge tries again."""
        try:
            await self._store.record_kill(held.kill, held.entry())
        except StoreUnavailable as error:
            self.store_answers = False
            log.warning("kill_not_merged", kill_id=held.kill.id, error=str(error))
            return False
        self.store_answers = True
        held.merged = True
        return True

    def all_merged(self) -> bool:
        return all(held.merged for held in self._killbook.in_force())

    async def forgotten(self) -> None:
        """Another life of the database may have lost what it once confirmed: merge everything again."""
        for held in self._killbook.in_force():
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
        flags = self._killbook.match(key, environment, provider)
        in_force = {kill_id for flag in flags for kill_id in self._killbook.holds(flag)}
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
        covered = [held for held in self._killbook.holding(flag) if held.kill.id in kill_ids]
        for held in covered:
            if not held.merged:
                await self.record(held)
            if not held.merged:
                raise StoreUnavailable(
                    "the kill is not in the database yet, so it cannot be reset; try again later"
                )
        self._require_confirmed(covered)
        if not covered:
            return []
        entry = self._reset_entry(flag, covered, actor, note)
        await self._settle(covered)
        await self._store.reset_kills(flag, [held.kill.id for held in covered], entry)
        statuses = [held.status() for held in covered]
        for held in covered:
            await self._let_go(held)
        return statuses

    def _reset_entry(self, flag: FlagRef, covered: Sequence[Held], actor: Actor, note: str) -> AuditEntry:
        kill_ids = [held.kill.id for held in covered]
        return AuditEntry(
            id=uuid.uuid4().hex,
            at=self._clock.now(),
            actor=actor.name,
            action="reset",
            cause="user",
            subject=str(flag),
            environment=flag.environment,
            reason=f"reset {', '.join(kill_ids)}" + (f": {note}" if note else "") + "; the flag stays off",
            flag=str(flag),
            details={"kill_ids": kill_ids},
        )

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
        self._killbook.release(held)
        await self._remember()
        await self._journal.append(ResetRecord(kill_id=held.kill.id))
