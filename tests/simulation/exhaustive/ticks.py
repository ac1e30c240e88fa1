"""Ticks and commands: claim, look, decide, commit, write. One step for each wait of `reconciler` and `commands`.

| step | in the engine |
|---|---|
| claims | `Reconciler.claim` → `MemoryStore.claim_due`; for a command the read of the run in `Commands._active` |
| looks | `Lookout.look` and everything pure after it, up to the mark taken by `commit_and_apply` |
| commits | `Store.commit` with its guards; an answer that is lost is looked up, so it changes nothing |
| asks | `Store.check_raise` in `Reconciler._apply_again` |
| begins | `Killer.writing` and `Reconciler._apply` up to `FlagProvider.apply` |
| lands, ends | what the provider does with it; the end of `Killer.writing` |

A replica has one of these at a time. That it waits for `presence.merged` before it claims is left out, which
only allows more. Whether a rule was breached or the bake is over is left open: any decision the table of
transitions allows may be made.
"""

from collections.abc import Iterator

from tests.simulation.exhaustive.changes import (
    expose,
    exposed,
    free_of,
    holds,
    obstacles,
    put,
    shown,
    spend,
    unknown_to_database,
    up,
    with_database,
    with_job,
    with_replica,
)
from tests.simulation.exhaustive.runs import active, after, compared
from tests.simulation.exhaustive.state import (
    HELD,
    IDLE_JOB,
    IN_FORCE,
    LEASE,
    NOBODY,
    PICKED,
    PROVIDER_WITHIN,
    RESET,
    RESTING,
    SEND_WITHIN,
    Flight,
    Job,
    Replica,
    Run,
    Scope,
    Step,
    World,
)

RAISING = frozenset({"advance", "resume"})


def ticks(scope: Scope, world: World) -> Iterator[Step]:
    for i, replica in up(world):
        match replica.job.stage:
            case "idle":
                yield from _claims(scope, world, i)
            case "claimed":
                yield from _looks(scope, world, i, replica.job)
            case "decided":
                yield from _commits(scope, world, i, replica.job)
            case "again":
                yield from _asks(scope, world, i, replica.job)
            case "committed":
                yield from _begins(scope, world, i, replica)
            case "writing":
                yield from _ends(world, i)
    yield from _lands(scope, world)


def _claims(scope: Scope, world: World, i: int) -> Iterator[Step]:
    database = world.database
    if not active(database.run):
        return
    yield from _commands(scope, world, i)
    if not scope.ticks:
        return
    if database.owner == i and database.lease_left:
        kept = with_database(world, lease_left=LEASE)
        yield Step(
            "claims the run it has leased",
            i,
            NOBODY,
            with_job(kept, i, Job("claimed", database.run, lease=database.lease)),
        )
    elif not database.lease_left and (world.left.takeovers or not forgets(world)):
        lease = database.lease + 1
        world = spend(world, "takeovers") if forgets(world) else world
        taken = with_database(world, owner=i, lease=lease, lease_left=LEASE)
        yield Step(
            "takes over the lease of the run",
            i,
            NOBODY,
            with_job(taken, i, Job("claimed", database.run, lease=lease)),
        )
    yield from _commands(scope, world, i)


def forgets(world: World) -> bool:
    """Whether the database may still fall back to a past: then the number of a lease matters, and is bounded."""
    return world.image is not None or world.left.failovers > 0


def _commands(scope: Scope, world: World, i: int) -> Iterator[Step]:
    run = world.database.run
    orders = (
        ("advances", "progressing", "advance"),
        ("resumes", "paused", "resume"),
        ("step_backs", "", "step_back"),
    )
    for budget, phase, action in orders:
        if getattr(world.left, budget) and phase in ("", run.phase):
            job = Job("claimed", run, action=action)
            yield Step(
                f"is told to {action.replace('_', ' ')}", i, NOBODY, with_job(spend(world, budget), i, job), True
            )


def _looks(scope: Scope, world: World, i: int, job: Job) -> Iterator[Step]:
    run = job.before
    assert run is not None
    if job.lease != NOBODY and holds(world.replicas[i]):
        yield Step("leaves the run alone: it holds the flag", i, NOBODY, with_job(world, i, IDLE_JOB))
        return
    observed = shown(scope, world, i)
    if job.action:
        exposure = _ordered(run, job.action, observed, scope.top)
        decisions = [] if exposure is None else [(job.action, exposure)]
    else:
        decisions = list(_decisions(scope, run, observed))
    if not decisions:
        yield Step("finds nothing to do", i, NOBODY, with_job(world, i, IDLE_JOB))
    for action, exposure in decisions:
        if action == "again":
            again = job._replace(stage="again", after=run, action=action)
            yield Step("sees that a write is missing", i, NOBODY, with_job(world, i, again))
        else:
            decided = Job("decided", run, after(run, action, exposure), action, job.lease)
            yield Step(
                f"decides to {action.replace('_', ' ')} to {exposure}", i, NOBODY, with_job(world, i, decided)
            )


def _ordered(run: Run, action: str, observed: int, top: int) -> int | None:
    """What a command desires; None when it is refused (`decide`'s gates of an advance, `Commands.resume`)."""
    found = compared(run, observed).difference
    match action:
        case "advance":
            fits = run.confirmed and found == "none" and run.exposure < top
            return run.exposure + 1 if fits else None
        case "resume":
            return min(run.exposure, observed)
    return run.exposure - 1 if run.exposure else None


def _decisions(scope: Scope, run: Run, observed: int) -> Iterator[tuple[str, int]]:
    found = compared(run, observed)
    match found.difference:
        case "too_high" | "too_low":
            pauses = found.difference == "too_low" and run.phase == "progressing"
            yield ("pause" if pauses else "lower"), found.exposure
        case "apply_again":
            yield "again", run.exposure
        case "none" if not run.confirmed:
            yield "confirm", run.exposure
        case "none" if run.phase == "progressing" and run.exposure < scope.top:
            yield "advance", run.exposure + 1


def _commits(scope: Scope, world: World, i: int, job: Job) -> Iterator[Step]:
    before, then = job.before, job.after
    assert before is not None
    assert then is not None
    raises = job.action in RAISING
    if "commit assumed" in scope.bugs:
        sure = with_job(world, i, _to_write(job, before, then)._replace(sure=False))
        yield Step(f"does not hear whether {job.action} was committed, and assumes so", i, NOBODY, sure)
    if not _passes(scope, world, i, job, raises=raises):
        yield Step(f"may not commit {job.action}", i, NOBODY, with_job(world, i, IDLE_JOB))
        return
    committed = with_job(with_database(world, run=then), i, _to_write(job, before, then))
    broken = _broken_by_commit(world, i, job, raises=raises)
    yield Step(f"commits {job.action} to {then.exposure}", i, NOBODY, committed, broken=broken)


def _to_write(job: Job, before: Run, then: Run) -> Job:
    changed = then.exposure != before.exposure or job.action == "lower"
    return job._replace(stage="committed", before=None) if changed else IDLE_JOB


def _passes(scope: Scope, world: World, i: int, job: Job, *, raises: bool) -> bool:
    database, before = world.database, job.before
    assert before is not None
    present = database.run
    if raises and not _raisable(scope, world, before):
        return False
    if not (job.lease == NOBODY or _leased(scope, world, i, job) or "lease not checked" in scope.bugs):
        return False
    same = (present.number, present.version) == (before.number, before.version)
    return same or "version not checked" in scope.bugs


def _leased(scope: Scope, world: World, i: int, job: Job) -> bool:
    database = world.database
    owned = database.owner == i or "lease owner not compared" in scope.bugs
    return owned and job.lease == database.lease and database.lease_left > 0


def _raisable(scope: Scope, world: World, run: Run) -> bool:
    """`MemoryStore._require_raisable`."""
    recorded = sum(status != 0 for status in world.database.kills)
    if recorded != run.epoch and "kill epoch not checked" not in scope.bugs:
        return False
    return not obstacles(world.database) or "presence not checked" in scope.bugs


def _broken_by_commit(world: World, i: int, job: Job, *, raises: bool) -> str:
    database = world.database
    if raises and IN_FORCE in database.kills:
        return "no raise under a kill"
    if raises and unknown_to_database(world):
        return "no raise while a replica knows a kill that the database does not"
    if raises and any(replica.up and replica.regressed for replica in world.replicas):
        return "no raise after lost history"
    if job.lease != NOBODY and not (database.owner == i and database.lease_left):
        return "a stale lease changes nothing"
    return "" if database.run == job.before else "one transition a version"


def _asks(scope: Scope, world: World, i: int, job: Job) -> Iterator[Step]:
    """`_apply_again`: what raises asks for the lease and for everything a raise's commit is asked for."""
    run = job.after
    assert run is not None
    database = world.database
    rises = run.exposure > run.before
    fits = (
        not rises
        or "write again unasked" in scope.bugs
        or (_raisable(scope, world, run) and _leased(scope, world, i, job))
    )
    if fits and (database.run == run or (not rises and job.age <= SEND_WITHIN)):
        yield Step(
            "will write again", i, NOBODY, with_job(world, i, job._replace(stage="committed", before=None, age=0))
        )
    else:
        yield Step("may not write again", i, NOBODY, with_job(world, i, IDLE_JOB))


def _begins(scope: Scope, world: World, i: int, replica: Replica) -> Iterator[Step]:
    job = replica.job
    assert job.after is not None
    if holds(replica) and "holds not checked" not in scope.bugs:
        yield Step("does not write: it holds the flag", i, NOBODY, with_job(world, i, IDLE_JOB))
    elif job.marked and "mark not checked" not in scope.bugs:
        yield Step("does not write: a kill or a reset came since", i, NOBODY, with_job(world, i, IDLE_JOB))
    elif job.age > SEND_WITHIN and "write not bounded" not in scope.bugs:
        yield Step("does not write: it was decided too long ago", i, NOBODY, with_job(world, i, IDLE_JOB))
    else:
        broken = "no replica writes under a kill it holds" if holds(replica) else ""
        if not job.sure:
            broken = "commit before apply"
        writing = with_job(world, i, Job("writing"))
        sent = writing._replace(flights=_sorted((*world.flights, Flight(job.after.exposure, i))))
        yield Step(f"begins to write {job.after.exposure}", i, NOBODY, sent, broken=broken)


def _sorted(flights: tuple[Flight, ...]) -> tuple[Flight, ...]:
    return tuple(sorted(flights))


def _lands(scope: Scope, world: World) -> Iterator[Step]:
    for n, flight in enumerate(world.flights):
        rest = world._replace(flights=(*world.flights[:n], *world.flights[n + 1 :]))
        if flight.sender == NOBODY:
            yield Step(f"the write of {flight.exposure} is lost", NOBODY, NOBODY, rest)
        if flight.shut_out:
            yield Step(
                f"the write of {flight.exposure} is refused: the flag has a newer version", NOBODY, NOBODY, rest
            )
            continue
        landed = expose(scope, rest, flight.exposure)
        # Nobody can wait for a write whose process died or whose connection broke: it counts as late, too.
        late = flight.age > PROVIDER_WITHIN or flight.sender == NOBODY
        rises = flight.exposure > exposed(scope, world)
        broken = _broken_by_landing(world) if rises and not late else ""
        text = f"the write of {flight.exposure} lands" + (" late" if late else "")
        yield Step(text, flight.sender, NOBODY, landed, broken=broken)


def shut_out(flights: tuple[Flight, ...]) -> tuple[Flight, ...]:
    return _sorted(tuple(flight._replace(shut_out=True) for flight in flights))


def _broken_by_landing(world: World) -> str:
    kills = world.database.kills
    if any(world.claimed):
        return "after confirmed nothing of ours raises"
    if RESET in kills and IN_FORCE not in kills and not active(world.database.run):
        return "after a reset the flag stays off"
    return ""


def _ends(world: World, i: int) -> Iterator[Step]:
    if free_of(world, i):
        yield Step("sees its write end", i, NOBODY, written(world, i))
    elif world.left.lost_writes:
        given_up = spend(world, "lost_writes")
        orphaned = tuple(f._replace(sender=NOBODY) if f.sender == i else f for f in world.flights)
        given_up = given_up._replace(flights=_sorted(orphaned))
        yield Step("does not hear of its write, and gives up on it", i, NOBODY, written(given_up, i), True)


def written(world: World, i: int) -> World:
    """The end of `Killer.writing`: what it may have raised under a kill that came meanwhile is lowered."""
    replica = world.replicas[i]
    held = replica.held
    for kill, one in enumerate(held):
        if one.life == HELD and one.lowering == RESTING:
            held = put(held, kill, one._replace(lowering=PICKED))
    return with_replica(world, i, replica._replace(job=IDLE_JOB, held=held))
