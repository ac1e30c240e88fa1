"""PostgreSQL killed in the middle of commits: each of them happened whole, or not at all."""

import asyncio
import json
import os
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from controller.domain.audit import verify_chain
from controller.domain.catalogue import Replica, Roll, Transition
from controller.domain.rollout import Action, Observations, Run
from controller.errors import RaisesBlocked, StoreUnavailable
from controller.store.embedded import EmbeddedPostgres
from controller.store.migrations import migrate
from controller.store.postgres import PostgresStore
from tests.store.samples import change, started

T = TypeVar("T")

NAMES = ("one", "two", "three", "four")
KILLS = 4


async def answered(ask: Callable[[], Awaitable[T]]) -> T:
    """Asked again until there is an answer: a backend may outlive its killed server by a moment."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await ask()
            except StoreUnavailable:
                await asyncio.sleep(0.02)


async def available(store: PostgresStore, run_id: str) -> tuple[Run, Observations]:
    found = await answered(lambda: store.run(run_id))
    assert found is not None
    return found


async def test_every_commit_is_whole_or_absent_after_postgres_was_killed(tmp_path: Path) -> None:
    embedded = EmbeddedPostgres(tmp_path)
    dsn = await embedded.start()
    await migrate(dsn)
    store = PostgresStore(dsn, timeout_seconds=3.0)
    await store.connect()
    runs = [await started(store, name) for name in NAMES]
    lost: list[Transition] = []
    done = asyncio.Event()

    async def turn(run: Run) -> None:
        """Pause and resume without end; an unknown outcome is settled by reading, as the reconciler does."""
        while not done.is_set():
            action: Action = "pause" if run.phase == "progressing" else "resume"
            step = change(run, action, raises=action == "resume", observations=Observations(bake=run.version))
            try:
                await store.commit(step)
            except StoreUnavailable:
                lost.append(step)
                stored, observations = await available(store, run.id)
                happened = await answered(lambda entry=step.entry.id: store.committed(entry))  # type: ignore[misc]
                # What was acknowledged before is there.
                assert stored in (step.before, step.after)
                # State, audit entry and observations tell the same story.
                assert (stored == step.after) is (happened is not None)
                assert (observations == step.observations) is (happened is not None)
                run = stored
            else:
                run = step.after

    turning = [asyncio.create_task(turn(run)) for run in runs]
    for _ in range(KILLS):
        await asyncio.sleep(0.3)
        before = embedded.pid
        assert before is not None
        os.kill(before, signal.SIGKILL)
        await available(store, runs[0].id)
    done.set()
    await asyncio.gather(*turning)

    assert lost
    rows = await answered(lambda: store.audit(limit=100_000))
    assert verify_chain(rows).problem is None
    audited = Counter(json.loads(row.body)["run"] for row in rows)
    for run in runs:
        assert (await available(store, run.id))[0].version == audited[run.id]
    await store.close()
    await embedded.stop()


async def in_another_life(store: PostgresStore, replica: Replica, life: str) -> Roll:
    """The first answer that is not of a backend that outlived its killed server."""
    async with asyncio.timeout(60):
        while True:
            roll = await answered(lambda: store.check_in(replica, life=life, valid_seconds=600.0, remembered=0))
            if roll.life != life:
                return roll


async def test_after_a_restart_of_postgresql_nothing_rises_before_all_have_merged_anew(tmp_path: Path) -> None:
    embedded = EmbeddedPostgres(tmp_path)
    dsn = await embedded.start()
    await migrate(dsn)
    store = PostgresStore(dsn, timeout_seconds=3.0)
    await store.connect()
    here, there = Replica(name="here", version="1"), Replica(name="there", version="1")
    run = await started(store)
    life = (await store.check_in(here, life="", valid_seconds=600.0, remembered=0)).life
    for replica in (here, there):
        assert (await store.check_in(replica, life=life, valid_seconds=600.0, remembered=0)).counted

    assert embedded.pid is not None
    os.kill(embedded.pid, signal.SIGKILL)
    roll = await in_another_life(store, here, life)
    assert (roll.counted, [one.name for one in roll.absent]) == (False, ["there"])
    assert (await store.check_in(here, life=roll.life, valid_seconds=600.0, remembered=0)).counted
    with pytest.raises(RaisesBlocked, match="rise: replica there"):
        await store.commit(change(run, "advance", raises=True))
    assert (await store.check_in(there, life=roll.life, valid_seconds=600.0, remembered=0)).counted
    await store.commit(change(run, "advance", raises=True))
    await store.close()
    await embedded.stop()
