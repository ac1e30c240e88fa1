"""What can make no difference any more is set to one value, so that states which behave alike are one state.

Each function says why nobody can tell. The planted bugs show that what matters is still there.
"""

from tests.simulation.exhaustive.changes import exposed
from tests.simulation.exhaustive.runs import active
from tests.simulation.exhaustive.state import (
    HELD,
    NOBODY,
    PRESENT,
    QUIET,
    RELEASED,
    SAID,
    STALE,
    UNRECORDED,
    WRITTEN,
    Database,
    Held,
    Job,
    Replica,
    Scope,
    World,
)
from tests.simulation.exhaustive.ticks import RAISING, forgets


def reduced(scope: Scope, world: World) -> World:
    ended = not scope.timed or not may_commit_raise(scope, world)
    settled = not world.flights and all(replica.job.stage == "idle" for replica in world.replicas)
    over = settled and not may_commit_raise(scope, world)
    everybody = (1 << len(world.replicas)) - 1
    replicas = tuple(
        _replica(
            replica, everybody & ~(1 << i), ended=ended, over=over, dark=over and not exposed(scope, world),
            durable=not world.left.crashes,
        )
        for i, replica in enumerate(world.replicas)
    )  # fmt: skip
    if any(new is not old for new, old in zip(replicas, world.replicas, strict=True)):
        world = world._replace(replicas=replicas)
    since = tuple(
        0 if ended or (status != UNRECORDED and not forgets(world)) else age
        for age, status in zip(world.since, world.database.kills, strict=True)
    )
    if since != world.since:
        world = world._replace(since=since)
    world = _leases(world)
    return world._replace(database=_ended(world.database)) if ended else world


def may_commit_raise(scope: Scope, world: World) -> bool:
    """Whether any raise can still come to be committed, or one that was is asked for again."""
    left, run = world.left, world.database.run
    if forgets(world) or scope.ticks:
        return active(run) or left.starts > 0 or forgets(world)
    if left.advances or left.resumes:
        return active(run) or left.starts > 0
    return any(
        replica.job.action in RAISING and replica.job.stage in ("claimed", "decided") for replica in world.replicas
    )


def _replica(replica: Replica, others: int, *, ended: bool, over: bool, dark: bool, durable: bool) -> Replica:
    held = tuple(_held(one, others, over=over, durable=durable and replica.up) for one in replica.held)
    if dark:  # turning the flag off again changes nothing
        held = tuple(one._replace(lowering=WRITTEN) if one.lowering else one for one in held)
    if held != replica.held:
        replica = replica._replace(held=held)
    if ended and replica.check_in.at == SAID and replica.check_in.age:
        replica = replica._replace(check_in=replica.check_in._replace(age=0))
    return replica


def _held(held: Held, others: int, *, over: bool, durable: bool) -> Held:
    """Without a crash to come nobody reads the journal. Who was heard by all has nothing to wait for."""
    if held.life == HELD:
        if durable and not held.journaled:
            held = held._replace(journaled=True)
        if held.age < QUIET and (over or held.landed == others):
            held = held._replace(age=QUIET)
        if held.age == QUIET and held.landed != others:
            held = held._replace(landed=others)
    elif held.life == RELEASED and durable and held.journaled:
        held = held._replace(journaled=False)
    return held


def _ended(database: Database) -> Database:
    """Nobody is asked for a raise any more: how long rows last is all the same."""
    rows = tuple(
        row._replace(left=PRESENT) if row.registered and row.present_life else row for row in database.rows
    )
    return database._replace(rows=rows)


def _leases(world: World) -> World:
    """Only whether a lease's number is the present one counts, as long as the database cannot forget one."""
    database = world.database
    if forgets(world):
        return world
    if not active(database.run) and database.lease_left:
        world = world._replace(database=database._replace(owner=NOBODY, lease_left=0))
        database = world.database
    shift = database.lease - 1
    if shift <= 0:
        return world
    replicas = tuple(
        replica._replace(job=_job(replica.job, database.lease)) if replica.job.lease >= 0 else replica
        for replica in world.replicas
    )
    return world._replace(database=database._replace(lease=1), replicas=replicas)


def _job(job: Job, lease: int) -> Job:
    """After a failover a job's lease may lie ahead of the database's; behind it, it is of no use for ever."""
    return job._replace(lease=STALE if job.lease < lease else job.lease - lease + 1)
