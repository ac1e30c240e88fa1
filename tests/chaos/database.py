"""A PostgreSQL server that may be killed, frozen, filled up and failed over; reached over TCP on the loopback."""

import asyncio
import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg

from controller.store.binaries import Account, Binaries, copied, find, reachable
from controller.store.children import spawn
from tests.support.server import free_port, wait_until

USER = "rampart"
DATABASE = "rampart"
FILE_SYSTEM_BYTES = 1_500_000_000
START_SECONDS = 60.0
AWAY = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "shared_buffers": "64MB",
    "max_connections": "80",
    "max_wal_size": "192MB",
    "max_wal_senders": "4",
    "wal_keep_size": "128MB",
    "jit": "off",
    "timezone": "UTC",
    "logging_collector": "off",
    "client_connection_check_interval": "2s",
}


class Ground:
    """Where the database files are: a small file system of its own where we may mount one, else a directory."""

    def __init__(self, folder: Path, *, mount: bool) -> None:
        folder.chmod(0o711)
        self.binaries: Binaries = find(None, None)
        self.account = _account()
        if self.account and not reachable(self.binaries.postgres, self.account):
            self.binaries = copied(self.binaries, _enterable(folder / "programs"))
        self.path = _enterable(folder / "disk")
        self.why_not_small = self._mount(folder / "disk.image") if mount else "no file system is to be mounted"
        self.path.chmod(0o711)

    @property
    def small(self) -> bool:
        return not self.why_not_small

    def _mount(self, image: Path) -> str:
        """Why there is no small file system; empty when there is one."""
        if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
            return "only root can mount a small file system, with mkfs.ext4 at hand"
        with image.open("wb") as file:
            file.truncate(FILE_SYSTEM_BYTES)
        for command in (
            ["mkfs.ext4", "-q", "-F", str(image)],
            ["mount", "-o", "loop", str(image), str(self.path)],
        ):
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            if done.returncode:
                return f"{command[0]} failed: {done.stderr.strip()}"
        return ""

    def close(self) -> None:
        if self.small:
            subprocess.run(["umount", "--lazy", str(self.path)], capture_output=True, timeout=60, check=False)

    @contextmanager
    def full(self) -> Iterator[None]:
        """Not a byte is free for the time of the block."""
        ballast = self.path / "ballast"
        try:
            with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                free = os.statvfs(self.path)
                os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize)
            yield
        finally:
            ballast.unlink(missing_ok=True)


class PostgresServer:
    """One cluster directory and its server process. Start it from a thread that stays."""

    def __init__(self, ground: Ground, name: str) -> None:
        self.ground = ground
        self.directory = ground.path / name
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def dsn(self) -> str:
        return dsn(self.port)

    def initialise(self) -> None:
        self._make_directory()
        options = ["--encoding=UTF8", "--no-locale", f"--username={USER}", "--auth=trust", "--no-instructions"]
        self._run("initdb", "-D", "/proc/self/cwd", *options)

    def copy_from(self, primary: "PostgresServer", port: int) -> None:
        """A streaming standby of `primary`, which it reaches at `port`."""
        self._make_directory()
        source = f"host=127.0.0.1 port={primary.port} user={USER}"
        self._run("pg_basebackup", "-D", "/proc/self/cwd", "-d", source, "-X", "stream", "-c", "fast")
        with (self.directory / "postgresql.auto.conf").open("a") as file:
            file.write(f"primary_conninfo = 'host=127.0.0.1 port={port} user={USER} application_name=standby'\n")
        (self.directory / "standby.signal").touch()

    def _make_directory(self) -> None:
        self.directory.mkdir(mode=0o700)
        if self.ground.account:
            os.chown(self.directory, self.ground.account.uid, self.ground.account.gid)

    def _run(self, program: str, *arguments: str) -> None:
        # By its working directory: the account may not be able to reach it by its path.
        command = [str(self.ground.binaries.directory / program), *arguments]
        account = self.ground.account
        identity: dict[str, Any] = (
            {"user": account.uid, "group": account.gid, "extra_groups": []} if account else {}
        )
        done = subprocess.run(
            command, cwd=self.directory, capture_output=True, text=True, timeout=120, check=False, **identity
        )
        assert done.returncode == 0, f"{program}: {done.stderr[-2000:]}"

    def start(self, *, wait: bool = True) -> None:
        options = [
            part for name, value in {**SETTINGS, "port": self.port}.items() for part in ("-c", f"{name}={value}")
        ]
        command = [str(self.ground.binaries.postgres), "-D", "/proc/self/cwd", *options]
        with (self.directory.parent / f"{self.directory.name}.log").open("ab") as log:
            self.process = spawn(command, directory=self.directory, account=self.ground.account, log=log)
        if wait:
            self.wait_answers()

    def wait_answers(self) -> float:
        """When it first answered, on the monotonic clock."""
        wait_until(
            self.answers, seconds=START_SECONDS, every=0.02, what=f"PostgreSQL to answer; log: {self.tail()}"
        )
        return time.monotonic()

    def answers(self, database: str = "postgres") -> bool:
        try:
            ask(dsn(self.port, database), "SELECT 1", seconds=1.0)
        except AWAY:
            return False
        return True

    def end(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """SIGQUIT: at once, as at a crash, with recovery at the next start. SIGINT: in good order."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                for pid in reversed(tree(self.process.pid)):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                self.process.wait(timeout=30)

    def ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def remove(self) -> None:
        self.end()
        shutil.rmtree(self.directory, ignore_errors=True)

    def tail(self) -> str:
        log = self.directory.parent / f"{self.directory.name}.log"
        return log.read_text(errors="replace")[-1500:] if log.exists() else ""

    @contextmanager
    def frozen(self) -> Iterator[None]:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)  # first, so that it cannot start more of them
        pids = tree(self.process.pid)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    @contextmanager
    def configured(self, name: str, value: str) -> Iterator[None]:
        """A setting of the whole server, for the time of the block, which new statements see at once."""
        ask(self.dsn, f"ALTER SYSTEM SET {name} = '{value}'")
        ask(self.dsn, "SELECT pg_reload_conf()")
        try:
            yield
        finally:
            ask(self.dsn, f"ALTER SYSTEM RESET {name}")
            ask(self.dsn, "SELECT pg_reload_conf()")


class Sql:
    """A connection of our own that outlives every fault: it connects anew whenever it has to. For any thread."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None

    def lead_to(self, port: int) -> None:
        with self._lock:
            self._port = port
            self._drop()

    def rows(self, query: str, *arguments: Any, seconds: float = 10.0) -> Sequence[asyncpg.Record]:
        """Raises one of AWAY when the database did not answer."""
        with self._lock:
            return self._loop.run_until_complete(self._rows(query, arguments, seconds))

    def value(self, query: str, *arguments: Any, seconds: float = 10.0) -> Any:
        found = self.rows(query, *arguments, seconds=seconds)
        return found[0][0] if found else None

    async def _rows(self, query: str, arguments: Sequence[Any], seconds: float) -> Sequence[asyncpg.Record]:
        try:
            async with asyncio.timeout(seconds):
                if self._connection is None or self._connection.is_closed():
                    self._connection = await asyncpg.connect(dsn(self._port), server_settings=SESSION)
                return await self._connection.fetch(query, *arguments)
        except BaseException:
            self._drop()
            raise

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    def close(self) -> None:
        with self._lock:
            self._drop()
            self._loop.run_until_complete(asyncio.sleep(0))
            self._loop.close()


SESSION = {"application_name": "chaos", "default_transaction_read_only": "off", "timezone": "UTC"}
"""Said at login, and therefore stronger than what a fault makes of the server's defaults."""


def dsn(port: int, database: str = DATABASE) -> str:
    return f"postgresql://{USER}@127.0.0.1:{port}/{database}"


def ask(address: str, statement: str, *, seconds: float = 10.0) -> Any:
    """One statement on a connection of its own; the first value."""

    async def once() -> Any:
        async with asyncio.timeout(seconds):
            connection = await asyncpg.connect(address, server_settings=SESSION)
            try:
                return await connection.fetchval(statement)
            finally:
                connection.terminate()

    return asyncio.run(once())


def tree(pid: int) -> list[int]:
    """The process and its children."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return [pid]
    return [pid, *(int(child) for child in children)]


def _account() -> Account | None:
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(entry.pw_uid, entry.pw_gid)
    raise AssertionError("no user postgres or nobody to run PostgreSQL as")


def _enterable(folder: Path) -> Path:
    folder.mkdir()
    folder.chmod(0o711)
    return folder
