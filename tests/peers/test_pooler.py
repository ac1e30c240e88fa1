"""Everything the store promises, through a real PgBouncer that gives each transaction another session."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import asyncpg
import pytest

from controller.errors import StoreUnavailable
from controller.store.migrations import migrate
from controller.store.postgres import PostgresStore
from tests.contracts.test_store import TestPostgres as OnPostgres
from tests.store.samples import change, entry, kill, started
from tests.support import manifests
from tests.support.exposition import Exposition, Traffic
from tests.support.pgbouncer import running_pgbouncer
from tests.support.postgres import Server, database, postgres_server
from tests.support.replicas import Database, replicas

__all__ = ["database", "postgres_server"]

FLAG_KEY = "checkout"

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def pooler(postgres_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("pooler")
    directory.chmod(0o755)
    with running_pgbouncer(directory, postgres_server.dsn()) as dsn:
        yield dsn


@pytest.fixture
async def store(pooler: str, database: str) -> AsyncIterator[PostgresStore]:
    connected = PostgresStore(pooler, pool_size=4, timeout_seconds=10.0, pooled=True)
    await connected.connect()
    yield connected
    await connected.close()


class TestPooled(OnPostgres):
    """The contract of the store."""


async def test_stores_that_share_sessions_never_get_the_answers_of_each_other(
    store: PostgresStore, pooler: str
) -> None:
    """More clients than sessions, each asking for what only it asks for, with arguments of the same types."""
    others = [PostgresStore(pooler, pool_size=4, timeout_seconds=20.0, pooled=True) for _ in range(3)]
    for other in others:
        await other.connect()
    names = [f"plan-{number}" for number in range(12)]
    runs = {name: await started(store, name) for name in names}

    async def ask(which: PostgresStore, name: str) -> None:
        for _ in range(20):
            found = await which.run(f"{name}#1")
            assert found is not None
            assert found[0] == runs[name]
            saved = await which.plan(name, 1)
            assert saved is not None
            assert saved.plan.metadata.name == name
            assert await which.committed(f"nothing-of-{name}") is None

    stores = [store, *others]
    await asyncio.gather(*(ask(stores[number % 4], name) for number, name in enumerate(names)))
    for other in others:
        await other.close()


async def test_a_statement_that_waits_too_long_is_ended_by_the_server(
    pooler: str, database: str, store: PostgresStore
) -> None:
    """The pooler keeps the session of a client that went away: without a timeout there it would wait for ever."""
    run = await started(store)
    hasty = PostgresStore(pooler, timeout_seconds=0.5, pooled=True)
    await hasty.connect()
    raw = await asyncpg.connect(database)
    blocking = raw.transaction()
    await blocking.start()
    await raw.execute("SELECT FROM audit_head FOR UPDATE")
    with pytest.raises(StoreUnavailable):
        await hasty.commit(change(run, "pause"))
    async with asyncio.timeout(5):
        while await raw.fetchval("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"):
            await raw.execute("SELECT pg_stat_clear_snapshot()")
            await asyncio.sleep(0.02)
    await blocking.commit()
    await raw.close()
    await hasty.close()
    found = await store.run(run.id)
    assert found is not None
    assert found[0] == run


async def test_no_setting_of_a_transaction_stays_in_a_shared_session(pooler: str, store: PostgresStore) -> None:
    await store.record_kill(kill(), entry("kill"))
    connection = await asyncpg.connect(pooler, statement_cache_size=0)
    settings = await connection.fetch(
        "SELECT name FROM pg_settings WHERE name LIKE '%timeout' AND source = 'session'"
    )
    assert settings == []
    await connection.close()


async def test_migrations_go_through_a_pooler(pooler: str, postgres_server: Server) -> None:
    direct = await postgres_server.create_database()
    name = direct.split("@/")[1].split("?")[0]
    through = f"{pooler.rpartition('/')[0]}/{name}"
    first, second = await asyncio.gather(migrate(through), migrate(through))
    assert sorted([*first, *second])[0].startswith("0001_pre")
    assert await migrate(through) == []
    await postgres_server.drop_database(direct)


@pytest.mark.timeout(240)
def test_two_replicas_finish_a_rollout_through_a_pooler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a direct address beside it, to be told of changes."""
    database = Database(tmp_path / "database")
    app = Exposition({FLAG_KEY: {"on": Traffic(), "off": Traffic()}})
    more = (
        f'[sources.app]\nkind = "scrape"\ntargets = ["{app.url}"]\nevery_seconds = 0.25\ntimeout_seconds = 1.0\n'
        "[engine]\npoll_seconds = 0.2\nlease_seconds = 5.0\npresence_seconds = 3.0\n"
    )
    monkeypatch.setenv("RAMPART_DATABASE__POOLED", "true")
    monkeypatch.setenv("RAMPART_DATABASE__LISTEN_URL", database.url)
    with ExitStack() as stack:
        stack.callback(database.stop)
        stack.callback(app.close)
        through = stack.enter_context(running_pgbouncer(tmp_path, database.url, pool_size=3))
        first, second = stack.enter_context(replicas(tmp_path, through, more=more, count=2))
        first.apply(
            a_policy=manifests.policy(every="500ms", window="2s", stale_after="2s"),
            the_flag=manifests.flag(FLAG_KEY),
            the_plan=manifests.plan(FLAG_KEY),
        )
        second.command(FLAG_KEY, "start")
        done = first.wait_phase(FLAG_KEY, "completed", seconds=120)
        assert done["observed_exposure"] == 100_000
        assert second.call("GET", "audit/verify")["problem"] is None
        assert "told_of_changes" in first.tail(100_000)
        assert [first.stop(), second.stop()] == [0, 0]
