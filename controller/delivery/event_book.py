"""Counts on their way to the database: held until they are in it, and no more of them than there is room for.

A delivery is acknowledged once it is committed, so that a crash loses nothing that an SDK believes delivered.
While the database is away it is acknowledged after a moment and held. When there is no room left deliveries are
refused, and a gap is noted: nobody takes what was not counted for what did not happen.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import accumulate, takewhile

import structlog

from controller.delivery.event_counts import Counts, Wanted, wanted
from controller.domain.tally import COUNTED_FROM_SECONDS, Delivery, Watch
from controller.errors import StoreUnavailable
from controller.ports import Clock, EventStore
from controller.telemetry import Metrics

log = structlog.get_logger()

GATHER_SECONDS = 0.1
ACKNOWLEDGE_SECONDS = 4.0
"""The longest that an SDK waits for an answer: some give up after ten seconds, and send it again."""

RETRY_SECONDS = 1.0
LOOK_SECONDS = 1.0
FORGET_SECONDS = 60.0
DELIVERIES_KEPT_SECONDS = 3600.0
"""How long a delivery that comes again is recognised. SDKs try once more, after a second."""

MAX_HELD = 500_000
"""Numbers in memory, a few tens of bytes each."""

MAX_DELIVERIES = 20_000
AT_ONCE = 20_000
"""Numbers that are added up in one go, in about ten milliseconds: a kill waits for no more."""


class EventBook:
    """`wanted` is None until the database was asked for the first time. Times and bounds are for tests."""

    def __init__(
        self,
        store: EventStore,
        clock: Clock,
        metrics: Metrics,
        *,
        kept_seconds: float,
        max_held: int = MAX_HELD,
        acknowledge_seconds: float = ACKNOWLEDGE_SECONDS,
    ) -> None:
        self.wanted: Wanted | None = None
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._kept_seconds = kept_seconds
        self._max_held = max_held
        self._acknowledge_seconds = acknowledge_seconds
        self._watches: frozenset[Watch] = frozenset()
        self._looked_at = clock.monotonic()
        self._forgot_at = clock.monotonic()
        self._held: list[tuple[Delivery, str, asyncio.Future[None]]] = []
        self._size = 0
        self._missed: Counter[str] = Counter()
        self._environments: set[str] = set()
        self._something = asyncio.Event()
        self._loops: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._loops = [asyncio.create_task(one) for one in (self._write_forever(), self._look_forever())]

    async def close(self) -> None:
        """What is held is written, if the database takes it now."""
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        if self._held:
            try:
                await self._write()
            except StoreUnavailable as error:
                log.warning("events_lost", deliveries=len(self._held), error=str(error))

    # — deliveries come in —

    @property
    def has_room(self) -> bool:
        return self._size < self._max_held and len(self._held) < MAX_DELIVERIES

    def refuse(self, environment: str) -> None:
        """A delivery was not taken for want of room or time."""
        self._metrics.event_delivery("refused")
        self._miss(environment)

    def garbled(self, environment: str) -> None:
        """A delivery was no list of events."""
        self._metrics.event_delivery("garbled")
        self._miss(environment)

    def read(self, environment: str, counts: Counts, garbled: int) -> None:
        """A delivery was read; `garbled` events of it could not be."""
        self._metrics.events({**counts.kinds, "garbled": garbled}, counts.unassigned)
        if garbled:
            self._miss(environment)

    def _miss(self, environment: str) -> None:
        """Something happened that was not counted: up to now nothing can be said of the environment."""
        self._missed[environment] += 1
        self._something.set()

    async def keep(self, delivery: Delivery, environment: str) -> None:
        """Returns when it is in the database, or after a moment."""
        self._environments.add(environment)
        if not delivery.tallies:
            self._metrics.event_delivery("nothing")
            return
        done = asyncio.get_running_loop().create_future()
        self._held.append((delivery, environment, done))
        self._size += delivery.size
        self._something.set()
        await asyncio.wait([done], timeout=self._acknowledge_seconds)

    # — and go to the database —

    async def _write_forever(self) -> None:
        while True:
            await self._something.wait()
            await asyncio.sleep(GATHER_SECONDS)
            self._something.clear()
            try:
                await self._write()
            except StoreUnavailable as error:
                log.warning("events_held", deliveries=len(self._held), numbers=self._size, error=str(error))
                self._something.set()
                await asyncio.sleep(RETRY_SECONDS)

    async def _write(self) -> None:
        """Raises StoreUnavailable; what it was about is still held then, and may be in the database."""
        for environment, missed in list(self._missed.items()):
            await self._store.note_gap(environment, missed)
            self._missed[environment] -= missed
            if not self._missed[environment]:
                del self._missed[environment]
        while self._held:
            batch = self._next()
            try:
                new = await self._store.count([delivery for delivery, _, _ in batch])
            except StoreUnavailable:
                raise
            except Exception:
                # What the database will never take must not keep everything else from it.
                log.exception("events_not_counted", deliveries=len(batch))
                self._let_go(batch)
                for _, environment, _ in batch:
                    self.refuse(environment)
                continue
            self._let_go(batch)
            self._metrics.event_delivery("counted", new)
            self._metrics.event_delivery("repeated", len(batch) - new)

    def _next(self) -> list[tuple[Delivery, str, asyncio.Future[None]]]:
        """Those that came first; one at least, however large."""
        sizes = accumulate(delivery.size for delivery, _, _ in self._held)
        return self._held[: max(1, sum(1 for _ in takewhile(lambda size: size <= AT_ONCE, sizes)))]

    def _let_go(self, batch: list[tuple[Delivery, str, asyncio.Future[None]]]) -> None:
        del self._held[: len(batch)]
        self._size -= sum(delivery.size for delivery, _, _ in batch)
        self._metrics.events_held(self._size)
        for _, _, done in batch:
            if not done.done():
                done.set_result(None)

    # — what is counted —

    async def _look_forever(self) -> None:
        while True:
            await self._quietly(self.look)
            if self._clock.monotonic() - self._forgot_at > FORGET_SECONDS:
                self._forgot_at = self._clock.monotonic()
                await self._quietly(self._forget)
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Ask the database what is to be counted. Raises StoreUnavailable."""
        asked_at = self._clock.monotonic()
        found = frozenset(await self._store.watches())
        if found - self._watches and asked_at - self._looked_at > COUNTED_FROM_SECONDS - LOOK_SECONDS:
            # These were asked for while the database was out of reach from here: they were not counted in time.
            for environment in self._environments:
                self._miss(environment)
        self._looked_at = asked_at
        if self.wanted is None or found != self._watches:
            self._watches, self.wanted = found, wanted(found)

    async def _forget(self) -> None:
        await self._store.forget(counts_seconds=self._kept_seconds, deliveries_seconds=DELIVERIES_KEPT_SECONDS)

    async def _quietly(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except StoreUnavailable as error:
            log.debug("events_wait_for_database", error=str(error))
        except Exception:
            log.exception("events_job_failed")
