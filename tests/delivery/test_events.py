"""The door for events: what SDKs are answered, whatever they send and however the server is."""

import asyncio
import gzip
import json
import threading
import uuid
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from controller.delivery.event_bodies import MAX_BYTES
from controller.delivery.event_book import EventBook
from controller.domain.tally import Watch
from controller.telemetry import Metrics
from tests.support.event_memory import EventMemory, until_counted
from tests.support.sdk_door import CLIENT_ID, FLAG, KEY, MOBILE_KEY, Door, SteppedClock, make_flag, raised, until

SAFE = {400, 408, 429, 503}
"""What an SDK does not stop sending events for good for."""

ERROR = {
    "kind": "custom",
    "key": "error",
    "creationDate": 1795003200000,
    "context": {"kind": "user", "key": "ann"},
}


class World:
    def __init__(self, http: aiohttp.ClientSession, clock: SteppedClock, **book: Any) -> None:
        metrics = Metrics()
        self.clock = clock
        self.events = EventMemory(clock.monotonic)
        self.book = EventBook(
            self.events, clock, metrics, **{"kept_seconds": 7200, "acknowledge_seconds": 0.2, **book}
        )
        self.door = Door(event_book=self.book, clock=clock)
        self._http = http
        self._metrics = metrics

    async def post(self, body: Any, path: str = "/bulk", **headers: str) -> int:
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        all_headers = {"Authorization": KEY, "X-LaunchDarkly-Payload-ID": str(uuid.uuid4()), **headers}
        async with self._http.post(f"{self.door.url}{path}", data=sent, headers=all_headers) as response:
            assert "Date" in response.headers
            await response.read()
            return response.status

    async def counted(self) -> int:
        found = await self.events.counted([(FLAG.key, "error")], window_seconds=60, contexts=False)
        return sum(one.count for one in found)

    def result(self, name: str) -> float:
        return self._metrics.registry.get_sample_value("rampart_event_deliveries_total", {"result": name}) or 0.0


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def world(http: aiohttp.ClientSession) -> AsyncIterator[World]:
    world = World(http, SteppedClock(), max_held=10)
    await world.events.watch([Watch(FLAG.key, "error")], from_seconds=-60)
    await world.book.look()
    world.book.start()
    world.door.open_up(raised(make_flag(client_side=True), 50_000))
    await world.door.start()
    yield world
    await world.door.stop()
    await world.book.close()


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/bulk", {}),
        ("/mobile", {"Authorization": MOBILE_KEY}),
        ("/mobile/events/bulk", {"Authorization": MOBILE_KEY}),
        (f"/events/bulk/{CLIENT_ID}", {"Authorization": ""}),
    ],
)
async def test_events_are_counted_from_servers_apps_and_browsers(
    world: World, path: str, headers: dict[str, str]
) -> None:
    assert await world.post([ERROR, ERROR], path, **headers) == 202
    assert await world.counted() == 2


@pytest.mark.parametrize("path", ["/diagnostic", f"/events/diagnostic/{CLIENT_ID}"])
async def test_diagnostics_are_taken_in_and_forgotten(world: World, path: str) -> None:
    assert await world.post({"kind": "diagnostic-init", "id": {}}, path) == 202
    assert await world.counted() == 0


async def test_a_delivery_that_is_sent_again_is_accepted_and_not_counted(world: World) -> None:
    again = {"X-LaunchDarkly-Payload-ID": "e4f1"}
    assert [await world.post([ERROR], **again) for _ in range(3)] == [202, 202, 202]
    assert await world.counted() == 1
    assert await world.post([ERROR], **{"X-LaunchDarkly-Payload-ID": ""}) == 202
    assert await world.post([ERROR], **{"X-LaunchDarkly-Payload-ID": ""}) == 202
    assert await world.counted() == 3, "without an id nobody can tell that it is the same"


async def test_a_gzipped_delivery_is_counted(world: World) -> None:
    assert await world.post(gzip.compress(json.dumps([ERROR]).encode()), **{"Content-Encoding": "gzip"}) == 202
    assert await world.counted() == 1


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"not json", {}),
        (b'{"kind": "custom"}', {}),
        (b"", {}),
        (b"[]", {"Content-Encoding": "gzip"}),
        (b"[]", {"Content-Encoding": "br"}),
        (gzip.compress(b" " * (20 * MAX_BYTES)), {"Content-Encoding": "gzip"}),
        (b" " * (MAX_BYTES + 1), {}),
    ],
    ids=["text", "object", "empty", "no gzip", "unknown encoding", "bomb", "too large"],
)
async def test_what_cannot_be_counted_silences_no_sdk_and_leaves_a_gap(
    world: World, body: bytes, headers: dict[str, str]
) -> None:
    assert await world.post([ERROR]) == 202
    world.clock.elapsed += 12
    assert await world.post(body, **headers) in SAFE
    await until_counted(world.counted, 0)


async def test_an_event_that_cannot_be_read_leaves_a_gap_beside_those_that_were(world: World) -> None:
    assert await world.post([ERROR]) == 202
    world.clock.elapsed += 12
    assert await world.post([ERROR, {"kind": "custom", "key": {}}]) == 202
    await until_counted(world.counted, 0)


async def test_when_there_is_no_room_left_sdks_are_asked_to_come_again(world: World) -> None:
    world.events.away = True
    statuses = [await world.post([ERROR]) for _ in range(3)]
    assert statuses == [202, 202, 202], "the database is away, and there is room"
    many = [{**ERROR, "context": {"kind": "user", "key": f"user-{number}"}} for number in range(200)]
    while await world.post(many) == 202:
        pass
    assert world.result("refused") == 1
    world.events.away = False
    await until(lambda: world.result("counted") > 3)


async def test_before_it_is_known_what_is_counted_nothing_is_acknowledged(http: aiohttp.ClientSession) -> None:
    world = World(http, SteppedClock())
    world.door.open_up(make_flag())
    await world.door.start()
    assert await world.post([ERROR]) == 503
    await world.door.stop()


async def test_without_a_source_of_events_they_are_taken_in_and_forgotten(http: aiohttp.ClientSession) -> None:
    world = World(http, SteppedClock())
    world.door = Door()
    world.door.open_up(make_flag())
    await world.door.start()
    assert await world.post([ERROR]) == 202
    assert await world.post(b"anything") == 202
    await world.door.stop()


async def test_everybody_else_is_served_while_a_body_is_read(world: World, http: aiohttp.ClientSession) -> None:
    go_on = threading.Event()
    busy = asyncio.create_task(asyncio.to_thread(world.door.events._reader.submit(go_on.wait).result))
    posting = asyncio.create_task(world.post([ERROR]))
    async with http.get(f"{world.door.url}/sdk/latest-all", headers={"Authorization": KEY}) as response:
        assert response.status == 200
    assert not posting.done()
    go_on.set()
    await busy
    assert await posting == 202
