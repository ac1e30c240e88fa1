"""One stream per tab: whatever part of its page changed is sent, rendered once for all who look at the same.

Bounded: so many streams, and of each reader only the newest of every part is kept until it is read.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager

import structlog

from controller.errors import RampartError
from controller.web.screens import Screen, part_digest

log = structlog.get_logger()

MAX_STREAMS = 500
AGAIN_SECONDS = 2.0
HEARTBEAT_SECONDS = 15.0
HEARTBEAT = b":\n\n"

Look = Callable[[], Awaitable[Screen]]


class Reading:
    """What one tab was not sent yet, by part. `began`: it was told of everything once."""

    def __init__(self) -> None:
        self._waiting: dict[str, str] = {}
        self._there = asyncio.Event()
        self.began = False
        self.ended = False

    def offer(self, changed: Mapping[str, str]) -> None:
        self._waiting |= changed
        if changed:
            self._there.set()

    def end(self) -> None:
        self.ended = True
        self._there.set()

    async def next(self, within: float) -> dict[str, str]:
        """Empty after that time, and at the end."""
        try:
            async with asyncio.timeout(within):
                await self._there.wait()
        except TimeoutError:
            return {}
        self._there.clear()
        waiting, self._waiting = self._waiting, {}
        return waiting


class Topic:
    """One page as some people look at it; looked at again and again as long as anybody does."""

    def __init__(self, look: Look) -> None:
        self.readers: set[Reading] = set()
        self._look = look
        self._shown: dict[str, str] = {}
        self._joined = asyncio.Event()
        self.task = asyncio.ensure_future(self._go_on())

    def join(self, reader: Reading) -> None:
        """It is told of nothing that was looked at before: its page may show something newer."""
        self.readers.add(reader)
        self._joined.set()

    async def _go_on(self) -> None:
        while True:
            self._joined.clear()
            pause = await self._look_once()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._joined.wait()

    async def _look_once(self) -> float:
        """Seconds until the next time. What cannot be shown now stays as it is, and is tried again."""
        present = [*self.readers]
        try:
            screen = await self._look()
        except RampartError as error:
            log.info("page_not_renewed", error=str(error))
            return AGAIN_SECONDS
        except Exception as error:
            log.exception("page_not_renewed", error=f"{type(error).__name__}: {error}")
            return AGAIN_SECONDS
        changed = {name: part for name, part in screen.parts.items() if self._shown.get(name) != part}
        self._shown |= changed
        for reader in present:
            reader.offer(changed if reader.began else self._shown)
            reader.began = True
        return screen.every_seconds


class Live:
    def __init__(self, *, max_streams: int = MAX_STREAMS) -> None:
        self._max_streams = max_streams
        self._topics: dict[str, Topic] = {}
        self._open = 0
        self._closed = False

    @property
    def full(self) -> bool:
        return self._open >= self._max_streams or self._closed

    @contextmanager
    def reading(self, topic: str, look: Look) -> Iterator[Reading]:
        reader = Reading()
        self._open += 1
        found = self._topics.get(topic)
        if found is None or found.task.done():
            found = self._topics[topic] = Topic(look)
        found.join(reader)
        try:
            yield reader
        finally:
            self._open -= 1
            found.readers.discard(reader)
            if not found.readers:
                found.task.cancel()
                if self._topics.get(topic) is found:
                    del self._topics[topic]

    async def frames(
        self, topic: str, look: Look, seen: str, live: Callable[[], bool]
    ) -> AsyncGenerator[bytes, None]:
        """`seen` is the digest of what the page shows already. Ends once `live` says that the session did."""
        known = set(seen.split("."))
        with self.reading(topic, look) as reader:
            yield HEARTBEAT
            while not self._closed and not reader.ended and live():
                changed = await reader.next(HEARTBEAT_SECONDS)
                frames = [_frame(name, part) for name, part in changed.items() if _digest(part) not in known]
                known = set() if frames else known
                yield b"".join(frames) or HEARTBEAT

    def close(self) -> None:
        """At shutdown: every stream ends."""
        self._closed = True
        for topic in self._topics.values():
            for reader in topic.readers:
                reader.end()


def _digest(part: str) -> str:
    return f"{part_digest(part):08x}"


def _frame(name: str, part: str) -> bytes:
    lines = "".join(f"data: {line}\n" for line in part.splitlines())
    return f"event: {name}\n{lines}\n".encode()
