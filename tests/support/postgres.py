"""A real embedded PostgreSQL for tests: one server per xdist worker, a database of its own for each test."""

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

TEMPLATE = "template_rampart"

_numbers = itertools.count(1)


class Server:
    """A running server with a migrated template to copy databases from."""

    def __init__(self, dsn: str, pid: int) -> None:
        self._dsn = dsn
        self.pid = pid

    def dsn(self, database: str) -> str:
        return self._dsn.replace("@/rampart?", f"@/{database}?")

    async def prepare(self) -> None:
        await self._administer(f"CREATE DATABASE {TEMPLATE}")
        await migrate(self.dsn(TEMPLATE))

    async def create_database(self, template: str = TEMPLATE) -> str:
        name = f"test_{next(_numbers)}"
        await self._administer(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.dsn(name)

    async def drop_database(self, dsn: str) -> None:
        await self._administer(f"DROP DATABASE {urlsplit(dsn).path.lstrip('/')} WITH (FORCE)")

    async def _administer(self, statement: str) -> None:
        connection = await asyncpg.connect(self.dsn("postgres"))
        try:
            await connection.execute(statement)
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
async def database(postgres_server: Server) -> AsyncIterator[str]:
    """The DSN of a migrated, empty database."""
    dsn = await postgres_server.create_database()
    yield dsn
    await postgres_server.drop_database(dsn)


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
