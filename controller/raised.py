"""What was raised last, of every flag: kept in memory and on disk, so that it can be killed without a database.

Read from the audit log, where what all replicas raised stands, also by runs that ended since.
"""

import asyncio
from collections.abc import Iterable
from datetime import datetime

from controller.domain.plan import FlagRef
from controller.domain.selection import Raised
from controller.errors import StoreUnavailable
from controller.ports import Clock, Store


class RaisedBook:
    """`known_until`: when the database was last asked; None: not yet."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._latest: dict[FlagRef, Raised] = {}
        self._sequence = 0
        self.known_until: datetime | None = None

    def note(self, raised: Raised) -> None:
        known = self._latest.get(raised.flag)
        if known is None or known.at <= raised.at:
            self._latest[raised.flag] = raised

    def recall(self, latest: Iterable[Raised]) -> None:
        """From the disk."""
        for raised in latest:
            self.note(raised)

    def all(self) -> list[Raised]:
        return list(self._latest.values())

    def of(self, flag: FlagRef) -> Raised | None:
        return self._latest.get(flag)

    async def read_on(self) -> None:
        """What came since the last time. Raises StoreUnavailable."""
        now = self._clock.now()
        head, fresh = await self._store.raises_after(self._sequence)
        if head < self._sequence:
            # The database was failed over to a past, and goes on from there with other rows.
            head, fresh = await self._store.raises_after(0)
        for raised in fresh:
            self.note(raised)
        self._sequence, self.known_until = head, now

    async def read_on_within(self, seconds: float) -> bool:
        """False: the database did not answer in time."""
        try:
            async with asyncio.timeout(seconds):
                await self.read_on()
        except (StoreUnavailable, TimeoutError):
            return False
        return True
