"""A database that hangs, dies or is full of waiters: every call ends in time, and all is well afterwards."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from controller.errors import Conflict, StoreUnavailable
from controller.ports import Store
from controller.store.postgres import PostgresStore
from controller.store.queries import SQL
from tests.store.samples import FLAG, change, created_run, entry, kill, plan, started
from tests.support.postgres import Frozen, Server

TIMEOUT = 0.4
# How late an answer may be on a busy machine; a hang is orders of magnitude beyond it.
SLACK = 1.0


@pytest.fixture
async def hasty(database: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(database, pool_size=3, timeout_seconds=TIMEOUT)
    await store.connect()
    yield store
    await store.close()


async def ends_in_time(call: Awaitable[object]) -> None:
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match=r"did not answer within 0\.4 s"):
        await call
    assert time.monotonic() - began < TIMEOUT + SLACK


CALLS: dict[str, Callable[[Store], Awaitable[object]]] = {
    "read": lambda store: store.plans(),
    "transaction": lambda store: store.record_kill(kill(), entry("kill")),
    "claim": lambda store: store.claim_due("replica-a", limit=1, lease_seconds=30),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_a_frozen_server_hangs_nobody_and_is_used_again_when_it_goes_on(
    hasty: PostgresStore, postgres_server: Server, call: Callable[[Store], Awaitable[object]]
) -> None:
    await asyncio.gather(*(hasty.plans() for _ in range(3)))  # connections that know the server as healthy
    with Frozen(postgres_server.pid):
        # More callers than connections, twice: some meet old connections, some make new ones, some wait.
        for _ in range(2):
            await asyncio.gather(*(ends_in_time(call(hasty)) for _ in range(6)))
    await asyncio.gather(*(hasty.plans() for _ in range(6)))


async def test_a_caller_that_is_cancelled_on_a_frozen_server_does_not_hang(
    hasty: PostgresStore, postgres_server: Server
) -> None:
    await hasty.plans()
    with Frozen(postgres_server.pid):
        for call in CALLS.values():
            task = asyncio.ensure_future(call(hasty))
            await asyncio.sleep(0.05)
            task.cancel()
            done, _ = await asyncio.wait([task], timeout=TIMEOUT + SLACK)
            assert done
    assert await hasty.plans() == []


async def test_closing_on_a_frozen_server_ends_in_time(database: str, postgres_server: Server) -> None:
    store = PostgresStore(database, timeout_seconds=TIMEOUT)
    await store.connect()
    await store.plans()
    with Frozen(postgres_server.pid):
        async with asyncio.timeout(TIMEOUT + SLACK):
            await store.close()


async def test_a_commit_stopped_by_a_timeout_is_settled_by_asking(hasty: PostgresStore, database: str) -> None:
    """The row is locked by somebody else: our commit times out, and then it surely has not happened."""
    step = change(await created_run(hasty), "start", raises=True)
    blocker = await asyncpg.connect(database)
    blocking = blocker.transaction()
    await blocking.start()
    await blocker.fetchval(SQL["lock_flag"], FLAG.provider, FLAG.environment, FLAG.key)
    await ends_in_time(hasty.commit(step))
    await blocking.rollback()
    await blocker.close()
    assert await hasty.committed(step.entry.id) is None
    sequence = await hasty.commit(step)
    assert await hasty.committed(step.entry.id) == sequence


async def test_a_connection_cut_between_preparing_and_executing_is_unavailable(
    hasty: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = vars(asyncpg.Connection)["_get_statement"]

    async def late(*arguments: Any, **options: Any) -> Any:
        statement = await prepare(*arguments, **options)
        await asyncio.sleep(TIMEOUT + 0.1)  # the answer to the first half comes when time is over
        return statement

    with monkeypatch.context() as slow:
        slow.setattr(asyncpg.Connection, "_get_statement", late)
        await ends_in_time(hasty.plans())
    assert await hasty.plans() == []


async def test_connections_cut_by_the_server_are_replaced(hasty: PostgresStore, postgres_server: Server) -> None:
    await asyncio.gather(*(hasty.plans() for _ in range(3)))
    admin = await asyncpg.connect(postgres_server.dsn("postgres"))
    await admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'rampart'"
    )
    await admin.close()
    # One call per connection may still meet a dead one; none after that.
    await asyncio.gather(*(hasty.plans() for _ in range(3)), return_exceptions=True)
    await asyncio.gather(*(hasty.plans() for _ in range(6)))


async def test_a_connection_that_the_server_ended_is_met_by_nobody_else(database: str) -> None:
    store = PostgresStore(database, pool_size=1, timeout_seconds=5.0)
    await store.connect()
    for _ in range(20):
        with pytest.raises(StoreUnavailable, match="terminating connection"):
            await store._database.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        assert await store.plans() == []
    await store.close()


async def test_an_exhausted_pool_is_unavailable_and_not_a_hang(database: str) -> None:
    store = PostgresStore(database, pool_size=1, timeout_seconds=TIMEOUT)
    await store.connect()
    assert await store.plans() == []
    pool = store._database._pool
    assert pool is not None
    async with pool.acquire():
        await asyncio.gather(*(ends_in_time(store.plans()) for _ in range(3)))
    assert await store.plans() == []
    await store.close()


async def test_no_server_at_all_is_unavailable_at_once(tmp_path: Path) -> None:
    store = PostgresStore(f"postgresql://rampart@/rampart?host={tmp_path}", timeout_seconds=5.0)
    await store.connect()
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match="not available"):
        await store.plans()
    assert time.monotonic() - began < SLACK
    await store.close()


async def test_a_store_that_was_never_connected_is_unavailable(database: str) -> None:
    with pytest.raises(StoreUnavailable, match="not connected"):
        await PostgresStore(database).plans()


async def test_an_unmigrated_database_says_what_to_run(postgres_server: Server) -> None:
    store = PostgresStore(postgres_server.dsn("postgres"))
    await store.connect()
    with pytest.raises(StoreUnavailable, match="rampart migrate"):
        await store.plans()
    await store.close()


async def test_a_refusal_leaves_the_connection_in_use(store: Store) -> None:
    run = await started(store)
    for _ in range(20):
        with pytest.raises(Conflict):
            await store.commit(change(run, "advance", raises=True, lease_epoch=99))
        await store.save_plan(plan(), entry())
