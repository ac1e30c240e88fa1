"""Events of SDKs on their way to the server that they are meant for. Applications never wait for it.

What finds no room is dropped and counted: events are worth less than the memory of whoever forwards them.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import aiohttp
import structlog
from litestar.types import Scope

log = structlog.get_logger()

MAX_WAITING_BYTES = 32 * 1024 * 1024
MAX_WAITING = 2_000
AT_ONCE = 4
ATTEMPT_SECONDS = 10.0
AGAIN_AFTER_SECONDS = 1.0
"""SDKs send a delivery twice, that far apart; so does this."""

FLUSH_SECONDS = 2.0
PASSED_ON = frozenset({b"authorization", b"content-type", b"content-encoding", b"user-agent"})
PASSED_ON_PREFIX = b"x-launchdarkly-"
SAFE_TO_REPEAT = frozenset({408, 429})

Result = Literal["forwarded", "refused", "failed", "dropped"]
"""`refused`: the server does not want it. `failed`: it could not be reached, twice. `dropped`: no room for it."""


class Delivery(NamedTuple):
    path: str
    headers: Sequence[tuple[str, str]]
    body: bytes


class Forwarder:
    """To one server. `told` hears what became of each delivery."""

    def __init__(
        self,
        address: str,
        told: Callable[[Result, int], None],
        *,
        again_after_seconds: float = AGAIN_AFTER_SECONDS,
    ) -> None:
        self._address = address.rstrip("/")
        self._told = told
        self._again_after_seconds = again_after_seconds
        self._waiting: asyncio.Queue[Delivery] = asyncio.Queue()
        self._bytes = 0
        self._receiving = 0
        self._workers: list[asyncio.Task[None]] = []

    # — what comes in —

    def reserve(self, size: int) -> bool:
        """Whether a body of that size may be read: there is room for it. To be released after it was read."""
        if self._bytes + self._receiving + size > MAX_WAITING_BYTES or self._waiting.qsize() >= MAX_WAITING:
            self.drop()
            return False
        self._receiving += size
        return True

    def release(self, size: int) -> None:
        self._receiving -= size

    def drop(self) -> None:
        self._told("dropped", 1)

    def take(self, scope: Scope, body: bytes) -> None:
        """Waits for nothing."""
        headers = [
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"] if _goes(name)
        ]
        self._bytes += len(body)
        self._waiting.put_nowait(Delivery(scope["path"], headers, body))

    # — what goes out —

    def start(self) -> None:
        self._workers = [asyncio.create_task(self._work()) for _ in range(AT_ONCE)]

    async def close(self) -> None:
        """What is left gets a moment to go; the rest is dropped."""
        try:
            async with asyncio.timeout(FLUSH_SECONDS):
                await self._waiting.join()
        except TimeoutError:
            self._told("dropped", self._waiting.qsize())
        for worker in self._workers:
            worker.cancel()
        if self._workers:
            await asyncio.wait(self._workers)

    async def _work(self) -> None:
        timeout = aiohttp.ClientTimeout(total=ATTEMPT_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session:
            while True:
                delivery = await self._waiting.get()
                try:
                    self._told(await self._deliver(session, delivery), 1)
                finally:
                    self._bytes -= len(delivery.body)
                    self._waiting.task_done()

    async def _deliver(self, session: aiohttp.ClientSession, delivery: Delivery) -> Result:
        result = await self._attempt(session, delivery)
        if result == "failed":
            await asyncio.sleep(self._again_after_seconds)
            result = await self._attempt(session, delivery)
        return result

    async def _attempt(self, session: aiohttp.ClientSession, delivery: Delivery) -> Result:
        try:
            async with session.post(
                self._address + delivery.path, data=delivery.body, headers=delivery.headers, allow_redirects=False
            ) as response:
                return _result(response.status)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            log.debug("events_not_forwarded", error=type(error).__name__)
            return "failed"


def _goes(name: bytes) -> bool:
    return name in PASSED_ON or name.startswith(PASSED_ON_PREFIX)


def _result(status: int) -> Result:
    if status < 300:
        return "forwarded"
    return "failed" if status >= 500 or status in SAFE_TO_REPEAT else "refused"
