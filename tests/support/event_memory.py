"""An EventStore in memory, on a clock that a test moves: the same promises as the one on PostgreSQL."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence

from controller.domain.tally import NO_BUCKET, SLOT_SECONDS, Cell, Counted, Delivery, Tally, Watch, packed
from controller.errors import StoreUnavailable


class EventMemory:
    """`away`: the database does not answer. `lose_answers`: so many commits happen, and their answers are lost.

    `broken`: it refuses what it is given. `sizes`: how many numbers came at once. `gaps` are until when something
    was missed, by environment.
    """

    def __init__(self, seconds: Callable[[], float], *, slot_seconds: float = SLOT_SECONDS) -> None:
        self.away = False
        self.lose_answers = 0
        self.broken = False
        self.sizes: list[int] = []
        self._seconds = seconds
        self._slot_seconds = slot_seconds
        self._deliveries: set[bytes] = set()
        self._slots: dict[tuple[float, Cell], tuple[Tally, float]] = {}
        self._watches: dict[Watch, float] = {}
        self.gaps: dict[str, float] = {}

    async def count(self, deliveries: Sequence[Delivery]) -> int:
        self._answer()
        if self.broken:
            raise ValueError("a number out of range")
        self.sizes.append(sum(one.size for one in deliveries))
        new = {one.id: one for one in deliveries if one.id not in self._deliveries}
        now = self._seconds()
        slot = now // self._slot_seconds * self._slot_seconds
        for delivery in new.values():
            for cell, tally in delivery.tallies.items():
                present, _ = self._slots.get((slot, cell), (Tally(), now))
                present.add(tally)
                self._slots[slot, cell] = (present, now)
        self._deliveries |= set(new)
        if self.lose_answers:
            self.lose_answers -= 1
            raise StoreUnavailable("the answer of the commit was lost")
        return len(new)

    async def counted(
        self, events: Collection[tuple[str, str]], *, window_seconds: float, contexts: bool
    ) -> Sequence[Counted]:
        self._answer()
        now = self._seconds()
        found: dict[Cell, tuple[Tally, float]] = {}
        for (slot, cell), (tally, at) in self._slots.items():
            since = max((at for watch, at in self._watches.items() if watch.flag == cell.flag), default=now)
            begin = max(now - window_seconds, since, self.gaps.get(cell.environment, since))
            if (cell.flag, cell.event) in events and slot >= begin:
                present, age = found.get(cell, (Tally(), now - at))
                present.add(tally)
                found[cell] = (present, min(age, now - at))
        return [row for cell, (tally, age) in found.items() for row in _rows(cell, tally, age, contexts=contexts)]

    async def watch(self, watches: Collection[Watch], *, from_seconds: float) -> None:
        self._answer()
        for one in watches:
            self._watches.setdefault(one, self._seconds() + from_seconds)

    async def watches(self) -> Collection[Watch]:
        self._answer()
        return list(self._watches)

    async def note_gap(self, environment: str, missed: int) -> None:
        self._answer()
        self.gaps[environment] = self._seconds()

    async def forget(self, *, counts_seconds: float, deliveries_seconds: float) -> None:
        self._answer()

    def _answer(self) -> None:
        if self.away:
            raise StoreUnavailable("the database does not answer")


def _rows(cell: Cell, tally: Tally, age: float, *, contexts: bool) -> list[Counted]:
    if contexts:
        hashes = packed(tally.contexts)
        return [Counted(cell, NO_BUCKET, tally.count, hashes, age)] if hashes else []
    whole = Counted(cell, NO_BUCKET, tally.count, b"", age)
    return [whole, *(Counted(cell, bucket, count, b"", age) for bucket, count in tally.buckets.items())]


async def until_counted(counted: Callable[[], Awaitable[int]], expected: int, *, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while (found := await counted()) != expected:
        assert time.monotonic() < deadline, f"{found} were counted, not {expected}"
        await asyncio.sleep(0.01)
