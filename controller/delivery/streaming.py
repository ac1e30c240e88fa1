"""Server-sent events to many clients: bounded in number, kept alive, ended with the key, cut off when too slow."""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

import structlog
from litestar.types import Receive, Scope, Send

from controller.admission import cut_off
from controller.delivery.answers import answer, busy, part
from controller.ports import Clock

log = structlog.get_logger()

MAX_STREAMS = 10_000
HEARTBEAT_SECONDS = 25.0
"""SDKs take a stream for dead after 300 s of silence, many proxies after 60 s."""

SEND_SECONDS = 30.0
"""How long one frame may wait for a client that does not read."""

HEARTBEAT = b":\n\n"
HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)


class Feed(Protocol):
    """What one stream has to say. Ends when it is told to, or by itself."""

    async def frame(self) -> bytes | None:
        """The next frame, or None at the end."""

    def end(self) -> None: ...


class Streams:
    """All streams of one kind; `open` is how many are served now, `open_in` how many of them by environment."""

    def __init__(
        self,
        clock: Clock,
        *,
        max_streams: int = MAX_STREAMS,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        send_seconds: float = SEND_SECONDS,
    ) -> None:
        self.open = 0
        self.open_in: Counter[str] = Counter()
        self._clock = clock
        self._max_streams = max_streams
        self._heartbeat_seconds = heartbeat_seconds
        self._send_seconds = send_seconds

    async def serve(
        self,
        environment: str,
        listening: AbstractContextManager[Feed],
        admitted: Callable[[], bool],
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        """Until the feed, the client, the key (`admitted` turns False) or a client's slowness ends it."""
        if scope.get("method") == "HEAD":
            await answer(send, 200, *HEADERS)
            return
        if self.open >= self._max_streams:
            log.warning("stream_refused", environment=environment, open_streams=self.open)
            await busy(send, b"too many streams are open on this replica; try again\n")
            return
        began = self._clock.monotonic()
        self.open += 1
        self.open_in[environment] += 1
        try:
            with listening as feed:
                watch = asyncio.create_task(_end_on_disconnect(receive, feed))
                try:
                    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
                    await self._pump(environment, feed, admitted, scope, send)
                finally:
                    watch.cancel()
        finally:
            self.open -= 1
            self.open_in[environment] -= 1
            seconds = round(self._clock.monotonic() - began, 3)
            log.debug("stream_closed", environment=environment, open_seconds=seconds)

    async def _pump(
        self, environment: str, feed: Feed, admitted: Callable[[], bool], scope: Scope, send: Send
    ) -> None:
        try:
            # A key that was revoked stops reading with the next frame or heartbeat.
            while admitted():
                frame = await self._frame_or_heartbeat(feed)
                if frame is None:
                    break
                async with asyncio.timeout(self._send_seconds):
                    await part(send, frame, more=True)
            async with asyncio.timeout(self._send_seconds):
                await part(send, b"", more=False)
        except TimeoutError:
            log.warning("stream_too_slow", environment=environment, waited_seconds=self._send_seconds)
            cut_off(scope)

    async def _frame_or_heartbeat(self, feed: Feed) -> bytes | None:
        try:
            async with asyncio.timeout(self._heartbeat_seconds):
                return await feed.frame()
        except TimeoutError:
            return HEARTBEAT


async def _end_on_disconnect(receive: Receive, feed: Feed) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass  # a request body, which a stream has no use for
    feed.end()
