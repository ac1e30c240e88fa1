"""The engine: everything that decides and acts, wired once.

Outside of it are only plugs. The composition root hands it real ones; the simulation hands it models of a
database, a disk, peers and a clock, so that what is simulated is what runs in production.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence

import structlog

from controller.alert_receiver import AlertReceiver
from controller.announcer import Announcer
from controller.commands import Commands
from controller.domain.catalogue import FlagConfig, Replica
from controller.domain.plan import FlagRef
from controller.errors import Conflict
from controller.freezebook import FreezeBook
from controller.in_flight import InFlight
from controller.journal import Journal
from controller.kill_ledger import KillLedger
from controller.kill_selection import KillSelector
from controller.killbook import KillBook
from controller.killer import Killer
from controller.lastknown import KnownFlag
from controller.lowering import Lowering
from controller.ports import (
    Channel,
    Clock,
    FlagProvider,
    MetricSource,
    NotificationStore,
    Peers,
    Store,
    Timers,
)
from controller.presence import Presence
from controller.raised import RaisedBook
from controller.recent import Recent
from controller.reconciler import Reconciler
from controller.scheduler import Pace, Scheduler
from controller.settings import Settings
from controller.snapshot import FlagBoard, Overlay
from controller.telemetry import Metrics

log = structlog.get_logger()

ANNOUNCING = "announce"
ANNOUNCE_LEASE_SECONDS = 16.0


class Engine:
    """One replica. `remember` keeps on disk what a start without a database needs.

    `chance` gives numbers from 0 to 1; it spreads when a dependency that failed is asked again.
    """

    def __init__(
        self,
        *,
        replica: Replica,
        owner: str,
        store: Store,
        notifications: NotificationStore,
        sources: Mapping[str, MetricSource],
        providers: Mapping[str, FlagProvider],
        channels: Mapping[str, Channel],
        journal: Journal,
        peers: Peers,
        board: FlagBoard,
        clock: Clock,
        timers: Timers,
        metrics: Metrics,
        settings: Settings,
        pace: Pace,
        chance: Callable[[], float],
        remember: Callable[[], Awaitable[None]],
    ) -> None:
        self.owner, self.store, self.board, self.metrics = owner, store, board, metrics
        self._settings, self._clock, engine = settings, clock, settings.engine
        self.freezebook = FreezeBook()
        self.raised = RaisedBook(store, clock)
        self.killbook, self.lowering, self.kill_ledger, self.killer = kill_path(
            journal=journal,
            store=store,
            providers=providers,
            clock=clock,
            metrics=metrics,
            replica=replica.name,
            peers=peers,
            provider_timeout_seconds=engine.provider_timeout_seconds,
            quiet_seconds=quiet_seconds(settings),
            remember=remember,
            overlay=Overlay(board, replica.name),
        )
        self.presence = self._presence(replica, journal)
        self.recent = Recent()
        self.reconciler = Reconciler(
            owner=owner,
            store=store,
            sources=sources,
            providers=providers,
            killbook=self.killbook,
            killer=self.killer,
            clock=clock,
            metrics=metrics,
            recent=self.recent,
            settings=engine,
            obstacles=lambda: self.presence.obstacles,
            acknowledge=self.presence.acknowledge,
            freezebook=self.freezebook,
            raised=self.raised,
            chance=chance,
        )
        self.kill_selector = KillSelector(
            killbook=self.killbook, raised=self.raised, recent=self.recent, store=store
        )
        self.commands = Commands(self.reconciler, settings.groups)
        self.alerts = self._alerts()
        self.announcer = self._announcer(notifications, channels, chance)
        self.scheduler = self._scheduler(timers, pace)

    def _presence(self, replica: Replica, journal: Journal) -> Presence:
        return Presence(
            replica=replica,
            store=self.store,
            killbook=self.killbook,
            kill_ledger=self.kill_ledger,
            journal=journal,
            clock=self._clock,
            metrics=self.metrics,
            valid_seconds=self._settings.engine.presence_seconds,
        )

    def _alerts(self) -> AlertReceiver:
        return AlertReceiver(
            commands=self.commands,
            killer=self.killer,
            killbook=self.killbook,
            kill_ledger=self.kill_ledger,
            store=self.store,
            clock=self._clock,
            metrics=self.metrics,
            settings=self._settings.engine,
        )

    def _announcer(
        self, notifications: NotificationStore, channels: Mapping[str, Channel], chance: Callable[[], float]
    ) -> Announcer:
        return Announcer(
            store=self.store,
            notifications=notifications,
            channels=channels,
            clock=self._clock,
            metrics=self.metrics,
            chance=chance,
            public_url=self._settings.server.public_url,
        )

    def _scheduler(self, timers: Timers, pace: Pace) -> Scheduler:
        return Scheduler(
            reconciler=self.reconciler,
            killer=self.killer,
            presence=self.presence,
            timers=timers,
            clock=self._clock,
            metrics=self.metrics,
            pace=pace,
        )

    async def refresh(self) -> None:
        """What memory holds of the database, renewed. Kills stay laid over whatever it says of a flag."""
        self.freezebook.load(await self.store.freezes())
        plans = [revision.plan for revision in await self.store.plans()]
        asked_at = self.board.revision
        configs = await self.store.flag_configs()
        known = [KnownFlag.of(plan) for plan in plans]
        self.killbook.learn(known, self.flags_of(configs))
        kills = [held.record for held in self.killbook.in_force()]
        for forgotten in self.board.load(configs, kills, asked_at=asked_at):
            await self._restore(forgotten)
        await self.raised.read_on()
        await self.board.versions.secure()
        self.reconciler.forget_ended()
        self.metrics.unreadable(Counter(one.kind for one in await self.store.unreadable()))
        self.metrics.audit_head((await self.store.audit_head())[0])

    async def _restore(self, forgotten: FlagConfig) -> None:
        """The database was failed over to a past in which this flag exposed more: what was lowered stays low."""
        config = self.board.restored(forgotten)
        log.error("flag_forgotten", key=config.key, environment=config.environment, version=config.version)
        await self.board.versions.secure()
        try:
            await self.store.save_flag_config(config)
        except Conflict:
            return  # somebody wrote it meanwhile; the next round reads that
        self.board.put(config)

    def flags_of(self, configs: Sequence[FlagConfig]) -> list[FlagRef]:
        """Every built-in flag, under each name by which the settings know the built-in provider."""
        builtin = self._settings.built_in_providers
        return [FlagRef(provider=name, environment=c.environment, key=c.key) for name in builtin for c in configs]

    async def announce(self) -> None:
        """One replica at a time tells the channels; when it is gone another goes on where it stopped."""
        asked_at = self._clock.monotonic()
        if await self.store.lead(ANNOUNCING, self.owner, lease_seconds=ANNOUNCE_LEASE_SECONDS):
            await self.announcer.announce(until=asked_at + ANNOUNCE_LEASE_SECONDS)
        else:
            self.announcer.rest()

    async def leave(self) -> None:
        """At shutdown: hand the leases over at once, and let nobody wait for us. Raises StoreUnavailable."""
        await self.store.release(self.owner)
        await self.presence.leave()
        await self.announcer.finish()
        await self.store.lead(ANNOUNCING, self.owner, lease_seconds=0.0)  # whoever asks next goes on


def kill_path(
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
    overlay: Overlay | None = None,
) -> tuple[KillBook, Lowering, KillLedger, Killer]:
    """The parts of the kill path, each above the one before it."""
    killbook = KillBook(clock=clock, providers=providers, overlay=overlay)
    in_flight = InFlight(clock=clock, timeout_seconds=provider_timeout_seconds)
    lowering = Lowering(
        killbook=killbook,
        in_flight=in_flight,
        providers=providers,
        clock=clock,
        metrics=metrics,
        provider_timeout_seconds=provider_timeout_seconds,
        quiet_seconds=quiet_seconds,
    )
    ledger = KillLedger(
        killbook=killbook,
        lowering=lowering,
        journal=journal,
        store=store,
        providers=providers,
        clock=clock,
        provider_timeout_seconds=provider_timeout_seconds,
        remember=remember,
    )
    killer = Killer(
        killbook=killbook,
        in_flight=in_flight,
        lowering=lowering,
        ledger=ledger,
        journal=journal,
        peers=peers,
        clock=clock,
        metrics=metrics,
        replica=replica,
    )
    return killbook, lowering, ledger, killer


def quiet_seconds(settings: Settings) -> float:
    """How long after a kill another replica, which never heard of it, may still be writing a raise.

    Its raises are refused once our check-in has run out, and our last one may still have been on its way to the
    database; it sends a write within half a lease of deciding it, and gives up after the provider's timeout.
    """
    engine = settings.engine
    check_in = settings.database.timeout_seconds + engine.presence_seconds
    return check_in + engine.lease_seconds / 2 + engine.provider_timeout_seconds
