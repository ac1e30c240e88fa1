"""The kill path at every replica, and its way into the database. One step for each wait.

| step | in the engine |
|---|---|
| is told to kill | `Killer.kill_flag` → `_accept`; everything after it is spawned |
| has it on disk | the end of `Killer._write_down`, or of the append in `KillLedger._take_up` |
| tells, a word arrives | `Killer._tell`, and `hear` with its answer |
| turns the flag off | `Lowering.lower` with its look into the killbook, and the `provider.kill` right after it |
| looks whether it is off | `InFlight.landed`, `_quiet`, `observe`, `_confirm`; else `Killer.retry` begins again |
| sees it up again | `Killer.sweep` → `Lowering.keep_off` |
| merges | `KillLedger.record` → `MemoryStore.record_kill` |
| settles, resets, forgets | the three waits of `_reset_flag`: `_settle`, `reset_kills`, `_let_go` |
| its journal forgets | the append of `ResetRecord` at the end of `_let_go` |

A kill's write is sent and lands in one step: what it turns off later than that can only be what the reset of it
allowed since, by a replica that had not heard of the reset. That a restarted replica waits up to five seconds for
the database before it presses on with a kill that was merged once (`Killer._in_doubt`) is left out, too.
"""

from collections.abc import Iterator

from tests.simulation.exhaustive.changes import (
    everybody_else,
    expose,
    exposed,
    holds,
    marked,
    put,
    shown,
    spend,
    took_up,
    up,
    with_database,
    with_held,
    with_replica,
)
from tests.simulation.exhaustive.runs import active, killed
from tests.simulation.exhaustive.state import (
    HELD,
    IN_FORCE,
    NOBODY,
    PICKED,
    QUIET,
    RELEASED,
    RESET,
    RESTING,
    UNHEARD,
    UNRECORDED,
    WAITING,
    WRITTEN,
    Held,
    Replica,
    Reset,
    Run,
    Scope,
    Step,
    World,
)


def kills(scope: Scope, world: World) -> Iterator[Step]:
    for i, replica in up(world):
        yield from _ordered(world, i)
        for kill, held in enumerate(replica.held):
            yield from _remembered(world, i, kill, held)
            if held.life == HELD:
                yield from _merged(world, i, kill, held)
                yield from _told(scope, world, i, kill, held)
                yield from _watched(scope, world, i, kill, held)
            yield from _lowered(scope, world, i, kill, held)
            if held.word:
                arrived = with_held(world, i, kill, held._replace(word=False))
                there = heard(scope, arrived, i, kill)[0]
                yield Step("gets a late word of a kill", i, kill, there, broken=came_back(world, there, i))
        yield from _resets(scope, world, i, replica)


def _ordered(world: World, i: int) -> Iterator[Step]:
    if world.left.kills:
        kill = len(world.since) - world.left.kills
        accepted = took_up(spend(world, "kills"), i, kill, lowering=PICKED)
        yield Step("is told to kill the flag", i, kill, accepted, fault=True)


def _remembered(world: World, i: int, kill: int, held: Held) -> Iterator[Step]:
    if held.life == HELD and not held.journaled:
        yield Step("has the kill on disk", i, kill, with_held(world, i, kill, held._replace(journaled=True)))
    if held.life == RELEASED and held.journaled:
        yield Step("has its reset on disk", i, kill, with_held(world, i, kill, held._replace(journaled=False)))


def _merged(world: World, i: int, kill: int, held: Held) -> Iterator[Step]:
    if held.merged:
        return
    merged = with_held(world, i, kill, held._replace(merged=True))
    database = world.database
    if database.kills[kill] == UNRECORDED:
        run = killed(database.run) if active(database.run) else database.run
        merged = with_database(merged, kills=put(database.kills, kill, IN_FORCE), run=run)
    yield Step("merges the kill into the database", i, kill, merged)


# — the other replicas —


def heard(scope: Scope, world: World, j: int, kill: int) -> tuple[World, bool]:
    """`Killer.hear`, and whether its answer lets the teller count this replica as one that writes no more."""
    held = world.replicas[j].held[kill]
    forgets = "late word taken up" in scope.bugs
    if held.life == UNHEARD or (held.life == RELEASED and forgets):
        world = took_up(world, j, kill, lowering=PICKED)
    replica = world.replicas[j]
    held = replica.held[kill]
    writing = replica.job.stage == "writing" and "writing not told" not in scope.bugs
    durable = held.journaled or "answered before the disk" in scope.bugs
    return world, held.life == HELD and durable and not writing


def _told(scope: Scope, world: World, i: int, kill: int, held: Held) -> Iterator[Step]:
    if held.confirmed or not scope.peers:
        return
    for j, other in up(world):
        if j == i:
            continue
        if world.left.late_words and not other.held[kill].word:
            sent = with_held(spend(world, "late_words"), j, kill, other.held[kill]._replace(word=True))
            yield Step(f"tells replica {j} of the kill; the word is on its way", i, kill, sent, True)
        if held.landed >> j & 1:
            continue
        there, landed = heard(scope, world, j, kill)
        if landed:
            answered = with_held(there, i, kill, held._replace(landed=held.landed | 1 << j))
            yield Step(f"tells replica {j} of the kill, which holds it and is not writing", i, kill, answered)
        if other.held[kill].life == UNHEARD:
            yield Step(f"tells replica {j} of the kill, and hears nothing that counts", i, kill, there)


# — towards off, and the proof of it —


def quiet(scope: Scope, world: World, i: int, held: Held) -> bool:
    if "confirmed without peers" in scope.bugs:
        return True
    enough = QUIET - 1 if "confirmed too early" in scope.bugs else QUIET
    return held.age >= enough or held.landed == everybody_else(world, i)


def _lowered(scope: Scope, world: World, i: int, kill: int, held: Held) -> Iterator[Step]:
    writing = world.replicas[i].job.stage == "writing" and "own write not awaited" not in scope.bugs
    match held.lowering:
        case 1:  # PICKED
            yield _turned_off(scope, world, i, kill, held)
        case 2 if writing:  # WRITTEN
            yield Step("waits for the end of its own write", i, kill, _at(world, i, kill, WAITING))
        case 2:
            yield _looked_at(scope, world, i, kill, held)
        case 3 if not writing:  # WAITING
            yield Step("turns the flag off once more", i, kill, _at(world, i, kill, PICKED))


def _at(world: World, i: int, kill: int, lowering: int) -> World:
    return with_held(world, i, kill, world.replicas[i].held[kill]._replace(lowering=lowering))


def _turned_off(scope: Scope, world: World, i: int, kill: int, held: Held) -> Step:
    knows_reset = held.life != HELD
    if knows_reset and "reset kill pressed on" not in scope.bugs:
        return Step("leaves the flag alone: the kill was reset", i, kill, _at(world, i, kill, RESTING))
    lowered = _at(world, i, kill, WRITTEN if held.life == HELD else RESTING)
    if scope.provider == "vendor":
        lowered = lowered._replace(flag=0)
    return Step("turns the flag off", i, kill, lowered, broken="a reset lowers no run" if knows_reset else "")


def _looked_at(scope: Scope, world: World, i: int, kill: int, held: Held) -> Step:
    if held.life != HELD:
        return Step("is done with a kill that was reset", i, kill, _at(world, i, kill, RESTING))
    # A kill accepted here may be confirmed without either: the answer says so (`durable`). Not modelled apart.
    vouched = held.journaled or held.merged
    if not vouched or not quiet(scope, world, i, held) or shown(scope, world, i):
        return Step("does not call the kill confirmed", i, kill, _at(world, i, kill, PICKED))
    # All that `landed` and `age` are for is known now, and stays true.
    sure = held._replace(confirmed=True, lowering=RESTING, landed=everybody_else(world, i), age=QUIET)
    confirmed = with_held(world, i, kill, sure)
    # After a reset, of which it may not know yet, its word binds nobody.
    if world.database.rows[i].registered and world.database.kills[kill] != RESET:
        confirmed = confirmed._replace(claimed=put(world.claimed, kill, True))
    return Step("calls the kill confirmed", i, kill, confirmed)


def _watched(scope: Scope, world: World, i: int, kill: int, held: Held) -> Iterator[Step]:
    if held.confirmed and held.lowering == RESTING and shown(scope, world, i) and "no sweep" not in scope.bugs:
        again = with_held(world, i, kill, held._replace(confirmed=False, lowering=PICKED))
        yield Step("sees the flag up again", i, kill, again)


# — reset —


def _resets(scope: Scope, world: World, i: int, replica: Replica) -> Iterator[Step]:
    at = replica.reset
    if at.kill == NOBODY:
        if world.left.resets:
            for kill, held in enumerate(replica.held):
                if held.life == HELD and held.merged and (held.confirmed or "reset unconfirmed" in scope.bugs):
                    settled = settled_by(scope, spend(world, "resets"), i, kill)
                    yield Step("is told to reset the kill, and settles the flag", i, kill, settled, True)
    elif at.stored:
        forgotten = let_go(scope, _reset_at(world, i, Reset()), i, at.kill)
        broken = lowered_run(scope, world, forgotten)
        yield Step("forgets the kill", i, at.kill, forgotten, broken=broken)
    else:
        yield _stored(world, i, at)


def _reset_at(world: World, i: int, reset: Reset) -> World:
    return with_replica(world, i, world.replicas[i]._replace(reset=reset))


def settled_by(scope: Scope, world: World, i: int, kill: int) -> World:
    """`FlagProvider.settle_kill`: nothing at a vendor; the built-in store gets an off flag of a newer version."""
    world = _reset_at(world, i, Reset(kill))
    if scope.provider == "vendor" or "reset without settling" in scope.bugs:
        return world
    shut = tuple(sorted(flight._replace(shut_out=True) for flight in world.flights))
    return expose(scope, world._replace(flights=shut), 0)


def _stored(world: World, i: int, at: Reset) -> Step:
    database = world.database
    if database.kills[at.kill] == UNRECORDED:
        return Step("cannot reset a kill that the database forgot", i, at.kill, _reset_at(world, i, Reset()))
    reset = with_database(world, kills=put(database.kills, at.kill, RESET))
    reset = reset._replace(claimed=put(world.claimed, at.kill, False))
    return Step("resets the kill in the database", i, at.kill, _reset_at(reset, i, Reset(at.kill, stored=True)))


def let_go(scope: Scope, world: World, i: int, kill: int) -> World:
    """`KillLedger._let_go`. `FlagProvider.forget_kill` writes nothing."""
    replica = world.replicas[i]
    held = replica.held[kill]
    if held.life != HELD:
        return world
    released = Held(life=RELEASED, journaled=held.journaled, lowering=held.lowering, word=held.word)
    world = with_replica(world, i, marked(replica._replace(held=put(replica.held, kill, released))))
    if "forgetting writes" in scope.bugs:
        world = expose(scope, world, 0)
    return world


def starts(scope: Scope, world: World) -> Iterator[Step]:
    """`Commands.start` and `MemoryStore.create_run`: a new run once no kill is in force and nothing is exposed."""
    run = world.database.run
    if not world.left.starts or active(run) or IN_FORCE in world.database.kills:
        return
    for i, replica in up(world):
        if not holds(replica) and not shown(scope, world, i):
            epoch = sum(status != UNRECORDED for status in world.database.kills)
            begun = with_database(spend(world, "starts"), run=Run(number=run.number + 1, epoch=epoch))
            yield Step("is told to start a new run", i, NOBODY, begun, fault=True)


def came_back(before: World, after: World, i: int) -> str:
    """The promise that is broken when a replica takes up again what it knows to be reset."""
    for kill, held in enumerate(before.replicas[i].held):
        again = held.life == RELEASED and after.replicas[i].held[kill].life == HELD
        if again and before.database.kills[kill] == RESET:
            return "a reset kill stays reset"
    return ""


def lowered_run(scope: Scope, before: World, after: World) -> str:
    """The promise that is broken when a run loses its exposure by no decision of its own."""
    loses = active(after.database.run) and exposed(scope, after) < exposed(scope, before)
    return "a reset lowers no run" if loses else ""
