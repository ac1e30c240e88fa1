"""A real LaunchDarkly SDK that tracks what it does, its bodies recorded: and what was true, by its own answers."""

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from threading import Thread
from time import monotonic
from typing import Any, NamedTuple

import aiohttp
import ldclient
from ldclient import Context
from ldclient.config import Config

from controller.delivery.event_book import EventBook
from controller.domain.tally import CONTEXTS, EVALUATIONS, Watch, contexts_of
from controller.ports import EventStore
from controller.telemetry import Metrics
from tests.support.sdk_door import FLAG, KEY, Door, make_flag, raised
from tests.support.server import wait_until

WATCHES = [Watch(FLAG.key, one) for one in (EVALUATIONS, CONTEXTS, "latency", "error", contexts_of("error"))]
FLUSHED_AT_ONCE = 4_000
CONNECTIONS = 8


class RealClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return monotonic()


class Delivered(NamedTuple):
    payload_id: str
    body: bytes


class Truth:
    """What the application did, by event and variation; and who had it happen to them."""

    def __init__(self) -> None:
        self.events: Counter[tuple[str, str]] = Counter()
        self.contexts: defaultdict[tuple[str, str], set[str]] = defaultdict(set)

    def add(self, event: str, variation: str, user: str) -> None:
        self.events[event, variation] += 1
        self.contexts[event, variation].add(user)


class Recorder:
    """Takes events as the vendor's server would, and keeps them."""

    def __init__(self) -> None:
        self.deliveries: list[Delivered] = []
        self.kinds: Counter[str] = Counter()
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                recorder.deliveries.append(Delivered(self.headers["X-LaunchDarkly-Payload-ID"], body))
                recorder.kinds.update(event["kind"] for event in json.loads(body))
                self.send_response(202)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        Thread(target=self._server.serve_forever, daemon=True).start()

    def wait_for(self, custom: int) -> None:
        wait_until(lambda: self.kinds["custom"] == custom, seconds=120, every=0.002, what="a flush")

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def record(
    door_url: str, *, events: int, users: int, seed: int = 1
) -> tuple[list[Delivered], Counter[str], Truth]:
    """At least so many events of an application behind a real SDK: deliveries, their kinds, and what was true."""
    recorder, truth, chance = Recorder(), Truth(), Random(seed)
    config = Config(
        KEY,
        base_uri=door_url,
        stream_uri=door_url,
        events_uri=recorder.url,
        flush_interval=3600,
        events_max_pending=3 * FLUSHED_AT_ONCE,
        diagnostic_opt_out=True,
    )
    client: Any = ldclient.LDClient(config, start_wait=10)
    tracked = 0
    while sum(recorder.kinds.values()) < events:
        for _ in range(FLUSHED_AT_ONCE // 2):
            tracked += _visit(client, f"user-{chance.randrange(users)}", chance, truth)
        client.flush()
        # More at once than it holds, and the SDK would drop some.
        recorder.wait_for(tracked)
    client.close()
    recorder.close()
    return recorder.deliveries, recorder.kinds, truth


def _visit(client: ldclient.LDClient, name: str, chance: Random, truth: Truth) -> int:
    user = Context.builder(name).set("email", f"{name}@example.org").set("plan", "free").build()
    variation = "on" if client.variation(FLAG.key, user, default=False) else "off"
    client.track("latency", user, metric_value=chance.lognormvariate(-2, 0.5))
    failed = chance.random() < (0.2 if variation == "on" else 0.05)
    if failed:
        client.track("error", user, data={"route": "/pay"})
    truth.add(EVALUATIONS, variation, name)
    truth.add("latency", variation, name)
    if failed:
        truth.add("error", variation, name)
    return 1 + failed


@asynccontextmanager
async def event_door(store: EventStore) -> AsyncIterator[Door]:
    """One replica's door, its counts on their way to `store`; the flag is on for half of everybody."""
    book = EventBook(store, RealClock(), Metrics(), kept_seconds=7200)
    door = Door(event_book=book, clock=RealClock())
    door.open_up(raised(make_flag(version=1), 50_000))
    book.start()
    await book.look()
    await door.start()
    try:
        yield door
    finally:
        await door.stop()
        await book.close()


async def deliver(doors: Sequence[Door], deliveries: Sequence[Delivered]) -> Counter[int]:
    """Each to the next of the doors, over a few connections: how often each status was answered."""
    waiting = list(reversed(list(enumerate(deliveries))))
    statuses: Counter[int] = Counter()

    async def work(session: aiohttp.ClientSession) -> None:
        while waiting:
            number, one = waiting.pop()
            headers = {"Authorization": KEY, "X-LaunchDarkly-Payload-ID": one.payload_id}
            url = f"{doors[number % len(doors)].url}/bulk"
            try:
                async with session.post(url, data=one.body, headers=headers) as response:
                    statuses[response.status] += 1
            except aiohttp.ClientConnectionError:
                # As an SDK does: whether it was counted or not, it comes again, to the other one.
                waiting.append((number + 1, one))

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(work(session) for _ in range(CONNECTIONS)))
    return statuses
