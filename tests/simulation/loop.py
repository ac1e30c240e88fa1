"""An event loop whose time is virtual: it jumps to the next timer as soon as nothing is left to do now.

Nothing in a simulation reads the real clock or waits for a thread, so a run is a function of its seed.
"""

import asyncio
import selectors
from collections.abc import Mapping
from heapq import heappop, heappush
from random import Random
from typing import Any

RESOLUTION_SECONDS = 1e-9


class Deadlock(AssertionError):
    """Nothing can ever happen again, and the run is not over."""


class NoFiles(selectors.BaseSelector):
    """There are no files to wait for; asyncio registers the end of a pipe of its own all the same."""

    def __init__(self) -> None:
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._keys.setdefault(fileobj, selectors.SelectorKey(fileobj, -1, events, data))

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys


class VirtualLoop(asyncio.SelectorEventLoop):
    """`chance` moves every timer by up to a microsecond: what is due at the same time comes in any order.

    Timers and turns are done here, without what a loop with files, threads and debugging needs: that is a fifth of
    the time that a simulation takes.
    """

    def __init__(self, chance: Random) -> None:
        self._passed = 0.0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._count = 0
        self._chance = chance.random
        super().__init__(NoFiles())

    def time(self) -> float:
        return self._passed

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._passed + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        when += self._chance() * 1e-6
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self._count += 1
        heappush(self._timers, (when, self._count, timer))
        return timer

    def _run_once(self) -> None:
        ready, timers = self._ready, self._timers  # type: ignore[attr-defined]
        if not ready and not self._stopping:  # type: ignore[attr-defined]
            while timers and timers[0][2].cancelled():
                heappop(timers)
            if not timers:
                raise Deadlock("every task waits for something that no timer will ever bring")
            self._passed += max(timers[0][0] - self._passed, 0.0)
        now = self._passed + RESOLUTION_SECONDS
        while timers and timers[0][0] < now:
            ready.append(heappop(timers)[2])
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle.cancelled():
                handle._run()
