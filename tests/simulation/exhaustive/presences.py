"""Check-ins, and what people and the world do besides: crashes, restarts, failovers, time.

| step | in the engine |
|---|---|
| asks what is in force | the end of the loop in `KillLedger._merge_all`, and `active_kills` in `_compare` |
| takes up, drops, sends its check-in | the rest of `KillLedger._compare`; `Presence._say` up to its wait |
| is checked in | `MemoryStore.check_in`, within the database's timeout or never |
| learns of a new life | the other half of `Presence._check_in`: `_compare`, `forgotten`, and the new `_life` |

A replica that is cut off is one that takes no steps: every step may be late by any time, so nothing is cut here.
"""

from collections.abc import Iterator

from tests.simulation.exhaustive.changes import spend, took_up, up, vanished, with_database, with_replica
from tests.simulation.exhaustive.kills import came_back, let_go, lowered_run
from tests.simulation.exhaustive.state import (
    ANEW,
    ASKED,
    DATABASE_WITHIN,
    HELD,
    IN_FORCE,
    LEASE,
    NOBODY,
    PICKED,
    PROVIDER_WITHIN,
    QUIET,
    RESET,
    SAID,
    SEND_WITHIN,
    UNKNOWN_TO_DATABASE,
    UNRECORDED,
    CheckIn,
    Database,
    Held,
    Replica,
    Row,
    Scope,
    Step,
    World,
)
from tests.simulation.exhaustive.ticks import forgets

MERGED_FIRST = "who counts as present has merged its kills"


def check_ins(scope: Scope, world: World) -> Iterator[Step]:
    for i, replica in up(world):
        match replica.check_in.at:
            case 0:  # OUT
                yield from _asks(scope, world, i, replica)
            case 1:  # ASKED
                yield _takes_up(scope, world, i, replica)
            case 2:  # SAID
                yield _says(scope, world, i, replica)
            case 3:  # ANEW
                yield _learns(scope, world, i, replica)


def _at(world: World, i: int, check_in: CheckIn) -> World:
    return with_replica(world, i, world.replicas[i]._replace(check_in=check_in))


def _mask(flags: Iterator[bool]) -> int:
    return sum(1 << n for n, flag in enumerate(flags) if flag)


def _asks(scope: Scope, world: World, i: int, replica: Replica) -> Iterator[Step]:
    if not _all_merged(replica) and "unmerged when sent" not in scope.bugs:
        return
    kills = world.database.kills
    active = _mask(status == IN_FORCE for status in kills)
    missing = _mask(h.merged and s != IN_FORCE for h, s in zip(replica.held, kills, strict=True))
    if active or missing:
        yield Step("asks which kills are in force", i, NOBODY, _at(world, i, CheckIn(ASKED, active, missing)))
    else:
        sent = _sent(scope, world, i)
        text = "asks which kills are in force: none; it sends its check-in"
        yield Step(text, i, NOBODY, sent, broken=_premature(sent, i))


def _takes_up(scope: Scope, world: World, i: int, replica: Replica) -> Step:
    asked, before = replica.check_in, world
    for kill, held in enumerate(replica.held):
        current = asked.clean or "old answer taken up" in scope.bugs
        if asked.active >> kill & 1 and held.life != HELD and current:
            world = took_up(world, i, kill, merged=True, lowering=PICKED)
        elif asked.missing >> kill & 1 and held.life == HELD:
            reset = world.database.kills[kill] == RESET or "oblivion taken for a reset" in scope.bugs
            world = let_go(scope, world, i, kill) if reset else unmerged(world, i, only=kill)
    sent = _sent(scope, world, i)
    broken = lowered_run(scope, before, world) or _forgotten(before, world, i) or _premature(sent, i)
    broken = broken or came_back(before, world, i)
    text = "takes up what is in force, and drops what was reset"
    return Step(text, i, NOBODY, sent, broken=broken)


def _premature(sent: World, i: int) -> str:
    replica = sent.replicas[i]
    return MERGED_FIRST if replica.check_in.at == SAID and not _all_merged(replica) else ""


def _forgotten(before: World, after: World, i: int) -> str:
    for kill, held in enumerate(before.replicas[i].held):
        dropped = held.life == HELD and after.replicas[i].held[kill].life != HELD
        if dropped and before.database.kills[kill] != RESET:
            return "a kill ends by its reset alone"
    return ""


def _sent(scope: Scope, world: World, i: int) -> World:
    """A check-in is sent, unless a kill came since the loop that merged all: without a wait in between."""
    if not _all_merged(world.replicas[i]) and "unmerged when sent" not in scope.bugs:
        return _at(world, i, CheckIn())
    sent = _at(world, i, CheckIn(SAID))
    surprised = world.left.kills or UNRECORDED in world.database.kills or forgets(world)
    # How long it is on its way can matter to nobody when no kill can come meanwhile that the database lacks.
    return sent if surprised else _says(scope, sent, i, sent.replicas[i]).world


def _all_merged(replica: Replica) -> bool:
    return all(held.merged for held in replica.held if held.life == HELD)


def unmerged(world: World, i: int, *, only: int = NOBODY) -> World:
    replica = world.replicas[i]
    held = tuple(
        h._replace(merged=False) if h.life == HELD and only in (k, NOBODY) else h
        for k, h in enumerate(replica.held)
    )
    return with_replica(world, i, replica._replace(held=held))


def _says(scope: Scope, world: World, i: int, replica: Replica) -> Step:
    if not replica.knows_life and "life not compared" not in scope.bugs:
        return Step("checks in to another life of the database", i, NOBODY, _at(world, i, CheckIn(ANEW)))
    rows = world.database.rows
    present = with_database(world, rows=(*rows[:i], Row(), *rows[i + 1 :]))
    behind = world.image is not None and _history(world.image) != _history(world.database)
    replica = replica._replace(check_in=CheckIn(), beyond=replica.beyond or behind)
    lacking = any(
        held.life == HELD and status == UNRECORDED and held.merged
        for held, status in zip(replica.held, world.database.kills, strict=True)
    )
    broken = MERGED_FIRST if lacking else ""
    return Step("is checked in", i, NOBODY, with_replica(present, i, replica), broken=broken)


def _history(database: Database) -> Database:
    """What the audit log records."""
    return database._replace(rows=(), owner=NOBODY, lease=0, lease_left=0, stored=0)


def _learns(scope: Scope, world: World, i: int, replica: Replica) -> Step:
    if replica.regressed and "history not compared" not in scope.bugs:
        world = with_database(world, barrier=True)
    regressed = replica.regressed and "history not compared" in scope.bugs
    fresh = replica._replace(check_in=CheckIn(), knows_life=True, regressed=regressed)
    text = "learns of the database's new life, and will merge everything again"
    return Step(text, i, NOBODY, unmerged(with_replica(world, i, fresh), i))


# — time —


def ticking(scope: Scope, world: World) -> Step:
    database = world.database
    rows = database.rows
    if scope.presence:
        rows = tuple(row._replace(left=max(row.left - 1, 0)) for row in rows)
    image = world.image
    aged = world._replace(
        image=image._replace(lease_left=max(image.lease_left - 1, 0)) if image else None,
        database=database._replace(rows=rows, lease_left=max(database.lease_left - 1, 0)),
        flights=tuple(sorted(f._replace(age=min(f.age + 1, PROVIDER_WITHIN + 1)) for f in world.flights)),
        replicas=tuple(_older(replica) for replica in world.replicas),
        since=tuple(
            min(age + 1, UNKNOWN_TO_DATABASE + 1) if k < len(world.since) - world.left.kills else 0
            for k, age in enumerate(world.since)
        ),
    )
    return Step("a unit of time passes", NOBODY, NOBODY, aged)


def _older(replica: Replica) -> Replica:
    job, check_in = replica.job, replica.check_in
    if job.stage in ("decided", "again", "committed"):
        job = job._replace(age=min(job.age + 1, SEND_WITHIN + 1))
    if check_in.at == SAID:  # without an answer in time the round is given up, and the statement with it
        check_in = check_in._replace(age=check_in.age + 1) if check_in.age < DATABASE_WITHIN else CheckIn()
    held = tuple(h._replace(age=min(h.age + 1, QUIET)) if h.life == HELD else h for h in replica.held)
    return replica._replace(job=job, check_in=check_in, held=held)


def renews(world: World) -> Iterator[Step]:
    """`Reconciler.renew`: of the owner that lives, and only what has not ended."""
    database = world.database
    if database.owner != NOBODY and 0 < database.lease_left < LEASE:
        yield Step("renews its lease", database.owner, NOBODY, with_database(world, lease_left=LEASE))


# — faults, and how they end —


def faults(scope: Scope, world: World) -> Iterator[Step]:
    for i, replica in enumerate(world.replicas):
        if replica.up and world.left.crashes:
            yield Step("crashes", i, NOBODY, crashed(spend(world, "crashes"), i), True)
        elif not replica.up:
            again = restarted(scope, world, i)
            lost = any(
                old.journaled and new.life != HELD
                for old, new in zip(replica.held, again.replicas[i].held, strict=True)
            )
            yield Step("starts again", i, NOBODY, again, broken="a kill on disk survives a crash" if lost else "")
    if world.left.restarts:
        lives = another_life(spend(world, "restarts"), world.database)
        yield Step("the database restarts", NOBODY, NOBODY, lives, True)
    if world.left.failovers:
        yield from _failovers(world)
    if world.left.releases and (world.database.barrier or any(_absent(row) for row in world.database.rows)):
        yield Step("a person releases the raises", NOBODY, NOBODY, released(spend(world, "releases")), True)


def _absent(row: Row) -> bool:
    return row.registered and not (row.present_life and row.left)


def crashed(world: World, i: int) -> World:
    """Memory is lost; what is on disk, and what was sent, is not."""
    replica = world.replicas[i]
    held = tuple(Held(journaled=h.journaled) for h in replica.held)
    down = with_replica(world, i, Replica(held=held, up=False, knows_life=False))
    orphaned = tuple(sorted(f._replace(sender=NOBODY) if f.sender == i else f for f in world.flights))
    if world.database.owner == i:
        down = with_database(down, owner=NOBODY)
    return vanished(down._replace(flights=orphaned))


def restarted(scope: Scope, world: World, i: int) -> World:
    replica = world.replicas[i]
    world = with_replica(world, i, replica._replace(up=True))
    if "journal not read" in scope.bugs:
        empty = tuple(Held() for _ in replica.held)
        return with_replica(world, i, Replica(held=empty, knows_life=False))
    for kill, held in enumerate(replica.held):
        if held.journaled:
            world = took_up(world, i, kill, lowering=PICKED)
    return world


def another_life(world: World, database: Database) -> World:
    """Nobody is checked in to it, and nobody knows its name; rounds on their way end without an answer."""
    rows = tuple(Row(row.registered, present_life=False, left=0) for row in database.rows)
    replicas = tuple(
        replica._replace(knows_life=False, check_in=CheckIn() if replica.check_in.at == ANEW else replica.check_in)
        for replica in world.replicas
    )
    return world._replace(database=database._replace(rows=rows), replicas=replicas)


def _failovers(world: World) -> Iterator[Step]:
    if world.image is None:
        yield Step("replication to the standby stops", NOBODY, NOBODY, world._replace(image=world.database), True)
        return
    replicas = tuple(r._replace(regressed=r.regressed or r.beyond, beyond=False) for r in world.replicas)
    past = another_life(spend(world, "failovers")._replace(image=None, replicas=replicas), world.image)
    yield Step("the database fails over to the standby", NOBODY, NOBODY, vanished(past), True)


def released(world: World) -> World:
    """`MemoryStore.release_raises`. Kills that the database does not know are from now on a person's business."""
    database = world.database
    rows = tuple(Row(registered=False, present_life=False, left=0) if _absent(r) else r for r in database.rows)
    claimed = tuple(c and s != UNRECORDED for c, s in zip(world.claimed, database.kills, strict=True))
    return with_database(world, rows=rows, barrier=False)._replace(claimed=claimed)
