"""Turning flags off: those that are killed within a few milliseconds of each other go in one request."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from msgspec import Struct

from controller.errors import NotFound, Refused

COLLECT_SECONDS = 0.004
MOST_AT_ONCE = 200

TurnOff = Callable[[str, Sequence[str]], Awaitable[None]]
"""Environment and keys. Raises, and then some of them may be off."""


class Batch(Struct, eq=False):
    keys: dict[str, None]
    sent: "asyncio.Task[Mapping[str, Exception | None]]"


class Switch:
    """`turn_off` is asked for all keys of a batch; where that fails, for each of them by itself."""

    def __init__(self, turn_off: TurnOff) -> None:
        self._turn_off = turn_off
        self._open: dict[str, Batch] = {}

    async def off(self, environment: str, key: str) -> None:
        """Raises what turning this one off raised, never what is wrong with another."""
        batch = self._open.get(environment)
        if batch is None or (key not in batch.keys and len(batch.keys) >= MOST_AT_ONCE):
            batch = self._open[environment] = self._begin(environment)
        batch.keys[key] = None
        # Shielded: who gives up waiting must not take the others' request along.
        results = await asyncio.shield(batch.sent)
        if error := results[key]:
            raise error

    def _begin(self, environment: str) -> Batch:
        keys: dict[str, None] = {}
        return Batch(keys, asyncio.create_task(self._send_soon(environment, keys)))

    async def _send_soon(self, environment: str, keys: dict[str, None]) -> Mapping[str, Exception | None]:
        await asyncio.sleep(COLLECT_SECONDS)
        batch = self._open.get(environment)
        if batch is not None and batch.keys is keys:
            del self._open[environment]
        together = list(keys)
        if len(together) > 1:
            error = await self._try(environment, together)
            if not isinstance(error, (Refused, NotFound)):
                return dict.fromkeys(together, error)
        # One unknown key makes Unleash refuse them all.
        results = await asyncio.gather(*(self._try(environment, [key]) for key in together))
        return dict(zip(together, results, strict=True))

    async def _try(self, environment: str, keys: Sequence[str]) -> Exception | None:
        try:
            await self._turn_off(environment, keys)
        except Exception as error:  # noqa: BLE001 - handed to whoever asked for it
            return error
        return None
