"""The unchanged engine in a model world: virtual time, a model provider, a model source, the memory store."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import msgspec
from msgspec.structs import replace

from controller.access import Actor
from controller.domain.audit import AuditEntry
from controller.domain.catalogue import SCOPES, KillRecord, PeerAnswer, Replica
from controller.domain.evidence import Question, Reading
from controller.domain.flag import (
    FlagChange,
    FlagKill,
    FlagState,
    Observation,
    ProviderLimits,
    SetShare,
    Unknown,
)
from controller.domain.plan import FlagRef, RolloutPlan
from controller.domain.policy import GuardrailPolicy
from controller.domain.rollout import Observations, Run
from controller.domain.status import KillReceipt
from controller.engine import Engine
from controller.errors import ProviderUnavailable
from controller.journal import FileDisk, Journal
from controller.lastknown import KnownFlag
from controller.ports import Channel, FlagProvider, MetricSource, Peers
from controller.scheduler import Pace
from controller.settings import EngineSettings, Settings
from controller.snapshot import FlagBoard, VersionClock
from controller.store.memory import MemoryStore
from controller.store.memory_notifications import MemoryNotifications
from controller.telemetry import Metrics
from tests.support.rollouts import NOW, make_plan, make_policy, reading

DANA = Actor(name="dana", scopes=SCOPES)
KIM = Actor(name="kim", scopes=SCOPES)


class VirtualClock:
    """Stands still until it is told to move. `jump` moves the wall clock alone."""

    def __init__(self) -> None:
        self.elapsed = 1000.0
        self.offset = timedelta()

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.elapsed - 1000.0) + self.offset

    def monotonic(self) -> float:
        return self.elapsed

    def jump(self, **by: float) -> None:
        self.offset += timedelta(**by)


class ModelProvider:
    """A flag back end with faults: `before_apply` and `after_apply` run around each write, and may raise."""

    def __init__(self) -> None:
        self.flags: dict[FlagRef, FlagState] = {}
        self.unreadable: str | None = None
        self.before_apply: Callable[[FlagChange], Awaitable[None]] | None = None
        self.after_apply: Callable[[FlagChange], Awaitable[None]] | None = None
        self.kill_fault: Exception | None = None
        self.history: list[tuple[FlagRef, FlagState]] = []

    @property
    def limits(self) -> ProviderLimits:
        return ProviderLimits(settle_seconds=5.0)

    async def objections(self, plan: RolloutPlan) -> Sequence[str]:
        return []

    async def observe(self, flags: Collection[FlagRef]) -> Mapping[FlagRef, Observation]:
        await asyncio.sleep(0)
        if self.unreadable:
            return {flag: Unknown(self.unreadable) for flag in flags}
        return {flag: self.flags.get(flag, Unknown("no such flag")) for flag in flags}

    async def apply(self, change: FlagChange) -> None:
        if self.before_apply:
            await self.before_apply(change)
        state = self.flags[change.flag]
        if isinstance(change, SetShare):
            names = tuple(rule.name for rule in change.audience)
            self.put(change.flag, replace(state, exposure=change.exposure, audience=names))
        else:
            self.put(change.flag, replace(state, enabled=True))
        if self.after_apply:
            await self.after_apply(change)

    async def kill(self, kill: FlagKill) -> Sequence[str]:
        await asyncio.sleep(0)
        if self.kill_fault:
            raise self.kill_fault
        self.put(kill.flag, FlagState(enabled=False, exposure=0, off_serves="off"))
        return ["model"]

    async def settle_kill(self, kill: FlagKill) -> None:
        self.put(kill.flag, FlagState(enabled=False, exposure=0, off_serves="off"))

    async def forget_kill(self, kill: FlagKill) -> None:
        """What is off stays off: there is nothing to forget."""

    async def close(self) -> None:
        """Nothing is held open."""

    def put(self, flag: FlagRef, state: FlagState) -> None:
        self.flags[flag] = state
        self.history.append((flag, state))


class ModelSource:
    """Healthy until told otherwise: `sides` changes what a variation shows, `failure` is the whole source's.

    Questions that contain `refused` are answered with a failure of their own. `asked` counts batches.
    """

    def __init__(self) -> None:
        self.sides: dict[str, dict[str, Any]] = {}
        self.failure: str | None = None
        self.refused: str | None = None
        self.asked = 0

    async def measure(self, questions: Collection[Question]) -> Mapping[Question, Reading]:
        await asyncio.sleep(0)
        self.asked += 1
        return {question: self._answer(question) for question in questions}

    def _answer(self, question: Question) -> Reading:
        if self.failure:
            return Reading(query="q", failure=self.failure)
        text = repr(question)
        if self.refused and self.refused in text:
            return Reading(query="q", failure="this query is wrong")
        variation = "on" if 'variation="on"' in text else "off"
        return reading(question, **self.sides.get(variation, {}))

    async def close(self) -> None:
        """Nothing is held open."""


class StillTimers:
    """Timers that only run when a test says so. Implements `ports.Timers`."""

    def __init__(self) -> None:
        self.jobs: dict[str, Callable[[], Awaitable[None]]] = {}

    def every(self, seconds: float, name: str, work: Callable[[], Awaitable[None]]) -> None:
        self.jobs[name] = work

    def now(self, name: str) -> None:
        """A test runs what it wants to run."""

    def start(self) -> None:
        """Nothing moves by itself."""

    def stop(self) -> None:
        self.jobs.clear()

    async def run(self, name: str) -> None:
        await self.jobs[name]()


class NoPeers:
    """A replica that is alone."""

    async def tell(self, kills: Sequence[KillRecord]) -> AsyncIterator[PeerAnswer]:
        answers: list[PeerAnswer] = []
        for answer in answers:
            yield answer

    async def close(self) -> None:
        """Nothing is held open."""


class World:
    """One replica. `tick` runs what is due; `run_for` ticks through virtual time."""

    def __init__(
        self,
        folder: Path,
        *,
        name: str = "replica-1",
        clock: VirtualClock | None = None,
        store: MemoryStore | None = None,
        notifications: MemoryNotifications | None = None,
        provider: ModelProvider | None = None,
        source: ModelSource | None = None,
        peers: Peers | None = None,
    ) -> None:
        self.name = name
        self.clock = clock or VirtualClock()
        self.store = store or MemoryStore(self.clock.monotonic)
        self.notifications = notifications or MemoryNotifications(self.store, self.clock.monotonic)
        self.provider, self.source = provider or ModelProvider(), source or ModelSource()
        self.providers: dict[str, FlagProvider] = {"main": self.provider}
        self.sources: dict[str, MetricSource] = {"prom": self.source}
        self.channels: dict[str, Channel] = {}
        self.folder = folder
        self.peers: Peers = peers or NoPeers()
        self.draw: Callable[[], float] = Random(0).random
        self.settings = EngineSettings()
        self.remembered: tuple[dict[FlagRef, FlagState], set[str]] | None = None
        self.plan = make_plan(
            stages=[
                {"name": "canary", "exposure": "1%", "bake": "30m"},
                {"name": "early", "exposure": "10%", "bake": "10m"},
                {"name": "half", "exposure": "50%", "bake": "10m"},
                {"name": "everyone", "exposure": "100%", "bake": "10m"},
            ]
        )
        self.restart()

    def restart(self, owner: str = "") -> None:
        """A fresh process on the same store, journal and provider; as `owner`, of another replica."""
        owner = owner or self.name
        self.journal = Journal(FileDisk(self.folder / "kills.journal"))
        self.journal.open()
        self.timers, self.metrics = StillTimers(), Metrics()
        board = FlagBoard(VersionClock(clock=self.clock, floor=0, reserve=self.journal.reserve))
        self.engine = Engine(
            replica=Replica(name=owner, version="1"),
            owner=owner,
            store=self.store,
            notifications=self.notifications,
            sources=self.sources,
            providers=self.providers,
            channels=self.channels,
            journal=self.journal,
            peers=self.peers,
            board=board,
            clock=self.clock,
            timers=self.timers,
            metrics=self.metrics,
            settings=Settings(engine=self.settings, groups={"managers": ["kim"]}),
            pace=Pace(),
            chance=self.draw,
            remember=self.remember,
        )
        self.engine.scheduler.start()
        self.killer, self.presence = self.engine.killer, self.engine.presence
        self.killbook, self.kill_ledger = self.engine.killbook, self.engine.kill_ledger
        self.reconciler, self.commands = self.engine.reconciler, self.engine.commands
        self.killbook.take_up(self.journal.kills.values(), merged=self.journal.merged)
        self.killbook.learn([KnownFlag.of(self.plan)])

    async def apply(self, plan: RolloutPlan | None = None, policy: GuardrailPolicy | None = None) -> None:
        self.plan = plan or self.plan
        await self.store.save_policy(policy or make_policy(), self.entry("save_policy"))
        await self.store.save_plan(self.plan, self.entry("save_plan"))
        self.provider.flags.setdefault(self.plan.spec.flag, FlagState(enabled=False, exposure=0, off_serves="off"))

    def entry(self, action: str) -> AuditEntry:
        return AuditEntry(
            id=f"{action}-{len(self.store.chain)}", at=self.clock.now(), actor="dana", action=action, cause="user",
            subject="test", environment="production", reason=action,
        )  # fmt: skip

    async def started(self, plan: RolloutPlan | None = None, policy: GuardrailPolicy | None = None) -> Run:
        """Applied, started by dana, first stage confirmed."""
        await self.apply(plan, policy)
        await self.commands.start("checkout-v2", DANA, "")
        await self.settle()
        return await self.run()

    def make_due(self, run_id: str) -> None:
        """As if the time of its next look had come."""
        self.store.rows[run_id].due_at = self.clock.monotonic()

    async def tick(self) -> None:
        for group in await self.reconciler.claim():
            await self.reconciler.tick(group)

    async def settle(self, rounds: int = 6) -> None:
        """Ticks close together, as they follow an apply."""
        for _ in range(rounds):
            await self.tick()
            self.clock.elapsed += 0.5

    async def run_for(self, seconds: float, *, step: float = 15.0) -> None:
        end = self.clock.elapsed + seconds
        while self.clock.elapsed < end:
            self.clock.elapsed += step / 2
            await self.reconciler.renew()
            self.clock.elapsed += step / 2
            self.make_due((await self.run()).id)
            await self.tick()

    async def until(self, phase_or_exposure: str | int, *, limit: float = 400_000.0) -> Run:
        """Ticks until the phase or the confirmed exposure is reached; fails after `limit` virtual seconds."""
        end = self.clock.elapsed + limit
        while self.clock.elapsed < end:
            run = await self.run()
            reached = run.phase if isinstance(phase_or_exposure, str) else run.confirmed and run.exposure
            if reached == phase_or_exposure:
                return run
            await self.run_for(15.0)
        raise AssertionError(f"{phase_or_exposure} was not reached: {await self.run()}")

    async def blind_for(self, seconds: float, *, step: float = 15.0) -> None:
        """As the scheduler does while the database is away."""
        end = self.clock.elapsed + seconds
        while self.clock.elapsed < end:
            self.clock.elapsed += step
            await self.reconciler.tick_blind()

    async def remember(self) -> None:
        """What the application would save on disk: the flags as they are below their kills."""
        self.remembered = dict(self.provider.flags), set(self.journal.kills)

    async def commands_kill(self) -> list[KillReceipt]:
        return await self.killer.kill(
            key="checkout-v2", environment=None, provider=None, actor=DANA, reason="INC-1"
        )

    async def run(self) -> Run:
        return (await self.latest())[0]

    async def latest(self) -> tuple[Run, Observations]:
        found = await self.store.latest_run("checkout-v2")
        assert found is not None
        return found

    @property
    def flag(self) -> FlagState:
        return self.provider.flags[self.plan.spec.flag]

    async def reasons(self) -> list[tuple[str, str]]:
        rows = await self.store.audit(run=(await self.run()).id)
        entries = [msgspec.json.decode(row.body, type=AuditEntry) for row in rows]
        return [(entry.action, entry.reason) for entry in entries]


def timed_out(*, not_applied: bool = False) -> ProviderUnavailable:
    return ProviderUnavailable("timed out", not_applied=not_applied)
