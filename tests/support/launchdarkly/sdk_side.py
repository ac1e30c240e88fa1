"""What SDKs connect to: the stream of flags, the same by polling, and where they send events.

The first version of the protocol (`GET /all`), which all server-side SDKs speak by default. An SDK key opens one
environment. A stream that is not ready answers 503; to a key that is unknown it is 401, after which SDKs give up
or wait for minutes.
"""

import asyncio
import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from tests.support.launchdarkly.account import Environment, Project
from tests.support.launchdarkly.flags import Flag, sdk_flag, sdk_flags
from tests.support.launchdarkly.ledger import Ledger

Json = dict[str, Any]

HEARTBEAT_SECONDS = 15.0


@dataclass
class Delivery:
    """What an SDK sent to /bulk (a list of events) or /diagnostic (one object)."""

    path: str
    headers: Mapping[str, str]
    body: Any


class Subscription:
    """One connected SDK."""

    def __init__(self, project: str, environment: str) -> None:
        self.project = project
        self.environment = environment
        self.queue: asyncio.Queue[tuple[float, bytes] | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()

    def put(self, event: bytes | None, lag_seconds: float = 0.0) -> None:
        """From any thread. None ends the stream."""
        item = None if event is None else (self._loop.time() + lag_seconds, event)
        self._loop.call_soon_threadsafe(self.queue.put_nowait, item)

    async def next(self, heartbeat_seconds: float) -> bytes | None:
        """A comment when nothing happened for so long."""
        try:
            item = await asyncio.wait_for(self.queue.get(), heartbeat_seconds)
        except TimeoutError:
            return b":\n\n"
        if item is None:
            return None
        due, event = item
        await asyncio.sleep(max(0.0, due - self._loop.time()))
        return event


class SdkSide:
    """`lag_seconds`: how late changes arrive. `stream_status`, `events_status`: 200 and 202, or what is wrong."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._subscriptions: list[Subscription] = []
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.heartbeat_seconds = HEARTBEAT_SECONDS
        self.lag_seconds = 0.0
        self.stream_status = 200
        self.events_status = 202
        self.connects: list[Mapping[str, str]] = []
        self.polls = 0
        self.deliveries: list[Delivery] = []

    def app(self) -> web.Application:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_get("/all", self._all)
        app.router.add_get("/sdk/latest-all", self._latest_all)
        app.router.add_post("/bulk", self._events)
        app.router.add_post("/diagnostic", self._events)
        return app

    # — what a test does to it —

    @property
    def connected(self) -> int:
        return len(self._subscriptions)

    def down(self, status: int = 503) -> None:
        """Every stream ends, and new ones are answered with `status`, until `up`."""
        self.stream_status = status
        self.cut()

    def up(self) -> None:
        self.stream_status = 200

    def cut(self) -> None:
        """Every stream ends once; SDKs come back."""
        for one in self._subscriptions:
            one.put(None)

    def freeze(self) -> None:
        """Streams stay open, and nothing comes through any more, not even a heartbeat, until `thaw`."""
        self._flowing.clear()

    def thaw(self) -> None:
        self._flowing.set()

    def publish(self, project: str, flag: Flag) -> None:
        """To everybody who is connected."""
        for one in self._subscriptions:
            if one.project == project:
                one.put(_change(flag, one.environment), self.lag_seconds)

    @property
    def events(self) -> list[Json]:
        """All that arrived at /bulk, one by one."""
        return [event for delivery in self.deliveries if delivery.path == "/bulk" for event in delivery.body]

    # — the endpoints —

    async def _all(self, raw: web.Request) -> web.StreamResponse:
        self.connects.append(dict(raw.headers))
        if self.stream_status != 200:
            return web.Response(status=self.stream_status)
        found = self._environment(raw)
        if found is None:
            return web.Response(status=401)
        project, environment = found
        answer = web.StreamResponse(headers={"X-LD-EnvID": environment.id, "Cache-Control": "no-cache"})
        answer.content_type = "text/event-stream"
        subscription = Subscription(project.key, environment.key)
        self._subscriptions.append(subscription)
        subscription.put(_event("put", {"path": "/", "data": _everything(project, environment)}))
        try:
            await answer.prepare(raw)
            await self._pump(subscription, answer)
        finally:
            self._subscriptions.remove(subscription)
        return answer

    async def _pump(self, subscription: Subscription, answer: web.StreamResponse) -> None:
        # The SDK hung up; it comes back by itself.
        with contextlib.suppress(ConnectionError):
            while (event := await subscription.next(self.heartbeat_seconds)) is not None:
                await self._flowing.wait()
                await answer.write(event)

    async def _latest_all(self, raw: web.Request) -> web.Response:
        """The same by polling. An unchanged answer is 304."""
        self.polls += 1
        found = self._environment(raw)
        if self.stream_status != 200 or found is None:
            return web.Response(status=401 if self.stream_status == 200 else self.stream_status)
        body = json.dumps(_everything(*found)).encode()
        tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        if raw.headers.get("If-None-Match") == tag:
            return web.Response(status=304, headers={"ETag": tag})
        return web.Response(body=body, content_type="application/json", headers={"ETag": tag})

    async def _events(self, raw: web.Request) -> web.Response:
        text = await raw.text()
        if self._environment(raw) is None:
            return web.Response(status=401)
        if self.events_status < 300:
            self.deliveries.append(Delivery(raw.path, dict(raw.headers), json.loads(text)))
        return web.Response(status=self.events_status)

    def _environment(self, raw: web.Request) -> tuple[Project, Environment] | None:
        key = raw.headers.get("Authorization", "").removeprefix("api_key ")
        for project in self._ledger.projects.values():
            for environment in project.environments.values():
                if environment.sdk_key == key:
                    return project, environment
        return None


def _everything(project: Project, environment: Environment) -> Json:
    flags = sdk_flags(project.flags.values(), environment.key)
    return {"flags": flags, "segments": environment.segments}


def _change(flag: Flag, environment: str) -> bytes:
    path = f"/flags/{flag.key}"
    if flag.archived or flag.deleted:
        return _event("delete", {"path": path, "version": flag.environments[environment].version})
    return _event("patch", {"path": path, "data": sdk_flag(flag, environment)})


def _event(name: str, data: Json) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
