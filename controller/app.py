"""The composition root: the one module that imports everything and knows which part is which."""

import asyncio
import contextlib
import gc
import os
import signal
import sys
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from time import monotonic
from types import FrameType

import structlog
import uvicorn
import uvloop

from controller import __version__, access, api, channels, delivery, lastknown, providers, telemetry, web
from controller.delivery.connections import Connection
from controller.delivery.event_book import EventBook
from controller.doctor import Doctor
from controller.doctor.installation import Installation
from controller.doctor.plans import Plans
from controller.domain.audit import AuditEntry
from controller.domain.catalogue import SCOPES, Replica, Token
from controller.domain.expected import expected
from controller.domain.flag import Observation
from controller.domain.plan import FlagRef
from controller.engine import Engine
from controller.errors import RampartError, SettingsError, StoreUnavailable
from controller.journal import FileDisk, Journal
from controller.lastknown import LastKnown
from controller.manifest_folder import LOOK_SECONDS, ManifestFolder
from controller.peers import HttpPeers
from controller.providers.host import Host
from controller.registrar import Registrar
from controller.scheduler import Pace
from controller.settings import EventsSourceSettings, Settings, secret_file
from controller.snapshot import FlagBoard, VersionClock
from controller.sources import kinds as sources
from controller.sources.events import EventsSource
from controller.sources.host import Host as SourceHost
from controller.store import upgrade
from controller.store.embedded import EmbeddedPostgres
from controller.store.events import PostgresEvents
from controller.store.listener import listen
from controller.store.migrations import migrate as run_migrations
from controller.store.notifications import PostgresNotifications
from controller.store.postgres import PostgresStore
from controller.timers import ApschedulerTimers
from controller.triggers import TriggerBook

log = structlog.get_logger()

SYNC_SECONDS = 2.0
REMEMBER_SECONDS = 0.25
ANNOUNCE_SECONDS = 1.0
SCHEMA_SECONDS = 5.0
CONNECT_RETRY_SECONDS = 1.0
RENEWALS_PER_LEASE = 4
SWITCH_SECONDS = 0.0005
"""How long a worker thread that parses may keep the event loop, and with it a kill, waiting at each turn."""

COLLECT_AFTER = (10_000, 1_000, 1_000)
COLLECT_SECONDS = 60.0
"""Only the youngest objects are looked through as they come, in about a millisecond. Documents come and go by the
thousand and hold no cycles; walking through all of them stops everything, a kill too: once a minute is enough."""

LAST_KNOWN = "last-known.json"
JOURNAL = "kills.journal"
REPLICA = "replica"
SESSION_KEY = "session.key"
ADMIN_TOKEN = "admin.token"  # noqa: S105 - a file name


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return monotonic()


class Rampart:
    """All parts, wired. It serves and kills without a database, and takes it up as soon as it answers."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.clock = SystemClock()
        self.chance = Random()  # noqa: S311 - it spreads retries; nothing secret is drawn from it
        self.data = settings.data_path
        self.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.replica = Replica(name=lastknown.replica_name(self.data / REPLICA), version=__version__)
        self.owner = f"{self.replica.name}/{uuid.uuid4().hex[:8]}"
        self.metrics = telemetry.Metrics()
        self.journal = Journal(FileDisk(self.data / JOURNAL))
        self.journal.open()
        self.embedded: EmbeddedPostgres | None = None
        self.store = PostgresStore(
            pool_size=settings.database.pool_size,
            timeout_seconds=settings.database.timeout_seconds,
            pooled=settings.database.pooled,
        )
        self.tokens = access.TokenBook()
        self.triggers = TriggerBook()
        self.board = FlagBoard(
            VersionClock(clock=self.clock, floor=self.journal.floor, reserve=self.journal.reserve),
            others=settings.providers.keys() - set(settings.built_in_providers),
        )
        self.fronts = delivery.fronts(
            settings, board=self.board, clock=self.clock, metrics=self.metrics, chance=self.chance.random
        )
        self.sdk_keys = delivery.SdkKeyBook(key for front in self.fronts for key in front.keys)
        host = Host(self.store, self.board, self.clock, self.metrics, self.replica.name)
        self.providers = {name: providers.build(name, one, host) for name, one in settings.providers.items()}
        self.events = PostgresEvents(self.store.connections, replica=self.replica.name)
        self.notifications = PostgresNotifications(self.store.connections)
        self.event_book = self._event_book()
        lent = SourceHost(self.clock, self.events)
        self.sources = {name: sources.build(name, one, lent) for name, one in settings.sources.items()}
        self.channels = {name: channels.build(name, one, self.clock) for name, one in settings.channels.items()}
        self.peers = HttpPeers(settings.peers, own=self.replica.name, metrics=self.metrics)
        self.engine = self._engine()
        self.killer, self.killbook = self.engine.killer, self.engine.killbook
        self.kill_ledger, self.kill_selector = self.engine.kill_ledger, self.engine.kill_selector
        self.presence = self.engine.presence
        self.commands, self.alerts = self.engine.commands, self.engine.alerts
        self.recent, self.freezebook = self.engine.recent, self.engine.freezebook
        self.session_key = self.peers.secret_digest or _kept_secret(self.data / SESSION_KEY)
        self.scheduler = self.engine.scheduler
        self.registrar = Registrar(
            self.store, self.providers, settings, self.clock, self._observe, applied=self._sync
        )
        self.manifests = self._manifest_folder()
        self.doctor = self._doctor()
        self._saved: LastKnown | None = None
        self._remembering = asyncio.Lock()
        self._remembered = 0
        self._connecting: asyncio.Task[None] | None = None
        self._listening: asyncio.Task[None] | None = None
        self._database_url = ""
        self._schema_problem: str | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._connected = False

    def _engine(self) -> Engine:
        settings = self.settings
        pace = Pace(tick=settings.engine.poll_seconds, renew=settings.engine.lease_seconds / RENEWALS_PER_LEASE)
        return Engine(
            replica=self.replica,
            owner=self.owner,
            store=self.store,
            notifications=self.notifications,
            sources=self.sources,
            providers=self.providers,
            channels=self.channels,
            journal=self.journal,
            peers=self.peers,
            board=self.board,
            clock=self.clock,
            timers=ApschedulerTimers(self.clock, self.chance),
            metrics=self.metrics,
            settings=settings,
            chance=self.chance.random,
            pace=pace,
            remember=self._remember,
        )

    def _doctor(self) -> Doctor:
        installation = Installation(
            store=self.store,
            notifications=self.notifications,
            condition=self.store.condition,
            schema_problem=lambda: self._schema_problem,
            data=self.data,
            sources=self.sources,
            providers=self.providers,
            peers=self.peers,
            presence=self.presence,
            clock=self.clock,
            settings=self.settings,
        )
        plans = Plans(store=self.store, sources=self.sources, providers=self.providers, settings=self.settings)
        return Doctor(
            installation=installation,
            plans=plans,
            channels=self.channels,
            clock=self.clock,
            at_hand=[self.manifests.check] if self.manifests else [],
        )

    def _event_book(self) -> EventBook | None:
        """None when no source reads events: then none are counted."""
        counting = [one for one in self.settings.sources.values() if isinstance(one, EventsSourceSettings)]
        if not counting:
            return None
        kept = max(one.retention_seconds for one in counting)
        return EventBook(self.events, self.clock, self.metrics, kept_seconds=kept)

    def _manifest_folder(self) -> ManifestFolder | None:
        folder = self.settings.server.manifests
        if not folder:
            return None
        return ManifestFolder(
            Path(folder).expanduser(),
            registrar=self.registrar,
            store=self.store,
            owner=self.owner,
            clock=self.clock,
            metrics=self.metrics,
        )

    # — start and stop —

    async def start(self) -> None:
        """Take up what the disk knows, then look for the database in the background."""
        known = lastknown.load(self.data / LAST_KNOWN)
        if known is not None:
            self._saved = known
            self.store.recall(known.tokens, known.sdk_keys, known.flags, known.triggers)
            self.tokens.load(known.tokens)
            self.triggers.load(known.triggers)
            self.engine.raised.recall(known.raised)
            self.sdk_keys.load(known.sdk_keys)
            self.killbook.learn(known.known, self.engine.flags_of(known.flags))
            self.killbook.meet(known.replicas)
            self.board.load(known.flags, self.journal.kills.values())
            self._await_database()
        self.killbook.take_up(self.journal.kills.values(), merged=self.journal.merged)
        self.peers.start()
        for source in self.sources.values():
            source.start()
        for provider in self.providers.values():
            provider.start()
        if self.event_book:
            self.event_book.start()
        for front in self.fronts:
            front.start()
        self.scheduler.start()  # an unconfirmed kill is pressed on with, database or not
        self._connecting = asyncio.create_task(self._connect())

    def _await_database(self) -> None:
        """Hold the last known flags back for a moment: others may have taken a kill while we were gone."""
        if self.settings.database.shared:
            self.board.hold_back()
            timeout = self.settings.database.timeout_seconds
            self._patience = asyncio.get_running_loop().call_later(timeout, self._serve_last_known)

    def _serve_last_known(self) -> None:
        """The database does not answer: what SDKs were served last is better than nothing."""
        if self._patience is not None and not self.board.ready:
            self.board.serve_anyway()
            log.warning("last_known_served", flags=len(self.board.configs()))

    async def stop(self) -> None:
        self.board.close()
        if self._patience:
            self._patience.cancel()
        for task in (self._connecting, self._listening):
            if task:
                task.cancel()
                await asyncio.wait([task])
        await self.scheduler.stop()
        if self._connected:
            with contextlib.suppress(StoreUnavailable):  # leases and check-ins end by themselves
                await self.engine.leave()
        await self.engine.announcer.close()
        await self.peers.close()
        if self.event_book:
            await self.event_book.close()
        for front in self.fronts:
            await front.close()
        for source in self.sources.values():
            await source.close()
        for provider in self.providers.values():
            await provider.close()
        await self.store.close()
        if self.embedded:
            await self.embedded.stop()
        self.journal.close()

    async def _connect(self) -> None:
        """Until the database answers: SDKs are served and kills are accepted from memory, disk and journal."""
        while not self._connected:
            try:
                await self._open_database()
                await self._prepare()
                self._connected = True
            except (StoreUnavailable, OSError) as error:
                log.warning("database_away", error=str(error))
                self._serve_last_known()
                await asyncio.sleep(self._pause())
            except Exception as error:
                # Not a reason to stop serving and killing, but one to say: nobody else waits for this task.
                log.exception("database_unusable", error=f"{type(error).__name__}: {error}")
                self._serve_last_known()
                await asyncio.sleep(self._pause())
        self.scheduler.every(SYNC_SECONDS, "sync", self._sync)
        self.scheduler.every(REMEMBER_SECONDS, "remember", self._remember_flags)
        self.scheduler.every(ANNOUNCE_SECONDS, "announce", self.engine.announce)
        self.scheduler.every(COLLECT_SECONDS, "collect", _collect)
        self.scheduler.every(SCHEMA_SECONDS, "schema", self._suit_schema)
        if self.manifests:
            self.scheduler.every(LOOK_SECONDS, "manifests", self.manifests.look)
        self._listen()
        gc.freeze()  # what is here now stays: no collection needs to walk through it
        log.info("ready", replica=self.replica.name)

    def _listen(self) -> None:
        """Be told of what other replicas change; without that it is found a round later."""
        database = self.settings.database
        direct = secret_file(database.listen_url_file) if database.listen_url_file else database.listen_url
        if not direct and not database.pooled:
            direct = self._database_url
        if direct:
            self._listening = asyncio.create_task(listen(direct, self._told, self.chance))

    def _told(self, topic: str) -> None:
        self.scheduler.now("check_in" if topic == "kills" else "sync")

    def _pause(self) -> float:
        """Between attempts, so that replicas that lost a database together do not all come back at once."""
        return self.chance.uniform(0.1, CONNECT_RETRY_SECONDS)

    async def _open_database(self) -> None:
        database = self.settings.database
        url = secret_file(database.url_file) if database.url_file else database.url
        if not url:
            if self.embedded is None:
                embedded = EmbeddedPostgres(self.data, bin_dir=database.bin_dir or None)
                await embedded.start()
                self.embedded = embedded  # from here on it supervises itself
            url = self.embedded.dsn
        await run_migrations(url, replica=self.replica.name)
        await self.store.connect(url)
        self._database_url = url
        await self._suit_schema()

    async def _suit_schema(self) -> None:
        """Another version may have changed the schema; and what waited for the last replica of an earlier one."""
        self._schema_problem = await upgrade.look(
            self.store, self._database_url, owner=self.owner, replica=self.replica.name
        )

    async def _prepare(self) -> None:
        await self._first_token()
        await self.presence.check_in()  # before any flag is served: a kill may be known to the database alone
        await self._sync()

    async def _first_token(self) -> None:
        """The administrator's token: from RAMPART_ADMIN_TOKEN_FILE, or made and written where only we may read."""
        if any("admin" in token.scopes for token in await self.store.tokens()):
            return
        if any(one.kind == "token" for one in await self.store.unreadable()):
            log.error("first_token_not_made", reason="a token that cannot be read may be the administrator's")
            return
        given = os.environ.get("RAMPART_ADMIN_TOKEN_FILE")
        path = self.data / ADMIN_TOKEN
        secret = secret_file(given) if given else access.new_secret()
        telemetry.hide(secret)
        if not given:
            await asyncio.to_thread(_write_secret, path, secret)
        now = self.clock.now()
        token = Token(
            name="admin", digest=access.digest(secret), scopes=SCOPES, created_at=now, created_by="rampart"
        )
        await self.store.save_token(
            token, self._entry("create_token", "admin", f"first token, in {given or path}")
        )
        log.info("first_token", path=str(given or path))

    def _entry(self, action: str, subject: str, reason: str) -> AuditEntry:
        return AuditEntry(
            id=uuid.uuid4().hex,
            at=self.clock.now(),
            actor="rampart",
            action=action,
            cause="user",
            subject=subject,
            environment="",
            reason=reason,
        )

    async def _observe(self, flags: Collection[FlagRef]) -> Mapping[FlagRef, Observation]:
        return await self.engine.reconciler.lookout.observe(flags, insist=True)

    # — what memory holds of the database —

    async def tokens_changed(self) -> None:
        self.tokens.load(await self.store.tokens())
        await self._remember()

    async def sdk_keys_changed(self) -> None:
        self.sdk_keys.load(await self.store.sdk_keys())
        await self._remember()

    async def triggers_changed(self) -> None:
        self.triggers.load(await self.store.triggers())
        await self._remember()

    async def freezes_changed(self) -> None:
        self.engine.freezebook.load(await self.store.freezes())

    async def _sync(self) -> None:
        """Also what other replicas changed. Kills stay laid over whatever the database says of a flag."""
        self.tokens.load(await self.store.tokens())
        self.sdk_keys.load(await self.store.sdk_keys())
        self.triggers.load(await self.store.triggers())
        await self.engine.refresh()
        await self._expect_events()
        await self._remember()

    async def _expect_events(self) -> None:
        """Applications report events whether somebody asks or not: count those that runs will ask for."""
        counting = {name: one for name, one in self.sources.items() if isinstance(one, EventsSource)}
        if counting:
            plans = [revision.plan for revision in await self.store.plans()]
            policies = {one.policy.metadata.name: one.policy for one in await self.store.policies()}
            for name, source in counting.items():
                await source.expect(expected(plans, policies, name))

    async def _remember_flags(self) -> None:
        """Soon after a change: a step back should not be undone by a crash while the database is away."""
        if self.board.ready and self.board.revision != self._remembered:
            await self._remember()

    async def _remember(self) -> None:
        """Keep the last known state on disk, when it changed. Not fatal: the database has it all."""
        for front in self.fronts:
            await front.save()
        async with self._remembering:
            revision = self.board.revision
            state = LastKnown(
                tokens=self.tokens.all(),
                sdk_keys=self.sdk_keys.all(),
                triggers=self.triggers.all(),
                flags=list(self.board.configs()),
                known=self.killbook.known(),
                raised=self.engine.raised.all(),
                replicas=sorted(self.killbook.others),
            )
            if state == self._saved:
                self._remembered = revision
                return
            try:
                await asyncio.to_thread(lastknown.save, self.data / LAST_KNOWN, state)
            except OSError as error:
                log.error("last_known_not_saved", error=str(error))
                return
            self._saved, self._remembered = state, revision

    # — what the API asks of the whole —

    def readiness(self) -> Sequence[str]:
        reasons = [] if self.presence.merged else ["the database does not answer, or its kills are not merged"]
        if not self.board.ready:
            reasons.append("no flags are known yet")
        if self._schema_problem:
            reasons.append(self._schema_problem)
        return reasons

    def metrics_pieces(self) -> Iterator[bytes]:
        return self.metrics.pieces()


async def _collect() -> None:
    gc.collect()


def _kept_secret(path: Path) -> bytes:
    """Of this data directory alone; made at its first start, so that nobody is logged out by a restart."""
    if not path.exists():
        _write_secret(path, access.new_secret())
    return access.digest(secret_file(str(path)))


def _write_secret(path: Path, secret: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(secret + "\n")


class Server(uvicorn.Server):
    """Ends the streams first: uvicorn waits for open responses, and a stream never ends by itself.

    uvicorn's own handler would note the signal and raise it again after serving, before anything else is stopped.
    """

    def __init__(self, config: uvicorn.Config, board: FlagBoard, pages: web.Pages) -> None:
        super().__init__(config)
        self._board, self._pages = board, pages

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._board.close()
        self._pages.close()
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


def serve(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT. Returns the exit code."""
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.set_threshold(*COLLECT_AFTER)
    telemetry.configure_logging(settings.server.log_level)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_serve(settings))
    except SettingsError as error:
        log.error("cannot_start", error=str(error))
        return 2


async def _serve(settings: Settings) -> int:
    rampart = Rampart(settings)
    host, _, port = settings.server.bind.rpartition(":")
    doors = delivery.Doors(
        rampart.board,
        rampart.sdk_keys,
        rampart.clock,
        origins=settings.delivery.allowed_origins,
        event_book=rampart.event_book,
        fronts=rampart.fronts,
    )
    pages = web.Pages(rampart)
    app = doors.before(api.create_app(rampart, pages.handlers()))
    config = uvicorn.Config(
        app, host=host, port=int(port), http=Connection, lifespan="off", log_config=None, access_log=False,
        server_header=False, timeout_graceful_shutdown=5,
    )  # fmt: skip
    server = Server(config, rampart.board, pages)
    await rampart.start()
    log.info(
        "serving",
        bind=settings.server.bind,
        pages=settings.server.public_url or f"http://{settings.server.bind}/",
        version=__version__,
        data=str(rampart.data),
    )
    try:
        await server.serve()
    finally:
        await rampart.stop()
    return 0 if server.started else 1


def migrate(settings: Settings) -> int:
    """Bring the database's schema up to date and stop. Returns the exit code."""
    telemetry.configure_logging(settings.server.log_level)

    async def run() -> None:
        database = settings.database
        url = secret_file(database.url_file) if database.url_file else database.url
        if url:
            await run_migrations(url)
            return
        embedded = EmbeddedPostgres(settings.data_path, bin_dir=database.bin_dir or None)
        await run_migrations(await embedded.start())
        await embedded.stop()

    try:
        asyncio.run(run())
    except RampartError as error:
        log.error("cannot_migrate", error=str(error))
        return 2
    return 0
