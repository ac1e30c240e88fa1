"""Small changes of a world, and what a replica sees in it."""

from collections.abc import Iterator

from tests.simulation.exhaustive.state import (
    ASKED,
    HELD,
    UNKNOWN_TO_DATABASE,
    UNRECORDED,
    Database,
    Held,
    Job,
    Replica,
    Scope,
    World,
)


def put(row: tuple, index: int, value: object) -> tuple:  # type: ignore[type-arg]
    return (*row[:index], value, *row[index + 1 :])


def with_replica(world: World, i: int, replica: Replica) -> World:
    return world._replace(replicas=put(world.replicas, i, replica))


def with_job(world: World, i: int, job: Job) -> World:
    return with_replica(world, i, world.replicas[i]._replace(job=job))


def with_held(world: World, i: int, kill: int, held: Held) -> World:
    replica = world.replicas[i]
    return with_replica(world, i, replica._replace(held=put(replica.held, kill, held)))


def with_database(world: World, **changes: object) -> World:
    return world._replace(database=world.database._replace(**changes))  # type: ignore[arg-type]


def spend(world: World, what: str) -> World:
    return world._replace(left=world.left._replace(**{what: getattr(world.left, what) - 1}))


def holds(replica: Replica) -> bool:
    """`KillBook.holds`."""
    return any(held.life == HELD for held in replica.held)


def up(world: World) -> Iterator[tuple[int, Replica]]:
    return ((i, replica) for i, replica in enumerate(world.replicas) if replica.up)


def everybody_else(world: World, i: int) -> int:
    """A mask. Who is registered is remembered on disk, so a replica knows of all."""
    return ((1 << len(world.replicas)) - 1) & ~(1 << i)


def shown(scope: Scope, world: World, i: int) -> int:
    """The flag as this replica's provider observes it."""
    if scope.provider == "vendor":
        return world.flag
    return 0 if holds(world.replicas[i]) else world.database.stored


def exposed(scope: Scope, world: World) -> int:
    """What is stored at the provider, below the holds of a built-in one."""
    return world.flag if scope.provider == "vendor" else world.database.stored


def expose(scope: Scope, world: World, exposure: int) -> World:
    if scope.provider == "vendor":
        return world._replace(flag=exposure)
    return with_database(world, stored=exposure)


def marked(replica: Replica) -> Replica:
    """`KillBook._change`: whoever read or decided before this must look again."""
    if replica.job.stage != "idle":
        replica = replica._replace(job=replica.job._replace(marked=True))
    if replica.check_in.at == ASKED:
        replica = replica._replace(check_in=replica.check_in._replace(clean=False))
    return replica


def took_up(world: World, i: int, kill: int, **more: object) -> World:
    """`KillBook.hold`."""
    held = Held(life=HELD, **more)._replace(  # type: ignore[arg-type]
        journaled=world.replicas[i].held[kill].journaled or bool(more.get("journaled")),
        word=world.replicas[i].held[kill].word,
    )
    replica = marked(world.replicas[i])
    return with_replica(world, i, replica._replace(held=put(replica.held, kill, held)))


def obstacles(database: Database) -> bool:
    """`MemoryStore._require_raisable`: a barrier, or a registered replica that is absent."""
    return database.barrier or any(row.registered and not (row.present_life and row.left) for row in database.rows)


def unknown_to_database(world: World) -> bool:
    """A registered replica knows of a kill that the database does not, and the window is over."""
    for kill, status in enumerate(world.database.kills):
        if status == UNRECORDED and world.since[kill] > UNKNOWN_TO_DATABASE:
            for row, replica in zip(world.database.rows, world.replicas, strict=True):
                held = replica.held[kill]
                if row.registered and (held.life == HELD or held.journaled):
                    return True
    return False


def vanished(world: World) -> World:
    """A kill that nobody knows any more was never durable, and nobody can be held to it."""
    claimed = tuple(
        claim and (world.database.kills[k] != UNRECORDED or any(_knows(r.held[k]) for r in world.replicas))
        for k, claim in enumerate(world.claimed)
    )
    return world._replace(claimed=claimed)


def _knows(held: Held) -> bool:
    return held.life == HELD or held.journaled


def free_of(world: World, i: int) -> bool:
    """No write of this replica is in flight."""
    return all(flight.sender != i for flight in world.flights)
