"""The protocol between replicas as small guarded steps: every step that may be taken in a state."""

from collections.abc import Iterator

from tests.simulation.exhaustive.changes import exposed
from tests.simulation.exhaustive.kills import kills, starts
from tests.simulation.exhaustive.presences import check_ins, faults, renews, ticking
from tests.simulation.exhaustive.runs import active
from tests.simulation.exhaustive.state import HELD, IN_FORCE, OUT, RESTING, Scope, Step, World
from tests.simulation.exhaustive.ticks import ticks


def steps(scope: Scope, world: World) -> Iterator[Step]:
    yield from ticks(scope, world)
    yield from kills(scope, world)
    yield from starts(scope, world)
    if scope.presence:
        yield from check_ins(scope, world)
    yield from faults(scope, world)
    yield from renews(world)
    if scope.timed:
        yield ticking(scope, world)


def converged(scope: Scope, world: World) -> bool:
    """Everybody knows the same, nothing is on its way, and the flag is as it should be."""
    run = world.database.run
    if scope.provider == "builtin" and IN_FORCE in world.database.kills:
        return _all_agree(world)  # what is stored below the holds is nobody's concern before the reset
    if not active(run):
        return exposed(scope, world) == 0 and _all_agree(world)
    if not scope.ticks:
        # Nobody writes again what was lost, or lowers what rose by a commit that a failover forgot: ticks do.
        return (scope.left.failovers > 0 or exposed(scope, world) <= run.exposure) and _all_agree(world)
    return run.confirmed and exposed(scope, world) == run.exposure and _all_agree(world)


def _all_agree(world: World) -> bool:
    database = world.database
    if world.flights or not all(row.registered and row.present_life for row in database.rows):
        return False
    for replica in world.replicas:
        if not replica.up or replica.job.stage != "idle" or replica.check_in.at != OUT or replica.reset.kill >= 0:
            return False
        for held, status in zip(replica.held, database.kills, strict=True):
            if (held.life == HELD) != (status == IN_FORCE):
                return False
            if held.life == HELD and not (held.confirmed and held.merged and held.journaled):
                return False
            if held.lowering != RESTING:
                return False
    return True
