"""Breadth-first exploration of every state that can be reached, each visited once, with the way to it.

A state is kept as numbers of its parts, each part once. Replicas are equal: of the states that differ in their
names alone one is visited. Violations are found at the step that breaks a promise; afterwards the graph is walked
backwards to find states from which the engine alone, without further faults, cannot come to rest.
"""

import time
from array import array
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

from tests.simulation.exhaustive.model import converged, steps
from tests.simulation.exhaustive.reductions import reduced
from tests.simulation.exhaustive.state import NOBODY, Flight, Scope, Step, World

Key = tuple[int, ...]
STUCK = "everything comes to rest when faults stop"


class Violation(NamedTuple):
    promise: str
    trace: tuple[str, ...]


class Report(NamedTuple):
    """`depth`: steps to the farthest state. `seconds` of processor time. `violation`: the first, shortest."""

    scope: Scope
    states: int
    transitions: int
    depth: int
    seconds: float
    violations: int
    violation: Violation | None
    complete: bool
    at_rest: int


class Explorer:
    """`limit` bounds the states, for scopes that are too large to be finished."""

    def __init__(self, scope: Scope, *, limit: int | None = None) -> None:
        self._scope = scope
        self._limit = limit
        self._parts: list[Any] = []
        self._numbers: dict[Any, int] = {}
        self._by_identity: dict[int, int] = {}
        self._visited: dict[Key, int] = {}
        self._seen: dict[Key, int] = {}
        self._keys: list[Key] = []
        self._parents = array("i")
        self._depths = array("h")
        self._own_from = array("i")
        self._own_to = array("i")
        self._transitions = 0
        self._broken: Counter[str] = Counter()
        self._first: tuple[int, Step] | None = None

    def explore(self, *, stop_at_first: bool = True) -> Report:
        """Only a complete exploration without another violation looks for states that cannot come to rest."""
        began = time.process_time()
        self._visit(self._key(canonical(self._scope, self._scope.first(), self)), -1)
        at, complete = 0, True
        while at < len(self._keys):
            if self._limit is not None and len(self._keys) > self._limit:
                complete = False
                break
            self._expand(at)
            at += 1
            if self._first and stop_at_first:
                complete = False
                break
        stuck, at_rest = self._stuck() if complete and not self._first else (None, 0)
        violation = self._told(stuck)
        return Report(
            scope=self._scope,
            states=len(self._keys),
            transitions=self._transitions,
            depth=self._depths[-1],
            seconds=time.process_time() - began,
            violations=sum(self._broken.values()) + (stuck is not None),
            violation=violation,
            complete=complete,
            at_rest=at_rest,
        )

    # — states —

    def number(self, part: Any) -> int:
        """Parts are kept for good, so that most are known by their identity."""
        found = self._by_identity.get(id(part))
        if found is None:
            found = self._numbers.get(part)
            if found is None:
                found = self._numbers[part] = len(self._parts)
                self._parts.append(part)
                self._by_identity[id(part)] = found
        return found

    def _key(self, world: World) -> Key:
        rest = (world.flag, world.flights, world.claimed, world.since)
        numbers = [self.number(part) for part in (world.database, world.image, rest, world.left)]
        return (*numbers, *map(self.number, world.replicas))

    def _world(self, at: int) -> World:
        database, image, rest, left, *replicas = (self._parts[number] for number in self._keys[at])
        flag, flights, claimed, since = rest
        return World(database, image, flag, flights, tuple(replicas), claimed, since, left)

    def _visit(self, key: Key, parent: int) -> int:
        found = self._visited.get(key)
        if found is None:
            found = self._visited[key] = len(self._keys)
            self._keys.append(key)
            self._parents.append(parent)
            self._depths.append(self._depths[parent] + 1 if parent >= 0 else 0)
        return found

    def _reached(self, world: World, parent: int) -> int:
        """Most states are reached again and again; then their likeness need not be found anew."""
        key = self._key(world)
        found = self._seen.get(key)
        if found is None:
            found = self._seen[key] = self._visit(self._key(canonical(self._scope, world, self)), parent)
        return found

    def _expand(self, at: int) -> None:
        for step in steps(self._scope, self._world(at)):
            self._transitions += 1
            if step.broken:
                self._broken[step.broken] += 1
                self._first = self._first or (at, step)
                continue
            to = self._reached(step.world, at)
            if not step.fault and to != at:
                self._own_from.append(at)
                self._own_to.append(to)

    # — coming to rest —

    def _stuck(self) -> tuple[int | None, int]:
        """The first state that cannot come to rest by the engine's own steps, and how many are at rest."""
        before: list[list[int]] = [[] for _ in self._keys]
        for source, target in zip(self._own_from, self._own_to, strict=True):
            before[target].append(source)
        goal = [at for at in range(len(self._keys)) if converged(self._scope, self._world(at))]
        can = bytearray(len(self._keys))
        waiting = list(goal)
        for at in goal:
            can[at] = 1
        while waiting:
            for source in before[waiting.pop()]:
                if not can[source]:
                    can[source] = 1
                    waiting.append(source)
        stuck = can.find(0)
        return (None if stuck < 0 else stuck), len(goal)

    # — telling —

    def _told(self, stuck: int | None) -> Violation | None:
        if self._first is not None:
            at, step = self._first
            return Violation(step.broken, (*self._trace(at, step), f"BROKEN: {step.broken}"))
        if stuck is not None:
            return Violation(STUCK, (*self._trace(stuck), f"BROKEN: {STUCK}"))
        return None

    def _trace(self, at: int, last: Step | None = None) -> Iterator[str]:
        """The way there told with names that do not change, though every state kept was one of its likenesses."""
        path = [at]
        while self._parents[path[-1]] >= 0:
            path.append(self._parents[path[-1]])
        world = reduced(self._scope, self._scope.first())
        for target in reversed(path[:-1]):
            step = next(
                step for step in steps(self._scope, world)
                if not step.broken and self._visited[self._key(canonical(self._scope, step.world, self))] == target
            )  # fmt: skip
            yield said(step)
            world = reduced(self._scope, step.world)
        if last is not None:
            yield said(next(step for step in steps(self._scope, world) if step.broken == last.broken))


def said(step: Step) -> str:
    words = step.text
    for number in range(3):
        words = words.replace(f"replica {number}", f"replica {'ABC'[number]}")
    who = f"{'ABC'[step.replica]} " if step.replica >= 0 and not words.startswith("the ") else ""
    which = f" (kill {step.kill + 1})" if step.kill >= 0 else ""
    return f"{who}{words}{which}"


# — replicas are equal —


def canonical(scope: Scope, world: World, explorer: Explorer) -> World:
    """The one of all likenesses whose replicas stand in the order of their numbers."""
    world = reduced(scope, world)
    database, image = world.database, world.image
    looks = [
        (
            explorer.number(_faceless(replica)),
            database.rows[i],
            image.rows[i] if image else (),
            database.owner == i,
            image is not None and image.owner == i,
        )
        for i, replica in enumerate(world.replicas)
    ]
    if all(first <= second for first, second in pairwise(looks)):
        return world
    return renamed(world, sorted(range(len(looks)), key=looks.__getitem__))


def _faceless(replica: Any) -> Any:
    if any(held.landed for held in replica.held):
        return replica._replace(held=tuple(held._replace(landed=held.landed.bit_count()) for held in replica.held))
    return replica


def renamed(world: World, order: list[int]) -> World:
    """The replica that was `order[n]` is called n."""
    names = {old: new for new, old in enumerate(order)}
    names[NOBODY] = NOBODY

    def rows(database: Any) -> Any:
        moved = tuple(database.rows[old] for old in order)
        return database._replace(rows=moved, owner=names[database.owner])

    replicas = tuple(
        replica._replace(held=tuple(held._replace(landed=_mask(held.landed, names)) for held in replica.held))
        for replica in (world.replicas[old] for old in order)
    )
    flights = tuple(sorted(Flight(f.exposure, names[f.sender], f.age, f.shut_out) for f in world.flights))
    return world._replace(
        database=rows(world.database),
        image=rows(world.image) if world.image else None,
        replicas=replicas,
        flights=flights,
    )


def _mask(mask: int, names: dict[int, int]) -> int:
    return sum(1 << new for old, new in names.items() if old >= 0 and mask >> old & 1)
