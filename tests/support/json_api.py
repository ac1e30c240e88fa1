"""An API that answers queries with JSON, as a test tells it to."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any, NamedTuple

from aiohttp import web


class Seen(NamedTuple):
    """A request as it came in. `body` is the JSON, None without one."""

    method: str
    path: str
    params: dict[str, str]
    headers: dict[str, str]
    body: Any


Handler = Callable[[Seen], Awaitable[web.StreamResponse] | web.StreamResponse]


class JsonApi:
    """`now`: what its clock shows, in the Date header."""

    def __init__(self, handle: Handler) -> None:
        self.now: Callable[[], datetime] = lambda: datetime.now(UTC)
        self.handle = handle
        self.seen: list[Seen] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        text = await request.text()
        body = json.loads(text) if text else None
        seen = Seen(request.method, request.path, dict(request.query), dict(request.headers), body)
        self.seen.append(seen)
        result = self.handle(seen)
        response = await result if isinstance(result, Awaitable) else result
        now = self.now()
        response.headers.setdefault("Date", format_datetime(now, usegmt=True))
        return response


@asynccontextmanager
async def json_api(handle: Handler) -> AsyncIterator[JsonApi]:
    api = JsonApi(handle)
    app = web.Application(client_max_size=8 * 1024**2)
    app.router.add_route("*", "/{path:.*}", api.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    api.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield api
    await runner.cleanup()
