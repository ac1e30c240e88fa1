"""A PostgreSQL of our own in the data directory: the default store, the same code path as any other.

The server is our child and never outlives us; whoever holds the lock file is the only one to start it.
Data is safe under `kill -9` of either: a crash of ours is a crash of PostgreSQL, which is what its log is for.
"""

import asyncio
import contextlib
import fcntl
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import IO
from urllib.parse import quote

import asyncpg
import structlog

from controller.errors import SettingsError, StoreUnavailable
from controller.store.binaries import Account, Binaries, copied, find, reachable
from controller.store.children import ON_LINUX, POLL_SECONDS, alive, ended, servers_in, spawn, watch_parent

USER = "rampart"
DATABASE = "rampart"
PORT = 5432
SHORT_DIRECTORY = "/tmp"  # noqa: S108 - a private directory is made in it
SERVER_ACCOUNTS = ("postgres", "nobody")
LONGEST_SOCKET_PATH = 107 if ON_LINUX else 103
LARGEST_LOG_BYTES = 8_000_000
LONGEST_RETRY_SECONDS = 2.0
ASK_SECONDS = 10.0
# What asyncpg raises depends on where in its handshake the server went away.
UNANSWERED = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
REPORT_SECONDS = 10.0
PID_FILE_STATE = 7

# Everything is on the command line, so that no file in the data directory has to be edited on an upgrade.
SERVER_SETTINGS = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_directories": ".",
    "unix_socket_permissions": "0700",
    "shared_buffers": "64MB",
    "max_connections": "60",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
    "log_destination": "stderr",
    "client_connection_check_interval": "2s",
    # One call for the file system instead of one for each of a thousand files: seconds, on a busy disk.
    **({"recovery_init_sync_method": "syncfs"} if ON_LINUX else {}),
}

# Whoever can reach the socket inside the 0700 directory can read the files as well: hence trust.
CLUSTER_OPTIONS = [
    "--encoding=UTF8",
    "--no-locale",
    "--data-checksums",
    "--no-instructions",
    f"--username={USER}",
    "--auth-local=trust",
    "--auth-host=reject",
]

_log = structlog.get_logger()


class _NotYetError(Exception):
    """The server could not be started now; the message says why. Trying again may help."""


class EmbeddedPostgres:
    """Supervises one PostgreSQL server in `data_dir`/postgres, reached through a unix socket only.

    As root the server runs as an unprivileged user. That user need not be able to reach the data directory:
    the server is started inside it and names it by its own working directory.
    """

    def __init__(
        self, data_dir: Path | str, *, bin_dir: Path | str | None = None, stop_seconds: float = 10.0
    ) -> None:
        self._base = Path(data_dir).expanduser().resolve() / "postgres"
        self._data = self._base / "data"
        self._bin_dir = Path(bin_dir).expanduser().resolve() if bin_dir else None
        self._stop_seconds = stop_seconds
        self._lock: IO[str] | None = None
        self._account: Account | None = None
        self._socket_directory = self._data
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None
        self._supervision: asyncio.Task[None] | None = None

    @property
    def dsn(self) -> str:
        """Known after `start`, and the same after every restart of the server."""
        return self._dsn(DATABASE)

    @property
    def pid(self) -> int | None:
        """The server's process id; None while there is none."""
        return self._process.pid if self._process and self._process.poll() is None else None

    async def start(self) -> str:
        """Start the server and watch over it; returns its DSN.

        A server that cannot start now, as while a frozen predecessor still holds the data, is tried again
        without end. Raises SettingsError when another process supervises this directory, or when programs
        and data do not fit.
        """
        self._acquire_lock()
        try:
            self._discard_runtime()
            binaries = self._prepare()
            if not self._data.exists():
                await self._initialise(binaries)
            await self._launch(binaries)
        except BaseException:
            await self._end(signal.SIGQUIT)
            raise
        self._supervision = asyncio.create_task(self._supervise(binaries))
        return self.dsn

    async def stop(self) -> None:
        """Stop the server: politely, after a deadline less so. Safe to call twice."""
        if self._supervision:
            self._supervision.cancel()
            await asyncio.wait([self._supervision])
            self._supervision = None
        await self._end(signal.SIGINT)

    async def _end(self, first: signal.Signals) -> None:
        await self._terminate(first)
        self._discard_runtime()
        self._release_lock()

    # — the lock —

    def _acquire_lock(self) -> None:
        self._base.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._base.mkdir(mode=0o700, exist_ok=True)
            lock = (self._base / "lock").open("a+")
        except PermissionError as error:
            raise SettingsError(
                f"{self._base} belongs to another user; run Rampart as that user or set another data_dir"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            lock.close()
            raise SettingsError(
                f"the embedded database in {self._base} is in use by process {holder}; "
                "stop that one, set another data_dir, or share a PostgreSQL through database.url"
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        self._lock = lock

    def _release_lock(self) -> None:
        if self._lock:
            self._lock.close()
            self._lock = None

    # — programs, account and directories —

    def _prepare(self) -> Binaries:
        for leftover in self._base.glob("new-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        binaries = find(self._bin_dir, self._data_version())
        self._account = self._server_account()
        if self._account and not reachable(binaries.postgres, self._account):
            binaries = copied(binaries, self._runtime())
        self._socket_directory = self._data
        if len(os.fsencode(self._data / f".s.PGSQL.{PORT}")) > LONGEST_SOCKET_PATH:
            self._socket_directory = self._runtime() / "socket"
            self._socket_directory.symlink_to(self._data)
        return binaries

    def _data_version(self) -> int | None:
        try:
            return int((self._data / "PG_VERSION").read_text())
        except FileNotFoundError:
            return None

    def _server_account(self) -> Account | None:
        if os.geteuid() != 0:
            return None
        if not ON_LINUX:
            raise SettingsError("as root the embedded database runs on Linux only; run Rampart as another user")
        if self._data.exists() and (owner := self._data.stat()).st_uid != 0:
            return Account(owner.st_uid, owner.st_gid)
        for name in SERVER_ACCOUNTS:
            with contextlib.suppress(KeyError):
                entry = pwd.getpwnam(name)
                return Account(entry.pw_uid, entry.pw_gid)
        raise SettingsError(f"no user {' or '.join(SERVER_ACCOUNTS)} to run the embedded database as; create one")

    def _runtime(self) -> Path:
        """A directory with a short path that anybody may enter; noted down, so that the next start removes it."""
        note = self._base / "runtime"
        if note.exists():
            return Path(note.read_text())
        # Not TMPDIR: that may be as long as the path this one stands in for.
        directory = Path(tempfile.mkdtemp(prefix="rampart-", dir=SHORT_DIRECTORY))
        note.write_text(str(directory))
        directory.chmod(0o711)
        return directory

    def _discard_runtime(self) -> None:
        note = self._base / "runtime"
        if not note.exists():
            return
        directory = Path(note.read_text())
        if directory.name.startswith("rampart-") and directory.is_dir() and directory.owner() == _own_name():
            shutil.rmtree(directory, ignore_errors=True)
        note.unlink()

    async def _initialise(self, binaries: Binaries) -> None:
        """initdb into a directory beside, then rename: a half-made cluster is never taken for a whole one."""
        fresh = Path(tempfile.mkdtemp(prefix="new-", dir=self._base))
        if self._account:
            os.chown(fresh, self._account.uid, self._account.gid)
        options = CLUSTER_OPTIONS + (["--sync-method=syncfs"] if ON_LINUX and binaries.major >= 17 else [])
        process = self._spawn([str(binaries.initdb), "-D", self._name_of(fresh), *options], fresh)
        try:
            await ended(process)
        finally:
            process.kill()
            process.wait()
        if process.returncode != 0:
            raise StoreUnavailable(f"initdb failed in {fresh}: {self._last_words()}")
        fresh.rename(self._data)  # noqa: ASYNC240 - one rename on a local disk

    def _name_of(self, directory: Path) -> str:
        # Below a directory that the server's account may not enter only this name still leads there.
        return "/proc/self/cwd" if self._account else str(directory)

    # — the server process —

    async def _launch(self, binaries: Binaries) -> None:
        delay = 0.1
        while True:
            try:
                await self._try_to_launch(binaries)
            except Exception as reason:  # noqa: BLE001 - whatever it was, a database that is tried again is better
                why = str(reason) if isinstance(reason, _NotYetError) else repr(reason)
                _log.warning("embedded_postgres_not_started", reason=why, retry_in_seconds=delay)
            else:
                _log.info("embedded_postgres_started", pid=self.pid, data=str(self._data))
                return
            await asyncio.sleep(delay)
            delay = min(2 * delay, LONGEST_RETRY_SECONDS)

    async def _try_to_launch(self, binaries: Binaries) -> None:
        self._make_way()
        settings = [part for name, value in SERVER_SETTINGS.items() for part in ("-c", f"{name}={value}")]
        command = [str(binaries.postgres), "-D", self._name_of(self._data), *settings]
        process = self._process = self._spawn(command, self._data)
        if not ON_LINUX:
            self._dismiss_watcher()
            self._watcher = watch_parent(process.pid)
        patience = asyncio.get_running_loop().time() + REPORT_SECONDS
        while not await ended(process, POLL_SECONDS):
            if self._says_ready() and await self._answers():
                return
            if asyncio.get_running_loop().time() > patience:
                _log.warning("embedded_postgres_not_ready", pid=process.pid, last_words=self._last_words())
                patience += REPORT_SECONDS
        raise _NotYetError(f"it ended with status {process.returncode}: {self._last_words()}")

    def _make_way(self) -> None:
        """Raises _NotYetError while a predecessor lives; clears pid files whose pid now is somebody else's.

        A pid file whose process is gone stays: PostgreSQL itself uses it to find orphaned backends.
        """
        pid = self._noted_pid()
        living = list(servers_in(self._data, pid))
        if pid in living:
            # Its supervisor is dead, or we would not hold the lock: this is what its death should have caused.
            os.kill(pid, signal.SIGQUIT)
        if living:
            raise _NotYetError(f"the previous server still runs (pid {', '.join(map(str, living))})")
        if pid is not None and alive(pid):
            (self._data / "postmaster.pid").unlink(missing_ok=True)
            (self._data / f".s.PGSQL.{PORT}.lock").unlink(missing_ok=True)

    def _noted_pid(self) -> int | None:
        try:
            return int((self._data / "postmaster.pid").read_text().split("\n", 1)[0])
        except (FileNotFoundError, ValueError):
            return None

    def _says_ready(self) -> bool:
        # The last line of the pid file is the server's state: reading it costs the server nothing.
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > PID_FILE_STATE and lines[PID_FILE_STATE].strip() == "ready"

    def _spawn(self, command: list[str], directory: Path) -> subprocess.Popen[bytes]:
        with self._open_log() as log:
            return spawn(command, directory=directory, account=self._account, log=log)

    def _open_log(self) -> IO[bytes]:
        path = self._base / "postgres.log"
        if path.exists() and path.stat().st_size > LARGEST_LOG_BYTES:
            path.rename(path.with_suffix(".log.1"))
        return path.open("ab")

    def _last_words(self) -> str:
        lines = (self._base / "postgres.log").read_bytes()[-4000:].decode(errors="replace").splitlines()
        telling = [line for line in lines if "FATAL" in line or "PANIC" in line or "error:" in line] or lines
        return telling[-1].strip() if telling else f"see {self._base / 'postgres.log'}"

    async def _answers(self) -> bool:
        """Whether the server accepts connections; makes our database on the way."""
        try:
            connection = await asyncpg.connect(self._dsn("postgres"), timeout=2.0)
        except UNANSWERED:
            return False
        try:
            async with asyncio.timeout(ASK_SECONDS):
                known = await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", DATABASE)
                if not known:
                    await connection.execute(f"CREATE DATABASE {DATABASE}")
        except UNANSWERED as error:
            _log.warning("embedded_postgres_database_not_made", reason=str(error))
            return False
        finally:
            connection.terminate()
        return True

    def _dsn(self, database: str) -> str:
        return f"postgresql://{USER}@/{database}?host={quote(str(self._socket_directory), safe='')}&port={PORT}"

    async def _supervise(self, binaries: Binaries) -> None:
        while self._process:
            await ended(self._process)
            _log.error("embedded_postgres_died", status=self._process.returncode, last_words=self._last_words())
            await self._launch(binaries)

    async def _terminate(self, first: signal.Signals) -> None:
        process = self._process
        if process:
            for request, patience in ((first, self._stop_seconds), (signal.SIGQUIT, self._stop_seconds / 2)):
                process.send_signal(request)
                if await ended(process, patience):
                    break
            else:
                await self._force(process)
        self._dismiss_watcher()

    async def _force(self, process: subprocess.Popen[bytes]) -> None:
        _log.error("embedded_postgres_does_not_stop", pid=process.pid)
        for pid in servers_in(self._data, process.pid):
            with contextlib.suppress(ProcessLookupError):  # its parent's end may have ended it already
                os.kill(pid, signal.SIGKILL)
        await ended(process)

    def _dismiss_watcher(self) -> None:
        if self._watcher:
            self._watcher.kill()
            self._watcher.communicate()
            self._watcher = None


def _own_name() -> str:
    return pwd.getpwuid(os.geteuid()).pw_name
