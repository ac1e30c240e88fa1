"""Our writes to providers that are on their way: until they have ended, nothing that is read is proof."""

import asyncio
import math
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from controller.domain.plan import FlagRef
from controller.errors import ProviderUnavailable
from controller.ports import Clock


class InFlight:
    """The writes of this replica, by flag. One whose answer was lost counts until its deadline."""

    def __init__(self, *, clock: Clock, timeout_seconds: float) -> None:
        self._clock = clock
        self._timeout = timeout_seconds
        self._writes: defaultdict[FlagRef, set[asyncio.Event]] = defaultdict(set)
        self._unsettled: dict[FlagRef, float] = {}

    @contextmanager
    def write(self, flag: FlagRef) -> Iterator[None]:
        """Around the call of the provider. What that raises says whether the write may still land."""
        landed, began = asyncio.Event(), self._clock.monotonic()
        self._writes[flag].add(landed)
        try:
            yield
        except (ProviderUnavailable, TimeoutError, asyncio.CancelledError) as error:
            if not (isinstance(error, ProviderUnavailable) and error.not_applied):
                self._unsettled[flag] = began + self._timeout  # it may still land until its deadline
            raise
        finally:
            landed.set()
            self._writes[flag].discard(landed)
            if not self._writes[flag]:
                del self._writes[flag]

    def may_land(self, flag: FlagRef) -> bool:
        """Whether a write of ours is on its way, or its connection broke before it was answered."""
        return bool(self._writes.get(flag)) or self._unsettled.get(flag, -math.inf) > self._clock.monotonic()

    async def landed(self, flag: FlagRef) -> bool:
        """Whether writes of ours were in flight; they have ended now. Only a read after that proves anything."""
        in_flight = list(self._writes.get(flag, ()))
        for write in in_flight:
            await write.wait()
        return bool(in_flight)
