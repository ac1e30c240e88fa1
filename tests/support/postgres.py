"""A real embedded PostgreSQL for tests: one server per xdist worker, a migrated, empty database for each test."""

import asyncio
import contextlib
import itertools
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from controller.store.embedded import EmbeddedPostgres
from controller.store.migrations import migrate
from controller.store.postgres import PostgresStore

SHARED = "tests"
# Cheaper than a new database for each test, and nearly as clean: sessions left over are ended first.
WIPE = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend';
DELETE FROM observations; DELETE FROM runs; DELETE FROM kills; DELETE FROM flags;
DELETE FROM manifest_revisions; DELETE FROM manifests;
DELETE FROM audit; UPDATE audit_head SET sequence = 0, hash = decode(repeat('00', 32), 'hex');
DELETE FROM tokens; DELETE FROM sdk_keys; DELETE FROM flag_configs;
DELETE FROM replicas; DELETE FROM barriers; DELETE FROM leaders;
DELETE FROM freezes; DELETE FROM kill_addresses;
DELETE FROM notifications;
DELETE FROM event_deliveries; DELETE FROM event_counts; DELETE FROM event_watches; DELETE FROM event_gaps;
"""

_numbers = itertools.count(1)


class Server:
    """A running server with one migrated database, and more on request."""

    def __init__(self, dsn: str, pid: int) -> None:
        self._dsn = dsn
        self.pid = pid

    def dsn(self, database: str = SHARED) -> str:
        return self._dsn.replace("@/rampart?", f"@/{database}?")

    async def prepare(self) -> None:
        await self._run("postgres", f"CREATE DATABASE {SHARED}")
        await migrate(self.dsn())

    async def wipe(self) -> None:
        await self._run(SHARED, WIPE)

    async def create_database(self) -> str:
        """An empty, unmigrated one; returns its DSN."""
        name = f"test_{next(_numbers)}"
        await self._run("postgres", f"CREATE DATABASE {name}")
        return self.dsn(name)

    async def drop_database(self, dsn: str) -> None:
        await self._run("postgres", f"DROP DATABASE {urlsplit(dsn).path.lstrip('/')} WITH (FORCE)")

    async def _run(self, database: str, statements: str) -> None:
        connection = await asyncpg.connect(self.dsn(database))
        try:
            await connection.execute(statements)
        finally:
            await connection.close()


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    loop = asyncio.new_event_loop()
    embedded = EmbeddedPostgres(tmp_path_factory.mktemp("server"))
    dsn = loop.run_until_complete(embedded.start())
    assert embedded.pid is not None
    server = Server(dsn, embedded.pid)
    loop.run_until_complete(server.prepare())
    yield server
    loop.run_until_complete(embedded.stop())
    loop.close()


@pytest.fixture
async def database(postgres_server: Server) -> str:
    """The DSN of a migrated, empty database."""
    await postgres_server.wipe()
    return postgres_server.dsn()


@pytest.fixture
async def store(database: str) -> AsyncIterator[PostgresStore]:
    connected = PostgresStore(database, pool_size=4, timeout_seconds=10.0)
    await connected.connect()
    yield connected
    await connected.close()


def tree(pid: int) -> list[int]:
    """The process and its children: a server's backends are in process groups of their own."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(int(child) for child in children)]


class Frozen:
    """Every process of a server, stopped for the time of the block, as on a host that hangs."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._stopped: list[int] = []

    def __enter__(self) -> None:
        # The postmaster first, so that it cannot start more of them.
        os.kill(self._pid, signal.SIGSTOP)
        self._stopped = tree(self._pid)
        for pid in self._stopped:
            os.kill(pid, signal.SIGSTOP)

    def __exit__(self, *_: object) -> None:
        for pid in self._stopped:
            # One that goes on may end the others, when it was told to while it was stopped.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
