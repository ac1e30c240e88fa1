"""Work that many clients ask for at once, one piece in each turn of the event loop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

MAX_WAITING = 2_000


class Turns:
    """Whatever else is ready, a kill above all, waits for one piece of work and not for a crowd of them."""

    def __init__(self, max_waiting: int = MAX_WAITING) -> None:
        self._lock = asyncio.Lock()
        self._max_waiting = max_waiting
        self._waiting = 0

    @property
    def crowded(self) -> bool:
        """Too many are waiting already: refuse, so that those come to an end."""
        return self._waiting >= self._max_waiting

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        self._waiting += 1
        try:
            async with self._lock:
                yield
                await asyncio.sleep(0)
        finally:
            self._waiting -= 1
