"""Events of applications, counted: what is kept of them, and how two counts become one.

A cell names what is counted together. What cannot be assigned to a variation is counted, too, in a cell without
one, whose cohort says why: it is shown, and never guessed.
"""

import math
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from msgspec import Struct

EVALUATIONS = "evaluations"
"""In place of an event's key: how often SDKs evaluated the flag."""

CONTEXTS = "contexts"
"""In place of an event's key: whom SDKs told of."""

RESERVED = (EVALUATIONS, CONTEXTS)

SLOT_SECONDS = 5.0
"""Events are counted by the slot of time in which they came in: no window is finer."""

COUNTED_FROM_SECONDS = 5.0
"""How long after somebody asks for an event all replicas are sure to count it."""

EXACT_CONTEXTS = 512
"""So many different contexts are counted exactly; of more, the standard error is 4.4 % (1 / √510)."""

HASHES = 2**64

BUCKETS_PER_DOUBLING = 8
LOWEST_BUCKET, HIGHEST_BUCKET = -160, 320
"""Upper bounds 2^(n/8), from a millionth to a million millions: each is 9 % above the one before."""

OVERFLOW = HIGHEST_BUCKET + 1
NO_BUCKET = LOWEST_BUCKET - 1
"""In place of a bucket: all events of a cell, with a value or without."""

SHARE, ALWAYS, OTHER = "share", "always", "other"
"""Cohorts: in by the rollout's share, in the audience that is always in, or by somebody else's rule or target."""

CHANGING = "changing"
"""In place of a cohort: the variation was just changing. All that such a context does is left out for a moment, so
that no share of anything is distorted."""

UNKNOWN_EXPOSURE = -1


class Cell(NamedTuple):
    """`exposure` in thousandths of a percent, as it was for the event. Without a variation `cohort` says why."""

    environment: str
    flag: str
    event: str
    variation: str
    cohort: str
    exposure: int


class Watch(NamedTuple):
    """What somebody asks for: an event by its key or a reserved name, or `contexts_of` it: whom it happened to."""

    flag: str
    metric: str


class Counted(Struct, frozen=True):
    """What a store answers of one cell over a window. `age_seconds`: since anything was added to it.

    `bucket` is one of the histogram of values, or stands for all events. `contexts` are hashes, packed.
    """

    cell: Cell
    bucket: int
    count: int
    contexts: bytes
    age_seconds: float


class Sketch:
    """Whom an event happened to, as hashes: all of them up to a number, then the smallest, which tell how many.

    Sketches of several times and replicas add up to the sketch of all of them.
    """

    __slots__ = ("_hashes", "_limit")

    def __init__(self, hashes: Iterable[int] = ()) -> None:
        self._hashes: set[int] = set()
        self._limit = HASHES
        self.add_all(hashes)

    def add(self, one: int) -> None:
        if one < self._limit:
            self._hashes.add(one)
            if len(self._hashes) > 2 * EXACT_CONTEXTS:
                self._cut()

    def add_all(self, hashes: Iterable[int]) -> None:
        for one in hashes:
            self.add(one)

    def new_to(self, known: "Sketch") -> "Sketch":
        """Those that `known` lacks and that could change what it says."""
        return Sketch(one for one in self._hashes if one < known._limit and one not in known._hashes)

    def estimate(self) -> float:
        if len(self._hashes) <= EXACT_CONTEXTS:
            return float(len(self._hashes))
        self._cut()
        return EXACT_CONTEXTS / (self._limit / HASHES)

    def __iter__(self) -> Iterator[int]:
        return iter(self._hashes)

    def __len__(self) -> int:
        return len(self._hashes)

    def _cut(self) -> None:
        # One more than is exact: hashes are evenly spread, so how far that one has come tells how many there are.
        kept = sorted(self._hashes)[: EXACT_CONTEXTS + 1]
        self._limit = kept[-1]
        self._hashes = set(kept)


class Tally:
    """What happened in one cell. `buckets` are of the events that had a value."""

    __slots__ = ("buckets", "contexts", "count")

    def __init__(self) -> None:
        self.count = 0
        self.buckets: dict[int, int] = {}
        self.contexts = Sketch()

    def add(self, other: "Tally") -> None:
        self.count += other.count
        for bucket, count in other.buckets.items():
            self.buckets[bucket] = self.buckets.get(bucket, 0) + count
        self.contexts.add_all(other.contexts)


class Delivery(Struct, frozen=True):
    """What one delivery of an SDK comes to. `id` is the same when the SDK sends it again."""

    id: bytes
    tallies: dict[Cell, Tally]

    @property
    def size(self) -> int:
        """Numbers held for it, roughly."""
        return sum(1 + len(one.buckets) + len(one.contexts) for one in self.tallies.values())


def contexts_of(event: str) -> str:
    return event if event == CONTEXTS else f"{event}:{CONTEXTS}"


def merged(deliveries: Iterable[Delivery]) -> dict[Cell, Tally]:
    total: dict[Cell, Tally] = {}
    for delivery in deliveries:
        for cell, tally in delivery.tallies.items():
            total.setdefault(cell, Tally()).add(tally)
    return total


def bucket_of(value: float) -> int:
    """The lowest bucket whose upper bound is not below the value; what is not positive is in the lowest."""
    if value <= 0:
        return LOWEST_BUCKET
    if value > upper_bound(HIGHEST_BUCKET):
        return OVERFLOW
    nearest = math.ceil(BUCKETS_PER_DOUBLING * math.log2(value))
    # Next to a bound the logarithm may be rounded to its other side.
    if upper_bound(nearest - 1) >= value:
        nearest -= 1
    elif upper_bound(nearest) < value:
        nearest += 1
    return max(nearest, LOWEST_BUCKET)


def upper_bound(bucket: int) -> float:
    return math.inf if bucket >= OVERFLOW else 2.0 ** (bucket / BUCKETS_PER_DOUBLING)


def cumulative(counts: Iterable[tuple[int, int]]) -> list[tuple[float, float]]:
    """(upper bound, events up to it) from (bucket, events), with the bound below each bucket that holds any."""
    events: dict[int, int] = {}
    for bucket, count in counts:
        events[bucket] = events.get(bucket, 0) + count
    below, found = 0, dict[float, float]()
    for bucket in sorted(events):
        if bucket > LOWEST_BUCKET:
            found[upper_bound(bucket - 1)] = below
        below += events[bucket]
        found[upper_bound(bucket)] = below
    found[math.inf] = below
    return list(found.items())


def packed(hashes: Iterable[int]) -> bytes:
    known = sorted(hashes)
    return struct.pack(f"<{len(known)}Q", *known)


def unpacked(content: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(content) // 8}Q", content)
