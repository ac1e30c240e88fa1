"""The door in front of a server does what it says: everything else built on it would lie otherwise."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.contracts.provider_world import Fault
from tests.support.http_faults import STATUSES, FaultyDoor, Request

PATIENCE = aiohttp.ClientTimeout(total=0.3)


class Counter:
    """A server with one number: GET shows it, POST adds one to it."""

    def __init__(self) -> None:
        self.value = 0

    async def show(self, request: web.Request) -> web.Response:
        return web.json_response({"value": self.value, "for": request.headers.get("X-Who", "")})

    async def add(self, request: web.Request) -> web.Response:
        self.value += int(await request.text())
        return web.json_response({"value": self.value})


class World:
    def __init__(self, counter: Counter, door: FaultyDoor, client: aiohttp.ClientSession) -> None:
        self.counter, self.door, self._client = counter, door, client

    async def ask(self, method: str = "GET", body: bytes | None = None) -> tuple[int, Any]:
        url = f"{self.door.url}/count?of=all"
        async with self._client.request(method, url, data=body, headers={"X-Who": "dana"}) as answer:
            return answer.status, json.loads(await answer.read())

    async def landed(self, value: int) -> None:
        deadline = time.monotonic() + 5
        while self.counter.value != value:
            assert time.monotonic() < deadline, f"it shows {self.counter.value}"
            await asyncio.sleep(0.01)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    counter = Counter()
    app = web.Application()
    app.router.add_get("/count", counter.show)
    app.router.add_post("/count", counter.add)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(runner.cleanup)
        port = runner.addresses[0][1]
        door = await stack.enter_async_context(FaultyDoor(f"http://127.0.0.1:{port}").open())
        client = await stack.enter_async_context(aiohttp.ClientSession(timeout=PATIENCE))
        yield World(counter, door, client)


async def test_without_a_fault_everything_passes_as_it_is(world: World) -> None:
    assert await world.ask() == (200, {"value": 0, "for": "dana"})
    assert await world.ask("POST", b"2") == (200, {"value": 2})
    assert world.door.requests == [Request("GET", "/count?of=all"), Request("POST", "/count?of=all")]
    assert world.door.forwarded == world.door.requests


async def test_a_server_that_is_down_neither_answers_nor_changes(world: World) -> None:
    async with world.door.fault(Fault.DOWN):
        for method in ("GET", "POST"):
            with pytest.raises(aiohttp.ClientError):
                await world.ask(method, b"1")
    assert (world.counter.value, world.door.forwarded) == (0, [])
    assert await world.ask() == (200, {"value": 0, "for": "dana"})


@pytest.mark.parametrize(("fault", "value"), [(Fault.LOST_BEFORE, 0), (Fault.LOST_AFTER, 1)])
async def test_a_lost_write_took_effect_or_not_as_the_fault_says(world: World, fault: Fault, value: int) -> None:
    async with world.door.fault(fault):
        with pytest.raises(TimeoutError):
            await world.ask("POST", b"1")
        assert await world.ask() == (200, {"value": value, "for": "dana"})
    assert world.counter.value == value


async def test_half_a_document_answers_a_write_that_took_effect(world: World) -> None:
    async with world.door.fault(Fault.HALF):
        for method in ("GET", "POST"):
            with pytest.raises(json.JSONDecodeError):
                await world.ask(method, b"1")
    assert world.counter.value == 1


@pytest.mark.parametrize("fault", STATUSES)
async def test_a_refusal_changes_nothing_and_a_conflict_only_hits_writes(world: World, fault: Fault) -> None:
    async with world.door.fault(fault):
        status, answer = await world.ask("POST", b"1")
        assert (status, set(answer)) == (int(fault.value[:3]), {"name", "message"})
        status, _ = await world.ask()
        assert status == (200 if fault is Fault.CONFLICT else int(fault.value[:3]))
    assert world.counter.value == 0


@pytest.mark.parametrize(("fault", "ahead"), [(Fault.THROTTLED_UNTIL, True), (Fault.THROTTLED_BEFORE, False)])
async def test_a_throttled_answer_names_a_moment(world: World, fault: Fault, ahead: bool) -> None:
    async with world.door.fault(fault), aiohttp.request("GET", world.door.url) as answer:
        moment = parsedate_to_datetime(answer.headers["Retry-After"]).timestamp()
        assert (moment > time.time() - 0.5) is ahead


async def test_a_held_write_lands_when_it_is_let_go_though_nobody_waits_for_it(world: World) -> None:
    async with world.door.held_write() as held:
        with pytest.raises(TimeoutError):
            await world.ask("POST", b"10")
        assert held.reached.is_set()
        assert await world.ask("POST", b"1") == (200, {"value": 1})
        assert world.counter.value == 1
        held.let_go.set()
        await world.landed(11)
