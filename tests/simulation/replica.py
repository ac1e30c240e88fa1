"""One replica: the production engine, wired as in production, on model ports. It can crash and come back."""

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import TYPE_CHECKING, Any

from controller.domain.catalogue import FlagConfig, KillRecord, PeerAnswer, Replica
from controller.engine import Engine
from controller.errors import StoreUnavailable
from controller.held import Held
from controller.journal import Journal
from controller.lastknown import KnownFlag
from controller.providers.builtin import BuiltinProvider
from controller.providers.host import Host
from controller.scheduler import Pace
from controller.settings import BuiltinProviderSettings, DatabaseSettings, EngineSettings, Settings
from controller.snapshot import FlagBoard, VersionClock
from controller.store.memory_notifications import MemoryNotifications
from tests.simulation.database import TIMEOUT_SECONDS, StoreLink
from tests.simulation.outside import ModelDisk, ModelPeers, Platter, Provider, Source
from tests.simulation.process import LoopTimers, Process

if TYPE_CHECKING:
    from tests.simulation.world import World

BEGIN = datetime(2026, 11, 18, 12, 0, tzinfo=UTC)  # a Wednesday
SETTINGS = Settings(
    engine=EngineSettings(
        lease_seconds=9.0, presence_seconds=4.0, provider_timeout_seconds=3.0, measure_timeout_seconds=3.0
    ),
    database=DatabaseSettings(timeout_seconds=TIMEOUT_SECONDS),
    providers={"main": BuiltinProviderSettings()},
    groups={"managers": ["kim"]},
)
"""Shorter than the defaults, in like proportions: a world spends its time on what waits for a timeout."""

PACE = Pace(tick=2.0, renew=2.25, kill_retry=1.0, kill_sweep=5.0, check_in=2.0)
REFRESH_SECONDS = 4.0


class SkewedClock:
    """Wall time may be anything; monotonic time is the world's."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.offset = timedelta()

    def now(self) -> datetime:
        return BEGIN + timedelta(seconds=self._world.now()) + self.offset

    def monotonic(self) -> float:
        return self._world.now()


class Silent:
    """Metrics nobody reads: their text is tested elsewhere, and making it is half the cost of a tick."""

    def __getattr__(self, _: str) -> Any:
        return _nothing


def _nothing(*_: Any, **__: Any) -> None:
    return None


class Machine:
    """What outlives a process: name, disk, clock, and the last known state. `engine` is of the present life."""

    def __init__(self, world: "World", name: str) -> None:
        self.world = world
        self.name = name
        self.platter = Platter()
        self.clock = SkewedClock(world)
        self.chance = Random(f"{world.seed}/{name}")
        self.process = Process(name)
        self.process.alive = False
        self.engine: Engine
        self.board: FlagBoard
        self.known: tuple[list[KnownFlag], list[FlagConfig], list[str]] = ([], [], [])
        self.lives = 0
        self.connected = False
        self.frozen_at: float | None = None

    @property
    def up(self) -> bool:
        return self.process.alive

    def start(self) -> None:
        """As `app.Rampart.start` does: the disk first, then the database in the background."""
        self.lives += 1
        self.connected = False
        process = self.process = Process(self.name)
        disk = ModelDisk(process, self.platter, self.chance)
        journal = Journal(disk)
        journal.open()
        store: Any = StoreLink(process, self.world.database)
        board = self.board = FlagBoard(
            VersionClock(clock=self.clock, floor=journal.floor, reserve=journal.reserve)
        )
        silent: Any = Silent()
        host = Host(store=store, board=board, clock=self.clock, metrics=silent, replica=self.name)
        builtin = BuiltinProvider("main", BuiltinProviderSettings(), host)
        self.engine = Engine(
            replica=Replica(name=self.name, version="1"),
            owner=f"{self.name}/{self.lives}",
            store=store,
            notifications=MemoryNotifications(self.world.database.store, self.world.now),
            sources={"prom": Source(process, self.world.traffic, self.chance)},
            providers={"main": builtin, "vendor": Provider(process, self.world.backend)},
            channels={},
            journal=journal,
            peers=ModelPeers(process, self.world.peers_of, self.chance),
            board=board,
            clock=self.clock,
            timers=LoopTimers(process, lambda seconds: self.chance.uniform(0, min(seconds, 1.0))),
            metrics=silent,
            settings=SETTINGS,
            pace=PACE,
            remember=self._remember,
            chance=self.chance.random,
        )
        known, flags, others = self.known
        if known:
            self.engine.killbook.learn(known, self.engine.flags_of(flags))
            self.engine.killbook.meet(others)
            board.load(flags, journal.kills.values())
        self.engine.killbook.take_up(journal.kills.values(), merged=journal.merged)
        self.world.promises.resumed(self)
        self._watch_confirmations()
        process.start(self._run())

    def _watch_confirmations(self) -> None:
        """Nothing outside is touched when a kill is called confirmed, and yet it is what a person relies on."""
        lowering: Any = self.engine.lowering
        confirm = lowering._confirm

        def watched(held: Held) -> None:
            self.world.promises.confirming(self, held)
            confirm(held)

        lowering._confirm = watched

    async def _run(self) -> None:
        self.engine.scheduler.start()
        while not self.connected:
            try:
                await self.engine.presence.check_in()
                await self._refresh()
                self.connected = True
            except StoreUnavailable:
                await asyncio.sleep(self.chance.uniform(0.1, 1.0))
        self.engine.scheduler.every(REFRESH_SECONDS, "refresh", self._refresh)

    async def _refresh(self) -> None:
        await self.engine.refresh()
        await self._remember()

    async def _remember(self) -> None:
        killbook = self.engine.killbook
        self.known = (killbook.known(), self.board.configs(), sorted(killbook.others))

    async def hear(self, records: Sequence[KillRecord]) -> PeerAnswer:
        await self.process.gate()
        return await self.engine.killer.hear(records)

    def freeze(self) -> None:
        self.frozen_at = self.world.now()
        self.process.freeze()

    def was_frozen_since(self, began: float) -> bool:
        return self.frozen_at is not None and self.frozen_at >= began

    def crash(self) -> None:
        self.process.kill()
        self.platter.crash(self.chance)

    async def stop(self) -> None:
        """SIGTERM."""
        await self.engine.scheduler.stop()
        with contextlib.suppress(StoreUnavailable):  # leases and check-ins end by themselves
            await self.engine.leave()
        self.process.kill()
        self.platter.crash(self.chance)
        if not self.world.faults.active:
            self.start()
