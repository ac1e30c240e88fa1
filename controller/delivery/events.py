"""Events of SDKs: read in a thread of their own, counted, and acknowledged once they are kept.

SDKs stop sending events for good on most answers that are errors: only 400, 408, 429 and 5xx are safe.
"""

import asyncio
import hashlib
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from types import MappingProxyType
from typing import NamedTuple

from litestar.types import Receive, Scope, Send

from controller.delivery import event_bodies, event_counts
from controller.delivery.answers import TEXT, answer, body_of, busy, header
from controller.delivery.entrance import CLIENT, ID_PARAMETER, MOBILE, SERVER, Endpoint, Entrance
from controller.delivery.event_bodies import MAX_BYTES, Garbled, TooLarge
from controller.delivery.event_book import EventBook
from controller.delivery.event_counts import Counts, Wanted
from controller.delivery.flag_history import FlagHistory, View
from controller.delivery.forwarding import Forwarder
from controller.domain.catalogue import SdkKey
from controller.domain.tally import Delivery
from controller.ports import Clock
from controller.snapshot import FlagBoard

MAX_BYTES_AT_ONCE = 128 * 1024 * 1024
"""Of all deliveries that are being received or wait to be read."""

RECEIVE_SECONDS = 30.0
CLOSE = (b"connection", b"close")
TOO_LARGE = f"more than {MAX_BYTES:,} bytes of events at once\n".encode()
"""Said with 400 and not with 413, which would make SDKs stop sending events for good."""


class Reading(NamedTuple):
    """What one delivery is counted by: all of it as it was when it came in."""

    key: SdkKey
    wanted: Wanted
    view: View
    book: EventBook

    @property
    def environment(self) -> str:
        return self.key.environment


class EventsDoor:
    """Without a book nobody asks for events: they are taken in and forgotten.

    Events of an environment in `forwarders` are another server's: they are passed on, and not counted here.
    `posts` is how many deliveries of events came in.
    """

    def __init__(
        self,
        entrance: Entrance,
        board: FlagBoard,
        clock: Clock,
        book: EventBook | None,
        forwarders: Mapping[str, Forwarder] = MappingProxyType({}),
    ) -> None:
        self.posts = 0
        self._forwarders = forwarders
        self._entrance = entrance
        self._history = FlagHistory(board) if book else None
        self._clock = clock
        self._book = book
        self._bytes = 0
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="events")

    def handlers(self) -> list[Endpoint]:
        paths = {
            "/bulk": (SERVER, self._events),
            "/diagnostic": (SERVER, self._diagnostic),
            "/mobile": (MOBILE, self._events),
            "/mobile/events/bulk": (MOBILE, self._events),
            "/mobile/events/diagnostic": (MOBILE, self._diagnostic),
            f"/events/bulk/{{{ID_PARAMETER}}}": (CLIENT, self._events),
            f"/events/diagnostic/{{{ID_PARAMETER}}}": (CLIENT, self._diagnostic),
        }
        return [
            self._entrance.endpoint(path, (b"POST",), credential, serve)
            for path, (credential, serve) in paths.items()
        ]

    async def _diagnostic(self, key: SdkKey, scope: Scope, receive: Receive, send: Send) -> None:
        """How an SDK is configured, for its vendor."""
        self.posts += 1
        forwarder = self._forwarders.get(key.environment)
        if forwarder is None:
            await _drained(receive, send)
        else:
            await _forwarded(forwarder, scope, receive, send)

    async def _events(self, key: SdkKey, scope: Scope, receive: Receive, send: Send) -> None:
        """The server's Date header, which is on every answer, is what SDKs set their debugging clock by."""
        self.posts += 1
        book, size = self._book, _announced_bytes(scope)
        if forwarder := self._forwarders.get(key.environment):
            await _forwarded(forwarder, scope, receive, send)
        elif book is None or self._history is None:
            await _drained(receive, send)
        elif book.wanted is None or not book.has_room or self._bytes + size > MAX_BYTES_AT_ONCE:
            book.refuse(key.environment)
            await busy(send, b"no room for events now; try again\n")
        else:
            view = self._history.view(key.environment)
            await self._take(Reading(key, book.wanted, view, book), size, scope, receive, send)

    async def _take(self, reading: Reading, size: int, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with self._reserved(size):
                body = await _received(receive)
                delivery = await self._read(reading, scope, body)
        except TooLarge:
            reading.book.refuse(reading.environment)
            await answer(send, 400, CLOSE, TEXT, body=TOO_LARGE)
        except TimeoutError:
            reading.book.refuse(reading.environment)
            await answer(send, 408, CLOSE, TEXT, body=b"the body did not arrive in time\n")
        except Garbled as error:
            reading.book.garbled(reading.environment)
            await answer(send, 400, TEXT, body=f"{error}\n".encode())
        else:
            await reading.book.keep(delivery, reading.environment)
            await answer(send, 202)

    @contextmanager
    def _reserved(self, size: int) -> Iterator[None]:
        self._bytes += size
        try:
            yield
        finally:
            self._bytes -= size

    async def _read(self, reading: Reading, scope: Scope, body: bytes) -> Delivery:
        encoding = header(scope, b"content-encoding").lower()
        arrived = self._clock.now().timestamp()
        counts, garbled = await asyncio.get_running_loop().run_in_executor(
            self._reader, _counted, body, encoding, reading, arrived
        )
        reading.book.read(reading.environment, counts, garbled)
        return Delivery(
            _identity(reading.environment, header(scope, b"x-launchdarkly-payload-id")), counts.tallies
        )


def _counted(body: bytes, encoding: str, reading: Reading, arrived: float) -> tuple[Counts, int]:
    events, garbled = event_bodies.events(event_bodies.unpacked(body, encoding))
    return event_counts.count(events, reading.key, reading.wanted, reading.view, arrived), garbled


async def _forwarded(forwarder: Forwarder, scope: Scope, receive: Receive, send: Send) -> None:
    """Taken in before anybody else has it: an application does not wait for the server behind us."""
    size = _announced_bytes(scope)
    if not forwarder.reserve(size):
        await _passed_over(receive)
        await answer(send, 202)
        return
    try:
        body = await body_of(receive, MAX_BYTES, RECEIVE_SECONDS)
        if body is not None:
            forwarder.take(scope, body)
    finally:
        forwarder.release(size)
    if body is None:
        forwarder.drop()
        await answer(send, 400, CLOSE, TEXT, body=TOO_LARGE)
    else:
        await answer(send, 202)


async def _passed_over(receive: Receive) -> None:
    """The body, without keeping any of it."""
    with suppress(TimeoutError):
        async with asyncio.timeout(RECEIVE_SECONDS):
            while (message := await receive())["type"] == "http.request" and message["more_body"]:
                pass


async def _drained(receive: Receive, send: Send) -> None:
    if await body_of(receive, MAX_BYTES) is None:
        await answer(send, 400, CLOSE, TEXT, body=TOO_LARGE)
    else:
        await answer(send, 202)


async def _received(receive: Receive) -> bytes:
    """Raises TooLarge, Garbled when the client left, and TimeoutError."""
    parts: list[bytes] = []
    size = 0
    async with asyncio.timeout(RECEIVE_SECONDS):
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise Garbled("the connection ended before the body did")
            parts.append(message["body"])
            size += len(message["body"])
            if size > MAX_BYTES:
                raise TooLarge
            if not message["more_body"]:
                return b"".join(parts)


def _announced_bytes(scope: Scope) -> int:
    """What the body may take; all there may be when it is not said."""
    said = header(scope, b"content-length")
    return min(int(said), MAX_BYTES) if said.isdecimal() else MAX_BYTES


def _identity(environment: str, payload_id: str) -> bytes:
    """The same for a delivery that is sent again, and never for two; sixteen bytes, however long the header."""
    if not payload_id:
        return uuid.uuid4().bytes
    return hashlib.blake2b(f"{environment}\0{payload_id}".encode(), digest_size=16).digest()
