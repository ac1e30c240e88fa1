"""What a real database says of itself, when nothing is wrong with it and when something is."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import asyncpg

from controller.store.migrations import directory, load
from controller.store.postgres import PostgresStore
from tests.store.samples import started


@asynccontextmanager
async def altered(dsn: str, setting: str) -> AsyncIterator[PostgresStore]:
    """A store whose sessions began after the database was set so; set back at the end."""
    name = urlsplit(dsn).path.lstrip("/")
    admin = await asyncpg.connect(dsn)
    await admin.execute(f"ALTER DATABASE {name} SET {setting}")
    store = PostgresStore(dsn)
    await store.connect()
    try:
        yield store
    finally:
        await store.close()
        await admin.execute("SET default_transaction_read_only = off")
        await admin.execute(f"ALTER DATABASE {name} RESET {setting.split(' ', maxsplit=1)[0]}")
        await admin.close()


async def test_a_database_tells_where_it_is_and_how_it_is(store: PostgresStore) -> None:
    await started(store)
    condition = await store.condition()
    assert condition.schema == load(directory())[-1].name
    assert condition.audit_head == (await store.audit_head())[0] > 0
    assert abs(condition.now - datetime.now(UTC)) < timedelta(seconds=5)
    assert condition.version.split(".")[0].isdigit()
    assert (condition.read_only, condition.fsync, condition.synchronous_commit) == (False, True, "on")
    assert 1 <= condition.connections <= condition.max_connections


async def test_a_database_that_takes_no_writes_says_so(store: PostgresStore, database: str) -> None:
    async with altered(database, "default_transaction_read_only = on") as reader:
        assert (await reader.condition()).read_only
    assert not (await store.condition()).read_only


async def test_a_database_that_answers_before_it_has_written_says_so(store: PostgresStore, database: str) -> None:
    async with altered(database, "synchronous_commit = off") as hasty:
        assert (await hasty.condition()).synchronous_commit == "off"
