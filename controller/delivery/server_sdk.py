"""The endpoints of LaunchDarkly's server-side SDKs, as plain ASGI: one pre-encoded frame serves all streams.

Answers are chosen by what SDKs do with them. On 401 some give up for the life of the process, so 401 is said
only when it is certain; as long as keys or flags are not loaded everybody gets 503 and comes back in seconds.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog
from litestar.handlers import ASGIRouteHandler, asgi
from litestar.types import Receive, Scope, Send

from controller.delivery.connections import cut_off
from controller.delivery.keys import SdkKeyBook
from controller.ports import Clock
from controller.snapshot import FlagBoard, Subscription

log = structlog.get_logger()

MAX_STREAMS = 10_000
MAX_EVENTS_BYTES = 5 * 1024 * 1024
RETRY_AFTER_SECONDS = 5
HEARTBEAT_SECONDS = 25.0
"""SDKs take a stream for dead after 300 s of silence, many proxies after 60 s."""

SEND_SECONDS = 30.0
"""How long one frame may wait for a client that does not read."""

HEARTBEAT = b":\n\n"
TEXT = (b"content-type", b"text/plain; charset=utf-8")

Header = tuple[bytes, bytes]
Serve = Callable[[str, Scope, Receive, Send], Awaitable[None]]
"""Serves one request whose key is known: (environment, scope, receive, send)."""


class ServerSdkDoor:
    """`open_streams` is how many streams are served now; `event_posts` how many deliveries of events came in."""

    def __init__(
        self,
        board: FlagBoard,
        keys: SdkKeyBook,
        clock: Clock,
        *,
        max_streams: int = MAX_STREAMS,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        send_seconds: float = SEND_SECONDS,
    ) -> None:
        self.open_streams = 0
        self.event_posts = 0
        self._board = board
        self._keys = keys
        self._clock = clock
        self._max_streams = max_streams
        self._heartbeat_seconds = heartbeat_seconds
        self._send_seconds = send_seconds

    def handlers(self) -> list[ASGIRouteHandler]:
        return [
            self._endpoint("/all", (b"GET", b"HEAD"), self._stream),
            self._endpoint("/sdk/latest-all", (b"GET", b"HEAD"), self._latest),
            self._endpoint("/bulk", (b"POST",), self._events),
            self._endpoint("/diagnostic", (b"POST",), self._events),
        ]

    def _endpoint(self, path: str, methods: tuple[bytes, ...], serve: Serve) -> ASGIRouteHandler:
        allow = (b"allow", b", ".join((*methods, b"OPTIONS")))

        async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
            method = str(scope.get("method")).encode()
            authorization = _header(scope, b"authorization")
            if method == b"OPTIONS":
                await _answer(send, 204, allow)
            elif method not in methods:
                await _answer(send, 405, allow, TEXT, body=b"method not allowed\n")
            elif not (self._keys.loaded and self._board.ready):
                await _busy(send, b"SDK keys and flags are not loaded yet; try again\n")
            elif (environment := self._keys.environment_of(authorization)) is None:
                await _answer(send, 401, TEXT, body=b"unknown SDK key; make one with `rampart sdk-key create`\n")
            else:
                await serve(environment, scope, receive, send)

        return asgi(path, copy_scope=True)(endpoint)

    # — streaming —

    async def _stream(self, environment: str, scope: Scope, receive: Receive, send: Send) -> None:
        headers = (
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-cache"),
            (b"x-accel-buffering", b"no"),
        )
        if scope.get("method") == "HEAD":
            await _answer(send, 200, *headers)
        elif self.open_streams >= self._max_streams:
            log.warning("stream_refused", environment=environment, open_streams=self.open_streams)
            await _busy(send, b"too many streams are open on this replica; try again\n")
        else:
            async with self._subscription(environment, receive) as subscription:
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                await self._pump(subscription, environment, scope, send)

    @asynccontextmanager
    async def _subscription(self, environment: str, receive: Receive) -> AsyncIterator[Subscription]:
        began = self._clock.monotonic()
        self.open_streams += 1
        subscription = self._board.subscribe(environment)
        watch = asyncio.create_task(_end_on_disconnect(receive, subscription))
        try:
            yield subscription
        finally:
            self.open_streams -= 1
            self._board.unsubscribe(environment, subscription)
            watch.cancel()
            seconds = round(self._clock.monotonic() - began, 3)
            log.debug("stream_closed", environment=environment, open_seconds=seconds)

    async def _pump(self, subscription: Subscription, environment: str, scope: Scope, send: Send) -> None:
        """Until the board, the client, the key or a client's slowness ends it."""
        authorization = _header(scope, b"authorization")
        try:
            # A key that was revoked stops reading with the next frame or heartbeat.
            while self._keys.environment_of(authorization) == environment:
                frame = await self._frame_or_heartbeat(subscription)
                if frame is None:
                    break
                async with asyncio.timeout(self._send_seconds):
                    await _part(send, frame, more=True)
            async with asyncio.timeout(self._send_seconds):
                await _part(send, b"", more=False)
        except TimeoutError:
            log.warning("stream_too_slow", environment=environment, waited_seconds=self._send_seconds)
            cut_off(scope)

    async def _frame_or_heartbeat(self, subscription: Subscription) -> bytes | None:
        try:
            async with asyncio.timeout(self._heartbeat_seconds):
                return await subscription.frame()
        except TimeoutError:
            return HEARTBEAT

    # — polling and events —

    async def _latest(self, environment: str, scope: Scope, receive: Receive, send: Send) -> None:
        snapshot = self._board.snapshot(environment)
        headers = ((b"etag", snapshot.etag.encode()), (b"cache-control", b"no-cache"))
        if _matches(_header(scope, b"if-none-match"), snapshot.etag):
            await _answer(send, 304, *headers)
        else:
            await _answer(send, 200, (b"content-type", b"application/json"), *headers, body=snapshot.body)

    async def _events(self, environment: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Taken in and counted, not kept. The server's Date header is what SDKs set their debugging clock by."""
        self.event_posts += 1
        if await _drained(receive, MAX_EVENTS_BYTES):
            await _answer(send, 202)
        else:
            # Not 413: that would make SDKs stop sending events for good.
            await _answer(send, 400, (b"connection", b"close"), TEXT, body=b"more than 5 MB of events at once\n")


def handlers(board: FlagBoard, keys: SdkKeyBook, clock: Clock) -> list[ASGIRouteHandler]:
    return ServerSdkDoor(board, keys, clock).handlers()


def _header(scope: Scope, name: bytes) -> str:
    values: list[bytes] = [value for key, value in scope.get("headers", []) if key == name]
    return values[0].decode("latin-1") if values else ""


def _matches(if_none_match: str, etag: str) -> bool:
    offered = {one.strip().removeprefix("W/") for one in if_none_match.split(",")}
    return etag in offered or "*" in offered


async def _end_on_disconnect(receive: Receive, subscription: Subscription) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass  # a request body, which a stream has no use for
    subscription.end()


async def _drained(receive: Receive, limit: int) -> bool:
    """Read a request body and forget it; False when it is longer than `limit` bytes."""
    size = 0
    while size <= limit:
        message = await receive()
        if message["type"] != "http.request":
            return True
        size += len(message["body"])
        if not message["more_body"]:
            break
    return size <= limit


async def _busy(send: Send, why: bytes) -> None:
    await _answer(send, 503, (b"retry-after", str(RETRY_AFTER_SECONDS).encode()), TEXT, body=why)


async def _answer(send: Send, status: int, *headers: Header, body: bytes = b"") -> None:
    length = [] if status in (204, 304) else [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *length]})
    await _part(send, body, more=False)


async def _part(send: Send, body: bytes, *, more: bool) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})
