"""A clock that jumps shortens no bake, stretches no lease and silences no run (promise I13)."""

from pathlib import Path

import asyncpg

from controller.domain.catalogue import Transition
from controller.store.postgres import PostgresStore
from tests.store.samples import claim_one, started
from tests.support.engine import DANA, World
from tests.support.postgres import database, postgres_server, store

__all__ = ["database", "postgres_server", "store"]


async def test_a_clock_that_jumps_ahead_at_every_poll_bakes_nothing_sooner(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.started()
    await world.run_for(330)
    bake, since = (await world.latest())[1].bake, world.clock.elapsed
    for _ in range(20):
        world.clock.jump(hours=1)
        await world.run_for(15)
    assert (await world.latest())[1].bake - bake == world.clock.elapsed - since


async def test_a_bake_counts_nothing_from_before_its_confirmation_was_committed(tmp_path: Path) -> None:
    """The look that saw the step is older than the commit that says so, by as much as the database was slow."""
    world = World(tmp_path)
    await world.apply()
    commit = world.store.commit

    async def slow(change: Transition) -> int:
        if change.entry.action == "confirm":
            world.clock.elapsed += 4.0
        return await commit(change)

    world.store.commit = slow  # type: ignore[method-assign]
    await world.commands.start("checkout-v2", DANA, "")
    while not (await world.run()).confirmed:
        await world.settle(1)
    confirmed = world.clock.elapsed - 0.5  # settle ends with a step of its own
    await world.run_for(15)
    assert (await world.latest())[1].since_confirmed <= world.clock.elapsed - confirmed


async def an_hour_back(database: str) -> None:
    """As if the clock of the database had just been set back by an hour: all that is stored lies ahead."""
    connection = await asyncpg.connect(database)
    await connection.execute(
        "UPDATE runs SET next_check_at = next_check_at + interval '1 hour', "
        "lease_expires_at = lease_expires_at + interval '1 hour'"
    )
    await connection.close()


async def test_a_run_is_looked_at_although_the_clock_was_set_back(store: PostgresStore, database: str) -> None:
    run = await started(store)
    await claim_one(store, "replica-a")
    await an_hour_back(database)
    assert (await claim_one(store, "replica-a")).run.id == run.id


async def test_the_lease_of_a_replica_that_is_gone_ends_although_the_clock_was_set_back(
    store: PostgresStore, database: str
) -> None:
    await started(store)
    gone = await claim_one(store, "replica-a", lease_seconds=15.0)
    assert await store.claim_due("replica-b", limit=10, lease_seconds=15.0) == []
    await an_hour_back(database)
    taken = await claim_one(store, "replica-b", lease_seconds=15.0)
    assert taken.lease_epoch > gone.lease_epoch
