"""The stream of another server of flags, followed as an SDK follows it: for ever, and patiently.

Whoever it is for is told of every event in order, and of whether the stream is there.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import aiohttp
import structlog

from controller.delivery.server_events import ServerEvent, ServerEvents, TooLong
from controller.ports import Clock

log = structlog.get_logger()

CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 300.0
"""After so long without as much as a comment a stream is dead: LaunchDarkly's own SDKs wait as long."""

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
HEALTHY_SECONDS = 60.0
"""A stream that lasted so long is begun anew at once, not after the pauses before it."""

USER_AGENT = "Rampart"


class Garbled(Exception):
    """An event that cannot be read; says why. What was known before stands, and everything is asked for anew."""


Take = Callable[[ServerEvent], Awaitable[None]]
"""Takes up one event. Raises Garbled."""


class Upstream:
    """`address` is that of the stream and `key` what opens it. `chance` gives numbers from 0 to 1.

    `begin` is called before each connection, `take` with each of its events; `present` hears whether flags come.
    """

    def __init__(
        self,
        address: str,
        key: str,
        *,
        take: Take,
        begin: Callable[[], None],
        present: Callable[[bool], None],
        clock: Clock,
        chance: Callable[[], float],
        first_pause_seconds: float = FIRST_PAUSE_SECONDS,
        silence_seconds: float = SILENCE_SECONDS,
    ) -> None:
        self._address = address
        self._headers = {"Authorization": key, "Accept": "text/event-stream", "User-Agent": USER_AGENT}
        self._take = take
        self._begin = begin
        self._present = present
        self._clock = clock
        self._chance = chance
        self._first_pause_seconds = first_pause_seconds
        self._silence_seconds = silence_seconds
        self._failures = 0
        self._anew = asyncio.Event()
        self._following: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._following = asyncio.create_task(self._follow())

    def resync(self) -> None:
        """Ask for everything anew, and at once. Waits for nothing."""
        self._anew.set()

    async def close(self) -> None:
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait([self._following])

    async def _follow(self) -> None:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=self._silence_seconds)
        async with aiohttp.ClientSession(timeout=timeout, headers=self._headers) as session:
            while True:
                began = self._clock.monotonic()
                problem = await self._once(session)
                self._present(False)
                lasted = self._clock.monotonic() - began
                await self._wait(problem, lasted)

    async def _once(self, session: aiohttp.ClientSession) -> str | None:
        """Until the stream ends: why; None when everything is wanted anew."""
        self._anew.clear()
        self._begin()
        listening = asyncio.create_task(self._listen(session))
        asked = asyncio.create_task(self._anew.wait())
        try:
            await asyncio.wait([listening, asked], return_when=asyncio.FIRST_COMPLETED)
            return listening.result() if listening.done() else None
        finally:
            for task in (listening, asked):
                task.cancel()
            await asyncio.wait([listening, asked])

    async def _listen(self, session: aiohttp.ClientSession) -> str:
        """Why the stream ended. A fault of ours in taking an event up ends it, too, and is begun again."""
        try:
            async with session.get(self._address) as response:
                if response.status != 200:
                    return f"it answered {response.status}"
                events = ServerEvents()
                async for chunk in response.content.iter_any():
                    for event in events.feed(chunk):
                        await self._take(event)
                        self._present(True)
        except (aiohttp.ClientError, OSError, TimeoutError, Garbled, TooLong) as error:
            return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        except Exception as error:
            log.exception("upstream_event_failed")
            return type(error).__name__
        return "it ended"

    async def _wait(self, problem: str | None, lasted: float) -> None:
        """Longer after each failure in a row, and never all at the same moment."""
        if problem is None:
            # Asked anew: at once, unless that was asked a moment ago.
            self._anew.clear()
            self._failures = 0
            pause = 0.0 if lasted >= self._first_pause_seconds else self._first_pause_seconds
        else:
            self._failures = 1 if lasted >= HEALTHY_SECONDS else self._failures + 1
            pause = min(LONGEST_PAUSE_SECONDS, self._first_pause_seconds * 2 ** min(self._failures - 1, 10))
            log.warning("upstream_lost", address=self._address, why=problem, failures=self._failures)
        with suppress(TimeoutError):
            async with asyncio.timeout(pause * (0.5 + self._chance() / 2)):
                await self._anew.wait()  # whoever wants everything anew does not wait for the end of a pause
