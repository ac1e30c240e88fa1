"""What this replica stands on, whatever is rolled out: database, disk, clocks, replicas, channels, secrets."""

import asyncio
import os
import shutil
import stat
import tempfile
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from controller.doctor.findings import failed, fine, risky
from controller.domain.catalogue import DatabaseCondition
from controller.domain.evidence import Examined
from controller.domain.notification import Backlog
from controller.domain.quantities import duration_text
from controller.domain.status import Check
from controller.errors import StoreUnavailable
from controller.peers import HttpPeers, Sighting
from controller.ports import Clock, NotificationStore, Store
from controller.presence import Presence
from controller.providers.host import Provider
from controller.settings import Settings
from controller.sources.kinds import Source

MIB = 1024 * 1024
DISK_NEEDED_BYTES = 50 * MIB
DISK_WANTED_BYTES = 500 * MIB
SLOW_DISK_SECONDS = 0.25
CLOCK_WANTED_SECONDS = 2.0
CLOCK_NEEDED_SECONDS = 30.0
CONNECTIONS_SHARE = 0.9
ANNOUNCED_WITHIN_SECONDS = 60.0

Look = tuple[str, Awaitable[Sequence[Check]]]


class Installation:
    """`condition` asks the database about itself; `schema_problem` says why this version cannot work on it."""

    def __init__(
        self,
        *,
        store: Store,
        notifications: NotificationStore,
        condition: Callable[[], Awaitable[DatabaseCondition]],
        schema_problem: Callable[[], str | None],
        data: Path,
        sources: Mapping[str, Source],
        providers: Mapping[str, Provider],
        peers: HttpPeers,
        presence: Presence,
        clock: Clock,
        settings: Settings,
    ) -> None:
        self._store = store
        self._notifications = notifications
        self._condition = condition
        self._schema_problem = schema_problem
        self._data = data
        self._sources = sources
        # Our own flags are in the database, which is looked at anyhow.
        self._providers = {n: one for n, one in providers.items() if n not in settings.built_in_providers}
        self._peers = peers
        self._presence = presence
        self._clock = clock
        self._settings = settings

    def looks(self) -> list[Look]:
        """All that can be looked at independently, by name."""
        looks: list[Look] = [
            ("database", self._database()),
            ("journal", asyncio.to_thread(self._disk)),
            ("replicas", self._replicas()),
            ("secrets", asyncio.to_thread(self._secrets)),
            ("channels", self._channels()),
        ]
        if not self._sources:
            looks.append(("sources", self._no_source()))
        looks += [(f"source {name}", self._source(name, one)) for name, one in self._sources.items()]
        return looks + [(f"provider {name}", self._provider(name, one)) for name, one in self._providers.items()]

    # — the database —

    async def _database(self) -> list[Check]:
        kind = "PostgreSQL" if self._settings.database.shared else "embedded PostgreSQL"
        try:
            before = self._clock.monotonic()
            at = self._clock.now().timestamp()
            condition = await self._condition()
            took = self._clock.monotonic() - before
            unreadable = await self._store.unreadable()
        except StoreUnavailable as error:
            fix = "start the database; until then Rampart serves SDKs and kills, and raises nothing"
            return [failed("database", f"{kind}: {error}", fix)]
        problem = self._schema_problem()
        found = [failed("database", problem, "bring server and database to one version")] if problem else []
        found += _database_risks(condition)
        found += [
            failed(
                "database", f'the {one.kind} "{one.name}" cannot be read: {one.why}', "apply or create it again"
            )
            for one in unreadable
        ]
        ahead = condition.now.timestamp() - (at + took / 2)
        detail = (
            f"{kind} {condition.version} answers in {took * 1000:.0f} ms; schema {condition.schema}; audit head "
            f"{condition.audit_head}; {condition.connections} of {condition.max_connections} connections"
        )
        return [*(found or [fine("database", detail)]), clock_check("database", ahead)]

    # — the disk —

    def _disk(self) -> list[Check]:
        try:
            seconds = _time_to_disk(self._data, self._clock)
        except OSError as error:
            fix = f"make {self._data} writable and free its disk, or a kill will not survive a restart"
            return [failed("journal", f"{self._data} cannot be written: {error.strerror}", fix)]
        free = shutil.disk_usage(self._data).free
        detail = f"{self._data} takes a write to disk in {seconds * 1000:.0f} ms; {free // MIB} MiB are free"
        if free < DISK_NEEDED_BYTES:
            return [failed("journal", detail, "free some of its disk, or a kill will not survive a restart")]
        if free < DISK_WANTED_BYTES:
            return [risky("journal", detail, "free some of its disk")]
        if seconds > SLOW_DISK_SECONDS:
            return [risky("journal", detail, "a kill waits that long to be durable; give it a faster disk")]
        return [fine("journal", detail)]

    def _secrets(self) -> list[Check]:
        """Files that hold secrets: there, and nobody else's to read."""
        own = self._data / "admin.token"
        paths = [*_secret_files(msgspec.to_builtins(self._settings)), *([str(own)] if own.exists() else [])]
        checks = [_secret_check(Path(path)) for path in paths]
        found = [check for check in checks if check is not None]
        return found or [fine("secrets", f"{len(paths)} of them in files, none open to others")]

    # — other replicas —

    async def _replicas(self) -> list[Check]:
        raises = self._presence.raises()
        names = [one.name for one in raises.replicas if one.state in {"here", "present"}]
        seen = self._peers.sightings()
        checks = self._registered(raises.obstacles, names) if self._presence.merged else []
        checks += [self._peer(one, names) for one in seen]
        told = {one.replica for one in seen}
        return checks + [_not_told(name) for name in names[1:] if name not in told]

    def _registered(self, obstacles: Sequence[str], names: Sequence[str]) -> list[Check]:
        versions = self._presence.versions
        several = f"; versions {', '.join(sorted(versions))}" if len(versions) > 1 else ""
        detail = f"{', '.join(names)} checked in{several}"
        if obstacles:
            fix = "start what is missing on its data directory; `rampart raises` tells more"
            return [failed("replicas", f"nothing rises: {'; '.join(obstacles)}", fix)]
        if self._settings.database.shared and len(names) == 1:
            fix = "start a second one on the same database, and name each in the other's [peers]"
            return [risky("replicas", f"{detail}, alone: while it restarts nobody can kill", fix)]
        return [fine("replicas", detail)]

    def _peer(self, seen: Sighting, present: Sequence[str]) -> Check:
        name = f"peer {seen.address}"
        if seen.problem:
            fix = "check that it runs, that it can be reached from here, and [peers] in the rampart.toml of both"
            return failed(name, seen.problem, fix)
        if self._presence.merged and seen.replica not in present:
            detail = f"answers as {seen.replica}, which has not checked in at our database"
            return failed(name, detail, "give both the same [database]; see its own doctor")
        return fine(name, f"answers as {seen.replica}")

    # — sources, providers and channels —

    async def _no_source(self) -> list[Check]:
        fix = "add [sources.NAME] to rampart.toml; without one no rollout can start"
        return [failed("sources", "none is configured", fix)]

    async def _source(self, name: str, source: Source) -> list[Check]:
        problems = await source.problems()
        if problems:
            fix = f"check [sources.{name}] in rampart.toml, and that it can be reached from here"
            return [failed(f"source {name}", "; ".join(problems), fix)]
        return [fine(f"source {name}", "answers")]

    async def _provider(self, name: str, provider: Provider) -> list[Check]:
        problems = await provider.problems(await self._turned_by(name))
        if problems:
            fix = f"check [providers.{name}] in rampart.toml, and what its token may do"
            return [failed(f"provider {name}", "; ".join(problems), fix)]
        return [fine(f"provider {name}", "answers, and may do what the plans need")]

    async def _turned_by(self, provider: str) -> Collection[str]:
        """The environments in which a plan turns flags of this provider. Whoever only observes needs no rights."""
        try:
            plans = [one.plan.spec for one in await self._store.plans()]
        except StoreUnavailable:
            return ()  # told by the check of the database
        turned = [one.flag for one in plans if one.mode == "enforce" and one.flag.provider == provider]
        return sorted({flag.environment for flag in turned})

    async def _channels(self) -> list[Check]:
        if not self._settings.channels:
            fix = "add [channels.NAME] to rampart.toml, and name it in the plans' notify"
            return [risky("channels", "none is configured: nobody is told of a pause or a kill", fix)]
        try:
            untaken = await self._store.unannounced(1)
            backlog = await self._notifications.backlog()
        except StoreUnavailable:
            untaken, backlog = [], []  # told by the check of the database
        found = [check for one in backlog for check in _left_to(one)]
        if untaken and self._seconds_since(untaken[0][1].at) > ANNOUNCED_WITHIN_SECONDS:
            detail = f"nobody is told of anything since {untaken[0][1].at:%Y-%m-%d %H:%M:%S} UTC"
            found.append(failed("channels", detail, 'look for "announce" in the logs of all replicas'))
        if found:
            return found
        names = ", ".join(self._settings.channels)
        return [fine("channels", f"{names}; nothing waits. `rampart doctor --send-test` sends each a message")]

    def _seconds_since(self, at: Any) -> float:
        return float((self._clock.now() - at).total_seconds())


def _messages(number: int) -> str:
    return "1 message" if number == 1 else f"{number} messages"


def _left_to(one: Backlog) -> list[Check]:
    found = []
    if one.waiting and one.oldest_waiting_seconds > ANNOUNCED_WITHIN_SECONDS:
        waits = duration_text(round(one.oldest_waiting_seconds))
        detail = f"{one.channel} has not taken {_messages(one.waiting)}, the oldest for {waits}"
        detail += f": {one.why}" if one.why else ""
        fix = f"mend the receiver, or [channels.{one.channel}] in rampart.toml; they are tried again by themselves"
        found.append(failed("channels", detail, fix))
    if one.dead:
        detail = f"{_messages(one.dead)} to {one.channel} could not be delivered"
        fix = "rampart notifications shows why; then rampart notifications redeliver, or discard"
        found.append(risky("channels", detail, fix))
    return found


def clock_check(of: str, ahead: float) -> Check:
    """`ahead` in seconds: how far the clock of the database or of a source is ahead of this host's."""
    name = f"clock of {of}" if of == "database" else f"clock of source {of}"
    detail = f"{abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} this host's"
    fix = "let NTP or chrony keep both clocks; audit times, schedules and the age of samples rest on them"
    if abs(ahead) > CLOCK_NEEDED_SECONDS:
        return failed(name, detail, fix)
    if abs(ahead) > CLOCK_WANTED_SECONDS:
        return risky(name, detail, fix)
    return fine(name, f"within {CLOCK_WANTED_SECONDS:g} s of this host's")


def source_clocks(examined: Mapping[str, Examined]) -> list[Check]:
    return [
        clock_check(name, one.clock_ahead_seconds)
        for name, one in examined.items()
        if one.clock_ahead_seconds is not None
    ]


def _database_risks(condition: DatabaseCondition) -> Iterator[Check]:
    if condition.read_only:
        detail = "it takes no writes: a standby, or default_transaction_read_only"
        yield failed("database", detail, "let [database] url lead to the primary; until then nothing rises")
    if not condition.fsync:
        fix = "set fsync = on; an outage may cost the whole database, kills included"
        yield failed("database", "fsync is off: it says committed before anything is on disk", fix)
    if condition.synchronous_commit == "off":
        fix = "ALTER DATABASE … SET synchronous_commit = on; what was reported as done may be gone after a crash"
        yield risky("database", "synchronous_commit is off: a crash loses the latest commits", fix)
    if condition.connections > CONNECTIONS_SHARE * condition.max_connections:
        detail = f"{condition.connections} of {condition.max_connections} connections are taken"
        yield risky("database", detail, "raise max_connections, or lower [database] pool_size")


def _time_to_disk(folder: Path, clock: Clock) -> float:
    """Seconds until a few bytes are on disk beside the journal. Leaves nothing behind. Raises OSError."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-") as probe:
        began = clock.monotonic()
        probe.write(b"written by rampart doctor\n")
        probe.flush()
        os.fsync(probe.fileno())
        return clock.monotonic() - began


def _secret_files(settings: object) -> Iterator[str]:
    """Every path under a key that names a file with a secret."""
    if not isinstance(settings, dict):
        return
    for key, value in settings.items():
        if key.endswith("_file") and value:
            yield value
        elif key.endswith("_files"):
            yield from (path for path in (value.values() if isinstance(value, dict) else value) if path)
        else:
            yield from _secret_files(value)


def _secret_check(path: Path) -> Check | None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        fix = "create it, or correct its path in rampart.toml"
        return failed("secrets", f"{path} cannot be read: {error.strerror}", fix)
    if not os.access(path, os.R_OK):
        return failed(
            "secrets", f"{path} may not be read by this process", f"give it to the user that runs Rampart: {path}"
        )
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        detail = f"{path} holds a secret and is open to everybody on this host ({stat.filemode(mode)})"
        return risky("secrets", detail, f"chmod o-rwx {path}")
    return None


def _not_told(name: str) -> Check:
    """Registered and there, but no address of ours leads to it."""
    detail = "is not among our peers: without the database a kill does not reach it"
    return failed(f"replica {name}", detail, "add its address to [peers] in rampart.toml")
