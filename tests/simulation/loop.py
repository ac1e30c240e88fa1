"""An event loop whose time is virtual: it jumps to the next timer as soon as nothing is left to do now.

Nothing in a simulation reads the real clock or waits for a thread, so a run is a function of its seed.
"""

import asyncio
import selectors
from collections.abc import Mapping
from random import Random
from typing import Any


class Deadlock(AssertionError):
    """Nothing can ever happen again, and the run is not over."""


class NoFiles(selectors.BaseSelector):
    """Waits for no file: waiting is time that passes at once."""

    def __init__(self) -> None:
        self.passed = 0.0
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Deadlock("every task waits for something that no timer will ever bring")
        self.passed += max(timeout, 0.0)
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._keys.setdefault(fileobj, selectors.SelectorKey(fileobj, -1, events, data))

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys


class VirtualLoop(asyncio.SelectorEventLoop):
    """`chance` moves every timer by up to a microsecond: what is due at the same time comes in any order."""

    def __init__(self, chance: Random) -> None:
        self._files = NoFiles()
        self._chance = chance.random
        super().__init__(self._files)
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self._files.passed

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        return super().call_at(when + self._chance() * 1e-6, callback, *args, context=context)
