"""A door in front of a real HTTP server that loses, holds, cuts or refuses what passes.

It runs in the test's own event loop and forwards everything as it is; only `fault` and `held_write` change that.
`requests` counts what came to the door, `forwarded` what was let through, each as (method, path with query).
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from email.utils import formatdate
from typing import NamedTuple

import aiohttp
from aiohttp import web

from tests.contracts.provider_world import Fault, HeldWrite

READING = frozenset({"GET", "HEAD", "OPTIONS"})
# Between two connections these mean nothing; the length and the encoding are made anew.
OF_ONE_CONNECTION = frozenset(
    {
        "connection",
        "keep-alive",
        "transfer-encoding",
        "content-length",
        "content-encoding",
        "host",
        "te",
        "upgrade",
    }
)
STATUSES = {
    Fault.UNAUTHORIZED: 401,
    Fault.FORBIDDEN: 403,
    Fault.NOT_FOUND: 404,
    Fault.CONFLICT: 409,
    Fault.THROTTLED: 429,
    Fault.THROTTLED_UNTIL: 429,
    Fault.THROTTLED_BEFORE: 429,
    Fault.BROKEN: 500,
    Fault.AWAY: 503,
}
ERROR_BODY = b'{"name": "Fault", "message": "the door in front of the server says so"}'


class Request(NamedTuple):
    method: str
    path: str

    @property
    def writes(self) -> bool:
        return self.method not in READING


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


def retry_after(seconds: float) -> Mapping[str, str]:
    """As HTTP itself says it: a date, which may lie in the past."""
    return {"Retry-After": formatdate(math.ceil(time.time() + seconds), usegmt=True)}


class FaultyDoor:
    """`writes` tells requests that change something from those that only read.

    `reset_headers` makes the headers of a 429 that names a moment so many seconds ahead (or, below zero, gone by).
    """

    def __init__(
        self,
        behind: str,
        *,
        writes: Callable[[Request], bool] = lambda request: request.writes,
        reset_headers: Callable[[float], Mapping[str, str]] = retry_after,
    ) -> None:
        self.url = ""
        self.requests: list[Request] = []
        self.forwarded: list[Request] = []
        self._behind = behind.rstrip("/")
        self._writes = writes
        self._reset_headers = reset_headers
        self._fault: Fault | None = None
        self._held: HeldWrite | None = None
        self._over = asyncio.Event()
        self._passing: set[asyncio.Task[Answer]] = set()
        self._client: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator["FaultyDoor"]:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        # A compressed answer is passed on as plain text: half of it should be half a document.
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as self._client:
            try:
                yield self
            finally:
                self._over.set()
                await asyncio.gather(*self._passing, return_exceptions=True)
                await runner.cleanup()

    @asynccontextmanager
    async def fault(self, fault: Fault) -> AsyncIterator[None]:
        """Within it every request is answered like this; those that still hang at its end are broken off."""
        self._fault, self._over = fault, asyncio.Event()
        try:
            yield
        finally:
            self._fault = None
            self._over.set()

    @asynccontextmanager
    async def held_write(self) -> AsyncIterator[HeldWrite]:
        """Within it the next write waits before it is forwarded, even when its sender has given up by then."""
        held = self._held = HeldWrite()
        try:
            yield held
        finally:
            self._held = None
            held.let_go.set()

    async def _answer(self, incoming: web.Request) -> web.StreamResponse:
        request = Request(incoming.method, incoming.path_qs)
        self.requests.append(request)
        body, fault, writes = await incoming.read(), self._fault, self._writes(request)
        if fault is Fault.DOWN:
            return _broken_off(incoming)
        if fault is Fault.LOST_BEFORE and writes:
            return await self._silence(incoming)
        if fault in STATUSES and (writes or fault is not Fault.CONFLICT):
            return web.Response(status=STATUSES[fault], headers=self._headers(fault), body=ERROR_BODY)
        answer = await self._pass(request, incoming.headers, body, self._held if writes else None)
        if fault is Fault.LOST_AFTER and writes:
            return await self._silence(incoming)
        if fault is Fault.GATEWAY and writes:
            return web.Response(status=504, headers=self._headers(fault), body=ERROR_BODY)
        shown = answer.body[: len(answer.body) // 2] if fault is Fault.HALF else answer.body
        return web.Response(status=answer.status, headers=answer.headers, body=shown)

    async def _pass(
        self, request: Request, headers: Mapping[str, str], body: bytes, held: HeldWrite | None
    ) -> Answer:
        """What came through the door arrives, also when its sender has hung up meanwhile."""
        passing = asyncio.create_task(self._forward(request, headers, body, held))
        self._passing.add(passing)
        passing.add_done_callback(self._passing.discard)
        return await asyncio.shield(passing)

    async def _silence(self, incoming: web.Request) -> web.StreamResponse:
        await self._over.wait()
        return _broken_off(incoming)

    def _headers(self, fault: Fault) -> dict[str, str]:
        headers = {"Content-Type": "application/json"}
        if fault is Fault.THROTTLED_UNTIL:
            return headers | dict(self._reset_headers(1.0))
        if fault is Fault.THROTTLED_BEFORE:
            return headers | dict(self._reset_headers(-60.0))
        return headers

    async def _forward(
        self, request: Request, headers: Mapping[str, str], body: bytes, held: HeldWrite | None
    ) -> Answer:
        assert self._client is not None
        if held is not None:
            await held.wait()
        self.forwarded.append(request)
        async with self._client.request(
            request.method,
            self._behind + request.path,
            headers=_passed_on(headers),
            data=body or None,
            allow_redirects=False,
        ) as answer:
            return Answer(answer.status, _passed_on(answer.headers), await answer.read())


def _passed_on(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in headers.items() if name.lower() not in OF_ONE_CONNECTION}


def _broken_off(incoming: web.Request) -> web.StreamResponse:
    if incoming.transport is not None:
        incoming.transport.abort()
    return web.Response(status=502)
