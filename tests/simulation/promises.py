"""What may never happen, checked at the step at which it would; and what must have happened once faults stop.

The checks keep their own books from what the models saw. They do not ask the engine whether it did well.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from controller.domain.audit import verify_chain
from controller.domain.catalogue import Kill, Transition
from controller.domain.convergence import converge
from controller.domain.flag import FlagChange, FlagState
from controller.domain.plan import FlagRef, RolloutPlan
from controller.domain.quantities import FULL_EXPOSURE
from controller.domain.rollout import RAISING, Run
from controller.domain.sdkflag import state_of
from controller.held import Held, is_off
from tests.simulation.outside import STALE_SECONDS

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.replica import Machine
    from tests.simulation.world import World

EVERY_SECONDS = 5.0
WINDOW_SECONDS = 15.0
HEARD_OF_WITHIN_SECONDS = 7.1
"""A kill that reached nobody may meet a raise for so long: presence, and a check-in still on its way."""

ANSWER_SECONDS = 3.0

Check = tuple[str, bool, str]
"""Promise, whether it was kept, and what it would mean if not."""


class Violation(AssertionError):
    """A promise was broken. The message says which, when, and by whom."""


class Owed(Struct, kw_only=True):
    """A kill that somebody was told is accepted, and nobody has reset.

    `awaited`: whoever took it was registered, so that raises wait for it. One that was stopped in order and comes
    back while the database is away is not; nobody can know of it (docs/replicas.md, "The one window").
    """

    kill_id: str
    flag: FlagRef
    by: str
    accepted_at: float
    durable: bool
    awaited: bool
    excused: bool = False


class Promises:
    """One simulated world's books."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.faults: Counter[str] = Counter()
        self.checks: Counter[str] = Counter()
        self.broken: str | None = None
        self.story: deque[str] = deque(maxlen=100_000 if world.telling else 40)
        self._owed: dict[str, Owed] = {}
        self._released: set[str] = set()
        self._reset: set[str] = set()
        self._committed: dict[FlagRef, set[tuple[int, bool]]] = {}
        self._confirmed: dict[str, list[tuple[int, float]]] = {}
        self._moods: dict[str, list[tuple[float, str]]] = {}
        self._exposures: dict[str, list[tuple[float, int]]] = {}

    # — telling —

    def tell(self, what: str) -> None:
        if self._world.telling:
            self.story.append(f"{self._world.now():9.3f} {what}")

    def count(self, fault: str) -> None:
        self.faults[fault] += 1
        self.tell(f"fault: {fault}")

    def require(self, promise: str, kept: bool, what: str) -> None:
        self.checks[promise] += 1
        if not kept:
            self.tell(f"VIOLATION {promise}: {what}")
            self.broken = self.broken or f"{promise} at {self._world.now():.3f} s: {what}"
            raise Violation(self.broken)

    # — what the traffic was like —

    def mood(self, flag: str, mood: str) -> None:
        self._moods.setdefault(flag, []).append((self._world.now(), mood))
        self.tell(f"traffic of {flag} is {mood}")

    def _moods_since(self, flag: str, since: float) -> list[tuple[float, float, str]]:
        """(from, to, mood), clipped."""
        changes = [(0.0, "healthy"), *self._moods.get(flag, [])]
        ends = [at for at, _ in changes[1:]] + [self._world.now()]
        spans = [(max(at, since), end, mood) for (at, mood), end in zip(changes, ends, strict=True)]
        return [span for span in spans if span[1] >= span[0] and span[1] >= since]

    # — the database —

    def before(self, name: str, args: Any) -> None:
        if name == "reset_kills":
            for kill_id in args[1]:
                self._owed.pop(kill_id, None)

    def executed(self, process: "Process", name: str, args: Any, result: Any) -> None:
        match name:
            case "commit":
                self._committed_by(process, args[0])
            case "save_flag_config":
                wrote = _short(state_of(args[0]))
                self.tell(f"{process.name} stored {args[0].key}: {wrote}, version {args[0].version}")
            case "create_run":
                self.tell(f"{process.name} created {result.id}")
            case "record_kill" if result:
                self._recorded(process, args[0])
            case "release_raises" if result:
                self.tell(f"a person released {result}")
                known = self._world.database.store.kills
                for owed in self._owed.values():
                    owed.excused = owed.excused or owed.kill_id not in known
            case "reset_kills" if result:
                self.tell(f"reset {result}")
                self._reset.update(result)

    def under_way(self, run: Run) -> None:
        """A run that is older than the world."""
        self._committed.setdefault(run.flag, set()).add((run.exposure, run.audience))
        self._confirmed[run.id] = [(run.version, -1000.0)]
        self._exposures[run.id] = [(-1000.0, run.exposure)]

    def failed_over(self) -> None:
        """What the new primary never received was never committed, though it may have been applied."""
        for row in self._world.database.store.rows.values():
            run = row.run
            self._committed.setdefault(run.flag, set()).add((run.exposure, run.audience))
            self._confirmed[run.id] = [one for one in self._confirmed.get(run.id, []) if one[0] <= run.version]

    def _committed_by(self, process: "Process", change: Transition) -> None:
        before, after, action = change.before, change.after, change.entry.action
        store = self._world.database.store
        self.tell(f"{process.name} committed {action} of {after.id} v{after.version}: {change.entry.reason}")
        self._committed.setdefault(after.flag, set()).add((after.exposure, after.audience))
        self._exposures.setdefault(after.id, []).append((self._world.now(), after.exposure))
        self.require("I6", after.version == before.version + 1, f"{after.id} skipped a version")
        if change.lease_epoch is not None:
            row = store.rows[after.id]
            holds = row.owner is not None and row.owner.startswith(f"{process.name}/")
            fresh = row.expires_at > store._now()
            self.require(
                "I5", holds and fresh and row.epoch == change.lease_epoch, f"{process.name} held no lease"
            )
        if after.exposure > before.exposure:
            self.require("I2", action in RAISING, f"{action} raised {after.id}")
        plan = self._plan(after)
        if after.stage >= 0:
            share = plan.spec.stages[after.stage].share
            self.require("I2", after.exposure <= share, f"{after.id} is above its stage")
        if action == "confirm":
            self._confirmed.setdefault(after.id, []).append((after.version, self._world.now()))
        if action in ("start", "advance"):
            frozen = [one.name for one in store.frozen.values() if one.holds(change.entry.at)]
            self.require("freezes", not frozen, f"{action} of {after.id} in the freeze {frozen}")
            self._raised(process, change, plan)
        if action in RAISING:
            self._not_killed(process, after)
        if action == "complete" and change.entry.actor == "rampart":
            self._baked(before, plan)

    def _plan(self, run: Run) -> RolloutPlan:
        return self._world.database.store._plans[run.plan][run.plan_revision - 1].plan

    def _raised(self, process: "Process", change: Transition, plan: RolloutPlan) -> None:
        before, after = change.before, change.after
        self.require("I2", after.stage <= before.stage + 1, f"{after.id} skipped a stage")
        self._nothing_slipped_in(process, before)
        stage = plan.spec.stages[after.stage]
        if stage.approval is not None:
            request = before.approval
            by = request.granted_by if request is not None else None
            two = by is not None and by not in (before.author, before.started_by)
            self.require("I14", two, f"{after.id} entered {stage.name} approved by {by}")
        if change.entry.action == "advance" and change.entry.actor == "rampart":
            self._baked(before, plan)
        latest = self._moods_since(after.flag.key, self._world.now() - 2 * EVERY_SECONDS - 10.0)
        # Before anybody is treated the control stands in, and only an outage is seen in that.
        hidden = before.stage < 0
        healthy = any(mood == "healthy" or (hidden and mood != "outage") for _, _, mood in latest)
        self.require("I1", healthy, f"{after.id} rose while its traffic was {latest}")

    def _nothing_slipped_in(self, process: "Process", before: Run) -> None:
        """What somebody put beside the share, and what stood there for two polls, was accepted before a raise."""
        flag, backend = before.flag, self._world.backend
        if before.accepted is None or flag not in backend.flags:
            return
        since = self._world.now() - 2 * EVERY_SECONDS - 10.0
        stood = set(backend.flags[flag].foreign)
        for at, state in backend.past.get(flag, ()):
            if at > since:
                stood &= set(state.foreign)
        slipped = stood - set(before.accepted.foreign)
        self.require("I9", not slipped, f"{process.name} raised {before.id} beside {slipped}")

    def _baked(self, before: Run, plan: RolloutPlan) -> None:
        """True time is an upper bound of what may have been counted."""
        if before.stage < 0:
            return  # from 0 % it is a start: nobody was treated
        confirmed = self._confirmed.get(before.id)
        stage = plan.spec.stages[before.stage]
        self.require("I1", bool(confirmed), f"{before.id} rose from a step that was never confirmed")
        assert confirmed
        _, since = confirmed[-1]
        passed = self._world.now() - since
        least = stage.bake_seconds + WINDOW_SECONDS
        self.require("I13", passed >= least - 1e-6, f"{before.id} baked {passed:.1f} s of {least:.0f} s")
        spans = self._moods_since(before.flag.key, since)
        healthy = sum(end - begin for begin, end, mood in spans if mood == "healthy")
        unseen = 2 * EVERY_SECONDS * len(spans)
        if since < 0:
            return  # most of it baked before the world began
        self.require("I12", healthy + unseen >= stage.bake_seconds, f"{before.id} baked through {spans}")

    # — kills —

    def answered(self, machine: "Machine", kill_id: str, flag: FlagRef, durable: bool, began: float) -> None:
        """A person was told that the kill is accepted."""
        now = self._world.now()
        self.tell(f"{machine.name} answered {kill_id} of {flag.key}, durable: {durable}")
        self.require(
            "I4", now - began <= ANSWER_SECONDS or machine.was_frozen_since(began), "a kill took too long"
        )
        if flag.provider == "main":
            shown = machine.board.shown(flag)
            off = shown is None or is_off(state_of(shown))
            self.require("I4", off, f"{machine.name} still serves {flag.key} after its kill was answered")
        if kill_id in self._released:
            return  # somebody reset it before we heard of it
        self._owed[kill_id] = Owed(
            kill_id=kill_id,
            flag=flag,
            by=machine.name,
            accepted_at=began,
            durable=durable,
            awaited=machine.name in self._world.database.store.replicas,
        )

    def confirming(self, machine: "Machine", held: Held) -> None:
        """A flag is called off: so it must have been when it was read, and a stale read is a few seconds old."""
        flag, backend = held.kill.flag, self._world.backend
        if flag.provider == "main":
            states = [self._world.shown(machine, flag)]
        else:
            since = self._world.now() - STALE_SECONDS - 1.0
            states = [state for at, state in backend.past.get(flag, ()) if at > since] + [backend.flags[flag]]
        off = any(is_off(state) for state in states)
        self.require("I4", off, f"{machine.name} calls {held.kill.id} confirmed, and {flag.key} is on")

    def released(self, kill_ids: Iterable[str]) -> None:
        """A person asked for a reset: from here on either outcome is right."""
        self._released.update(kill_ids)
        for kill_id in kill_ids:
            self._owed.pop(kill_id, None)

    def _recorded(self, process: "Process", kill: Kill) -> None:
        self.tell(f"{process.name} recorded {kill.id} of {kill.flag.key} by {kill.actor}: {kill.reason}")
        if kill.cause == "policy":
            accepted = (kill.accepted_at - self._world.machine(process.name).clock.offset).timestamp()
            accepted -= self._world.begin
            lately = self._moods_since(kill.flag.key, accepted - 60.0)
            # At 100 % there is no control that could tell an outage from a bad release.
            told_apart = FULL_EXPOSURE not in self._exposures_of(kill.run, accepted - 60.0, accepted)
            bad = any(mood == "bad" or (mood == "outage" and not told_apart) for _, _, mood in lately)
            self.require("I21", bad or self._world.clock_jumped, f"{kill.flag.key} was killed though {lately}")

    def _not_killed(self, process: "Process", run: Run) -> None:
        store, now = self._world.database.store, self._world.now()
        for row in store.kills.values():
            if row.kill.flag == run.flag and not row.reset:
                self.require("I3", False, f"{process.name} raised {run.id} under {row.kill.id}")
        for owed in self._owed.values():
            if owed.flag == run.flag and owed.awaited and not owed.excused:
                age = now - owed.accepted_at
                late = age > HEARD_OF_WITHIN_SECONDS and self._world.somebody_knows(owed.kill_id)
                self.require("I3", not late, f"{process.name} raised {run.id} {age:.1f} s after {owed.kill_id}")

    def resumed(self, machine: "Machine") -> None:
        held = {one.kill.id for one in machine.engine.killbook.in_force()}
        for owed in self._owed.values():
            if owed.durable and owed.by == machine.name:
                self.require("I3", owed.kill_id in held, f"{machine.name} forgot {owed.kill_id} in a restart")

    def _exposures_of(self, run: str | None, since: float, until: float) -> list[int]:
        """What was committed of the run in that time, and before it last."""
        past = [one for one in self._exposures.get(run or "", []) if one[0] <= until]
        earlier = [exposure for at, exposure in past if at <= since]
        return earlier[-1:] + [exposure for at, exposure in past if at > since]

    # — the back end —

    def writing(self, process: "Process", change: FlagChange) -> None:
        """A replica is about to write: it must not know of a kill."""
        machine = self._world.machine(process.name)
        held = machine.engine.killbook.holds(change.flag)
        self.require("I3", not held, f"{process.name} writes {change} though it holds {held}")

    def flag_changed(self, flag: FlagRef, before: FlagState, after: FlagState, *, by: str, late: bool) -> None:
        self.tell(f"{by} {'late ' if late else ''}wrote {flag.key}: {_short(before)} → {_short(after)}")
        if by == "hand":
            self._committed.setdefault(flag, set()).add((after.exposure, bool(after.audience)))
            return
        rises = after.effective_exposure > before.effective_exposure
        if rises:
            known = (after.exposure, bool(after.audience)) in self._committed.get(flag, set())
            self.require("I7", known, f"{by} wrote {_short(after)}, which nobody committed")
        if not is_off(after) and rises and not late:
            for machine in self._world.machines:
                if machine.up:
                    for held in machine.engine.killbook.in_force():
                        # One that was reset elsewhere may be held a moment longer by who has not heard of it.
                        standing = held.kill.flag == flag and held.kill.id not in self._reset
                        risen = standing and held.confirmed_at is not None
                        self.require("I4", not risen, f"{by} raised {flag.key} after {held.kill.id} was confirmed")

    # — when faults have stopped —

    def converged(self) -> bool:
        """Whether everything is as it should be by now."""
        return all(kept for _, kept, _ in self._final())

    def conclude(self) -> None:
        for promise, kept, what in self._final():
            self.require(promise, kept, what)

    def _final(self) -> Iterator[Check]:
        store = self._world.database.store
        in_force = {row.kill.id for row in store.kills.values() if not row.reset}
        for machine in self._world.machines:
            yield from self._settled(machine, in_force)
        for row in store.rows.values():
            if row.run.active and row.run.phase != "pending":
                yield from self._as_desired(row.run)
        for owed in self._owed.values():
            kept = owed.kill_id in in_force or owed.excused or not owed.durable
            yield "I3", kept, f"{owed.kill_id} was answered and is gone"
        report = verify_chain(store.chain)
        yield "I15", report.problem is None, str(report.problem)
        versions = Counter(pair for pair in self._world.audited_versions() if pair[1] is not None)
        twice = [pair for pair, count in versions.items() if count > 1]
        yield "I6", not twice, f"audited twice: {twice}"

    def _settled(self, machine: "Machine", in_force: set[str]) -> Iterator[Check]:
        name = machine.name
        yield "L1", machine.up and machine.engine.presence.merged, f"{name} has not merged"
        engine = machine.engine
        yield "L1", not engine.presence.obstacles, f"{name} is blocked: {engine.presence.obstacles}"
        held = {one.kill.id: one for one in engine.killbook.in_force()}
        yield "L1", set(held) == in_force, f"{name} holds {sorted(held)}, in force are {sorted(in_force)}"
        for one in held.values():
            yield "L1", one.confirmed_at is not None, f"{name} has not confirmed {one.kill.id}"
            yield "L1", is_off(self._world.shown(machine, one.kill.flag)), f"{one.kill.flag} is not off"
        for flag in self._world.builtin_flags:
            yield from self._served(machine, flag)

    def _served(self, machine: "Machine", flag: FlagRef) -> Iterator[Check]:
        name, expected = machine.name, sorted(machine.engine.killbook.holds(flag))
        yield "L1", sorted(machine.board.holds(flag)) == expected, f"{name}'s board holds {flag.key} alone"
        shown, stored = machine.board.shown(flag), self._world.stored(flag)
        if shown is None:
            yield "L1", False, f"{name} serves no {flag.key}"
            return
        same = bool(expected) or state_of(shown).effective_exposure == state_of(stored).effective_exposure
        what = f"{name} serves {_short(state_of(shown))} of {flag.key}, stored is {_short(state_of(stored))}"
        yield "L1", same, f"{what}; versions {shown.version}, {stored.version}"

    def _as_desired(self, run: Run) -> Iterator[Check]:
        plan = self._plan(run)
        for machine in self._world.machines:
            seen = self._world.shown(machine, run.flag)
            found = converge(run, plan, seen, seconds_since_apply=1e9, settle_seconds=5.0)
            yield "L1", found.difference == "none", f"{run.id} ({run.phase}) on {machine.name}: {found.text}"
        yield "L1", run.confirmed, f"{run.id} is not confirmed"


def _short(state: FlagState) -> str:
    return f"{'on' if state.enabled else 'off'} {state.exposure / 1000:g} %{' +' if state.audience else ''}"
