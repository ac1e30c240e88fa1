"""What must hold when several replicas, people and kills meet in one database."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias

import asyncpg
import msgspec
import pytest

from controller.domain.audit import canonical_body, verify_chain
from controller.domain.catalogue import Barrier, Replica
from controller.domain.rollout import ACTIVE_PHASES, Run
from controller.errors import Conflict, KillInForce, NotFound, RaisesBlocked
from controller.ports import Store
from controller.store.postgres import PostgresStore
from controller.store.queries import SQL
from tests.store.samples import FLAG, NOW, change, entry, kill, pending_run, plan, started

Raw: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@pytest.fixture
async def raw(database: str) -> AsyncIterator[Raw]:
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


async def version_of(store: Store, run: Run) -> int:
    found = await store.run(run.id)
    assert found is not None
    return found[0].version


async def waiting_for_a_lock(raw: Raw, count: int = 1) -> None:
    """Until that many sessions of this database wait for a lock."""
    async with asyncio.timeout(10):
        while True:
            # Within a transaction the list of sessions is otherwise the one of the first look.
            await raw.execute("SELECT pg_stat_clear_snapshot()")
            waiting = await raw.fetchval(
                "SELECT count(*) FROM pg_stat_activity "
                "WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            if waiting >= count:
                return
            await asyncio.sleep(0.01)


async def test_a_raise_that_meets_a_kill_under_way_waits_for_it_and_loses(store: Store, raw: Raw) -> None:
    """The kill began after the raise was decided and ends after the raise was sent."""
    run = await started(store)
    under_way = raw.transaction()
    await under_way.start()
    await raw.fetchval(SQL["lock_flag"], FLAG.provider, FLAG.environment, FLAG.key)
    await raw.execute(SQL["add_kill"], "kill-1", FLAG.provider, FLAG.environment, FLAG.key, "{}")
    raising = asyncio.create_task(store.commit(change(run, "advance", raises=True)))
    await waiting_for_a_lock(raw)
    assert not raising.done()
    await under_way.commit()
    with pytest.raises(KillInForce):
        await raising
    assert await version_of(store, run) == run.version


async def test_a_kill_that_meets_a_raise_under_way_waits_for_it_and_wins(store: Store, raw: Raw) -> None:
    run = await started(store)
    under_way = raw.transaction()
    await under_way.start()
    assert await committed_by(raw, run) is not None
    killing = asyncio.create_task(store.record_kill(kill(), entry("kill")))
    await waiting_for_a_lock(raw)
    await under_way.commit()
    assert await killing is True
    stored = await store.run(run.id)
    assert stored is not None
    assert (stored[0].phase, stored[0].version) == ("killed", run.version + 2)


async def committed_by(raw: Raw, run: Run) -> int | None:
    """The store's own commit statement for an advance, on a connection of the test's."""
    step = change(run, "advance", raises=True)
    sequence: int | None = await raw.fetchval(
        SQL["commit"],
        *(FLAG.provider, FLAG.environment, FLAG.key, True, run.kill_epoch),
        *(step.after.phase, step.after.version, msgspec.json.encode(step.after).decode(), 0.0),
        *(run.id, run.version, None, None, step.entry.id, "{}", None, None, step.entry.at),
    )
    return sequence


async def present(store: Store, name: str, *, valid_seconds: float = 60.0) -> None:
    """A replica checks in with all its kills merged."""
    replica = Replica(name=name, version="1")
    life = (await store.check_in(replica, life="", valid_seconds=valid_seconds, remembered=0)).life
    assert (await store.check_in(replica, life=life, valid_seconds=valid_seconds, remembered=0)).counted


async def registered(raw: Raw) -> list[str]:
    return [row["name"] for row in await raw.fetch("SELECT name FROM replicas ORDER BY name")]


async def refused_behind(raw: Raw, store: Store, run: Run, happens: Callable[[], Awaitable[object]]) -> None:
    """A raise that waits for the audit log while something happens is refused, whole."""
    raising = asyncio.create_task(store.commit(change(run, "advance", raises=True)))
    await waiting_for_a_lock(raw)
    await happens()
    before = await raw.fetchval("SELECT sequence FROM audit_head")
    with pytest.raises(RaisesBlocked):
        await raising
    assert await version_of(store, run) == run.version
    assert (await store.audit_head())[0] == before


async def test_a_raise_that_waits_while_a_check_in_runs_out_changes_nothing(
    store: PostgresStore, raw: Raw
) -> None:
    run = await started(store)
    await present(store, "replica-b")
    under_way = raw.transaction()
    await under_way.start()
    await raw.execute("SELECT FROM audit_head FOR UPDATE")

    async def run_out() -> None:
        await store._database.execute("UPDATE replicas SET valid_until = clock_timestamp()")
        await under_way.commit()

    await refused_behind(raw, store, run, run_out)


async def test_no_raise_follows_a_barrier_in_the_audit_log(store: Store, raw: Raw) -> None:
    """The barrier was not there yet when the raise was sent."""
    run = await started(store)
    barrier = Barrier(id="head-9", reason="the database lost history", raised_at=NOW)
    blocking, document = entry("block_raises"), msgspec.json.encode(barrier).decode()
    under_way = raw.transaction()
    await under_way.start()
    await raw.fetchval(SQL["raise_barrier"], barrier.id, document, blocking.id, canonical_body(blocking))
    await refused_behind(raw, store, run, under_way.commit)


async def test_a_replica_that_checks_in_is_not_forgotten_by_a_release_under_way(store: Store, raw: Raw) -> None:
    await present(store, "replica-b", valid_seconds=0.0)
    under_way = raw.transaction()
    await under_way.start()
    await raw.execute("UPDATE replicas SET valid_until = clock_timestamp() + interval '1 minute'")
    releasing = asyncio.create_task(store.release_raises(entry("release_raises")))
    await waiting_for_a_lock(raw)
    await under_way.commit()
    assert await releasing == []
    assert await registered(raw) == ["replica-b"]


async def test_a_replica_that_is_being_forgotten_registers_itself_again(store: Store, raw: Raw) -> None:
    await present(store, "replica-b", valid_seconds=0.0)
    under_way = raw.transaction()
    await under_way.start()
    assert [row["name"] for row in await raw.fetch(SQL["forget_absent"])] == ["replica-b"]
    returning = asyncio.create_task(present(store, "replica-b"))
    await waiting_for_a_lock(raw)
    await under_way.commit()
    await returning
    assert await registered(raw) == ["replica-b"]


async def test_a_kill_that_comes_back_with_its_replica_is_met_by_no_raise(store: Store, raw: Raw) -> None:
    """A raise waits, sent while replica-b was silent; replica-b merges its kill, and only then checks in."""
    run = await started(store)
    await present(store, "replica-b", valid_seconds=0.0)
    under_way = raw.transaction()
    await under_way.start()
    await raw.execute("SELECT FROM audit_head FOR UPDATE")
    raising = asyncio.create_task(store.commit(change(run, "advance", raises=True)))
    await waiting_for_a_lock(raw)

    async def come_back() -> None:
        await store.record_kill(kill(), entry("kill"))
        await present(store, "replica-b")

    coming = asyncio.create_task(come_back())
    await waiting_for_a_lock(raw, 2)
    await under_way.commit()
    with pytest.raises((RaisesBlocked, KillInForce)):
        await raising
    await coming
    stored = await store.run(run.id)
    assert stored is not None
    assert (stored[0].phase, stored[0].version) == ("killed", run.version + 1)


async def test_whatever_meets_whatever_versions_equal_audit_rows_and_the_chain_holds(
    store: Store, database: str
) -> None:
    """Two replicas and people at random on few flags: also the test that no lock order makes a deadlock."""
    chance = random.Random(7)
    other = PostgresStore(database, pool_size=4)
    await other.connect()
    names = ["one", "two", "three"]
    for name in names:
        await started(store, name)
    refused: Counter[str] = Counter()
    numbers = iter(range(10_000))

    async def act(which: PostgresStore | Store, name: str) -> None:
        found = await which.latest_run(name)
        assert found is not None
        run = found[0]
        doings: list[Awaitable[object]] = [
            which.claim_due("replica", limit=5, lease_seconds=chance.choice([0.0, 5.0])),
            which.record_kill(kill(f"kill-{next(numbers)}", name), entry("kill")),
            which.save_plan(plan(name, bake=f"{next(numbers) + 1}m"), entry()),
            which.create_run(pending_run(name), entry("start")),
        ]
        if run.phase == "pending":
            doings.append(which.commit(change(run, "start", raises=True)))
        if run.phase == "progressing":
            doings += [which.commit(change(run, "advance", raises=True)), which.commit(change(run, "pause"))]
        if run.phase == "paused":
            doings.append(which.commit(change(run, "resume", raises=True)))
        if run.phase == "killed" and run.kill_id:
            doings.append(which.reset_kills(run.flag, [run.kill_id], entry("reset")))
        chosen = chance.choice(doings)
        for doing in doings:
            if doing is not chosen and asyncio.iscoroutine(doing):
                doing.close()
        await chosen

    async def worker(which: PostgresStore | Store) -> None:
        for _ in range(40):
            try:
                await act(which, chance.choice(names))
            except (Conflict, NotFound) as error:
                refused[type(error).__name__] += 1

    await asyncio.gather(*(worker(which) for which in (store, other) for _ in range(4)))
    await other.close()

    rows = await store.audit(limit=10_000)
    assert verify_chain(rows).problem is None
    assert await store.audit_head() == (rows[-1].sequence, rows[-1].hash)
    audited = Counter(json.loads(row.body)["run"] for row in rows)
    assert len(rows) > 100
    for name in names:
        for number in range(1, 1000):
            found = await store.run(f"{name}#{number}")
            if found is None:
                break
            assert audited[found[0].id] == found[0].version
    active = [run for run, _ in await store.latest_runs() if run.phase in ACTIVE_PHASES]
    in_force = {each.kill.flag for each in await store.active_kills()}
    assert not in_force & {run.flag for run in active}


async def test_the_chain_fails_after_one_byte_is_changed(store: Store, raw: Raw) -> None:
    await started(store)
    assert verify_chain(await store.audit()).problem is None
    await raw.execute("UPDATE audit SET body = replace(body, 'dana', 'danb') WHERE sequence = 3")
    assert "row 3 was changed" in str(verify_chain(await store.audit()).problem)


async def test_the_chain_fails_after_a_row_is_removed(store: Store, raw: Raw) -> None:
    await started(store)
    await raw.execute("DELETE FROM audit WHERE sequence = 2")
    assert "row 2 is missing" in str(verify_chain(await store.audit()).problem)


async def test_finished_runs_cost_a_claim_nothing(store: Store, raw: Raw) -> None:
    run = await started(store)
    await store.commit(change(run, "complete"))
    await raw.execute(
        """
        INSERT INTO runs (id, plan, number, provider, environment, key, phase, version, state, created_at)
        SELECT plan || '#' || n, plan, n, provider, environment, key, phase, version, state, created_at
        FROM runs, generate_series(2, 10001) AS n
        """
    )
    for name in ("one", "two"):
        await started(store, name)
    await raw.execute("VACUUM ANALYZE runs")
    explained = await raw.fetchval(
        f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {SQL['claim_due']}", "replica-a", 1000, 30.0
    )
    (top,) = json.loads(explained)
    assert "runs_due" in explained
    assert '"Node Type": "Seq Scan", "Relation Name": "runs"' not in " ".join(explained.split())
    # Thousands of pages hold the finished runs; only those of the two active ones are read.
    assert top["Plan"]["Shared Hit Blocks"] + top["Plan"]["Shared Read Blocks"] < 60
