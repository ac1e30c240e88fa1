"""What pages show: from the database while it answers soon, and what is in memory when it does not.

Nobody waits here for long, and one read serves all who look at the same moment.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from controller.domain.audit import AuditEntry
from controller.domain.explain import summary_of
from controller.domain.plan import FlagRef
from controller.domain.status import KillReceipt, KillStatus, PlanSummary, RunStatus
from controller.errors import NotFound, Unavailable
from controller.facade import Engine

READ_WITHIN_SECONDS = 1.5
IMPATIENT_SECONDS = 0.25
"""While the latest read failed: whoever is paged does not wait for it again."""

FRESH_SECONDS = 1.0
MOST_READS = 2_000
EVENTS_SHOWN = 10


class Dead(Struct, frozen=True, kw_only=True):
    """A kill in force: who and why, and how far it has come."""

    status: KillStatus
    receipt: KillReceipt


class Rollout(Struct, frozen=True, kw_only=True):
    """One plan. `stale` says why this is the last known state, as of `as_of`; empty when it was just read.

    `status` is None when it never ran, or (then `stale`) when nothing is known of it here.
    """

    name: str
    flag: FlagRef
    as_of: datetime
    status: RunStatus | None = None
    kills: list[Dead] = []
    events: tuple[AuditEntry, ...] = ()
    stale: str = ""

    @property
    def state(self) -> str:
        """A phase, `never` or `unknown`. What is in memory of kills is newer than any database."""
        if self.kills:
            return "killed"
        if self.status is None:
            return "unknown" if self.stale else "never"
        return self.status.phase

    @property
    def off(self) -> bool:
        """Whether every kill in force was read back: one that was may be older than a flag that came back."""
        return bool(self.kills) and all(kill.receipt.confirmed_at is not None for kill in self.kills)


class Listing(Struct, frozen=True, kw_only=True):
    rows: list[PlanSummary]
    as_of: datetime
    stale: str = ""


class Reads:
    """One answer per question at a time, kept for a moment."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._answers: dict[str, tuple[float, asyncio.Task[Any]]] = {}
        self._failed = False

    def forget(self) -> None:
        """Somebody changed something, and wants to see it."""
        self._answers = {}

    async def ask(self, question: str, read: Callable[[], Awaitable[Any]]) -> Any:
        """Raises what the read raises, and TimeoutError when it takes too long for a page."""
        task = self._task(question, read)
        within = IMPATIENT_SECONDS if self._failed else READ_WITHIN_SECONDS
        try:
            answer = await asyncio.wait_for(asyncio.shield(task), within)
        except (TimeoutError, Unavailable):
            self._failed = True
            raise
        except NotFound:
            self._failed = False
            raise
        self._failed = False
        return answer

    def _task(self, question: str, read: Callable[[], Awaitable[Any]]) -> asyncio.Task[Any]:
        asked_at, task = self._answers.get(question, (0.0, None))
        if task is not None and (not task.done() or self._now() - asked_at < FRESH_SECONDS):
            return task
        if len(self._answers) >= MOST_READS:
            self._answers = {}
        task = asyncio.ensure_future(read())
        task.add_done_callback(_looked_at)
        self._answers[question] = (self._now(), task)
        return task


def _looked_at(task: "asyncio.Task[Any]") -> None:
    """Whoever asked may have given up before the answer came; it must not be reported as lost."""
    if not task.cancelled():
        task.exception()


class Reader:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._reads = Reads(engine.clock.monotonic)
        self._listing: Listing | None = None

    def forget(self) -> None:
        self._reads.forget()

    # — one rollout —

    def flag_of(self, name: str) -> FlagRef | None:
        """From memory alone: a kill asks."""
        known = next((one.flag for one in self._engine.killbook.known() if one.plan == name), None)
        remembered = self._engine.recent.of(name)
        return known or (remembered.status.flag if remembered else None)

    def kills_of(self, flag: FlagRef) -> list[Dead]:
        receipts = {one.kill_id: one for one in self._engine.killbook.receipts(flag)}
        return [
            Dead(status=status, receipt=receipts[status.kill_id])
            for status in self._engine.killbook.kills_of(flag)
            if status.kill_id in receipts
        ]

    async def rollout(self, name: str) -> Rollout:
        """Raises NotFound for a name that is no plan's."""
        stale = ""
        try:
            await self._reads.ask(f"run {name}", lambda: self._read(name))
        except NotFound:
            flag = self.flag_of(name)
            if flag is None:
                raise
            return self._unstarted(name, flag, "")
        except (TimeoutError, Unavailable) as error:
            stale = _why(error)
        remembered = self._engine.recent.of(name)
        if remembered is None:
            flag = self.flag_of(name)
            if flag is None:
                raise NotFound(f'nothing is known of a rollout called "{name}" here; {stale}')
            return self._unstarted(name, flag, stale)
        return Rollout(
            name=name,
            flag=remembered.status.flag,
            as_of=remembered.at,
            status=remembered.status,
            kills=self.kills_of(remembered.status.flag),
            events=remembered.events,
            stale=stale,
        )

    def _unstarted(self, name: str, flag: FlagRef, stale: str) -> Rollout:
        now = self._engine.clock.now()
        return Rollout(name=name, flag=flag, as_of=now, kills=self.kills_of(flag), stale=stale)

    async def _read(self, name: str) -> None:
        """Into memory, where it stays for when the database does not answer."""
        recent, before = self._engine.recent, self._engine.recent.of(name)
        status = await self._engine.commands.status(name)
        recent.seen(status, self._engine.clock.now())
        told = before.status if before is not None and before.events else None
        if told is None or (told.id, told.version) != (status.id, status.version):
            rows = await self._engine.store.audit(limit=EVENTS_SHOWN, run=status.id, newest_first=True)
            recent.told(name, [msgspec.json.decode(row.body, type=AuditEntry) for row in rows])

    # — all of them —

    async def listing(self) -> Listing:
        try:
            listing: Listing = await self._reads.ask("all", self._read_all)
        except (TimeoutError, Unavailable) as error:
            return self._last_known(_why(error))
        return listing

    async def _read_all(self) -> Listing:
        """Kept also when it comes too late for whoever asked."""
        rows = await self._engine.commands.summaries()
        self._listing = Listing(rows=rows, as_of=self._engine.clock.now())
        return self._listing

    def _last_known(self, stale: str) -> Listing:
        """The latest list, with what the runs held here have shown since; and every flag that can be killed."""
        engine = self._engine
        listed = {row.plan: row for row in self._listing.rows} if self._listing else {}
        for known in engine.killbook.known():
            listed.setdefault(known.plan, _unknown(known.plan, known.flag))
        for remembered in engine.recent.all():
            listed[remembered.status.plan] = summary_of(remembered.status)
        as_of = self._listing.as_of if self._listing else engine.clock.now()
        return Listing(rows=list(listed.values()), as_of=as_of, stale=stale)

    def killed(self) -> dict[FlagRef, list[KillStatus]]:
        killed: dict[FlagRef, list[KillStatus]] = {}
        for status in self._engine.killbook.active():
            killed.setdefault(status.flag, []).append(status)
        return killed


def _why(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "the database or a provider did not answer in time"
    return str(error)


def _unknown(plan: str, flag: FlagRef) -> PlanSummary:
    return PlanSummary(
        plan=plan,
        flag=flag,
        revision=0,
        run=None,
        phase=None,
        stage="–",
        desired_exposure=0,
        observed_exposure=None,
        reason="not known here while the database does not answer; a kill works",
    )
