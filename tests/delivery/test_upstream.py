"""Following another server's stream: its events whole and in order, and patience when it is not there."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from time import monotonic
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from controller.delivery.server_events import ServerEvent, ServerEvents, TooLong
from controller.delivery.upstream import Garbled, Upstream
from tests.support.sdk_door import until
from tests.support.tracking import RealClock

# — events —


@given(st.lists(st.tuples(st.sampled_from(["put", "patch", "delete"]), st.text())), st.data())
def test_events_are_whole_wherever_the_stream_was_cut(said: list[tuple[str, str]], data: st.DataObject) -> None:
    newline = data.draw(st.sampled_from([b"\n", b"\r\n"]))
    parts = []
    for kind, text in said:
        parts += [b":", b"event: " + kind.encode(), b"data: " + json.dumps(text).encode(), b""]
    stream = b"".join(part + newline for part in parts)
    parser = ServerEvents()
    found: list[ServerEvent] = []
    while stream:
        size = data.draw(st.integers(1, 40))
        found += parser.feed(stream[:size])
        stream = stream[size:]
    assert [(event.kind, json.loads(event.data)) for event in found] == said


def test_data_in_several_lines_is_one_text_and_other_fields_are_passed_over() -> None:
    stream = b"id: 7\nevent: put\ndata: {\ndata: }\nretry: 5\n\nevent: lost\n\ndata:x\n\n"
    assert list(ServerEvents().feed(stream)) == [ServerEvent("put", b"{\n}"), ServerEvent("message", b"x")]


@pytest.mark.parametrize(
    "chunk", [b"data: " + b"x" * 200, b"data: " + b"x" * 60 + b"\ndata: " + b"x" * 60 + b"\n"]
)
def test_an_event_without_an_end_is_not_kept(chunk: bytes) -> None:
    with pytest.raises(TooLong):
        list(ServerEvents(limit=100).feed(chunk))


# — following —

Answer = Callable[[web.Request], Any]


class Server:
    """Answers each connection as the next of `answers` says, and the last of them from then on."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.requests: list[web.Request] = []
        self.asked_at: list[float] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.asked_at.append(monotonic())
        chosen = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        answered: web.StreamResponse = await chosen(request)
        return answered


async def refuses(request: web.Request) -> web.StreamResponse:
    return web.Response(status=503)


def says(*texts: str, then_stays: bool = True) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for text in texts:
            await response.write(f"event: patch\ndata: {text}\n\n".encode())
        if then_stays:
            await asyncio.sleep(60)
        return response

    return answer


class Follower:
    def __init__(self) -> None:
        self.taken: list[str] = []
        self.present: list[bool] = []
        self.begun = 0
        self.fails_on = self.breaks_on = ""

    async def take(self, event: ServerEvent) -> None:
        if event.data.decode() == self.fails_on:
            self.fails_on = ""
            raise Garbled("not what was expected")
        if event.data.decode() == self.breaks_on:
            self.breaks_on = ""
            raise KeyError("ours")
        self.taken.append(event.data.decode())

    def begin(self) -> None:
        self.begun += 1

    def hears(self, present: bool) -> None:
        if self.present[-1:] != [present]:
            self.present.append(present)


@asynccontextmanager
async def following(server: Server, **options: Any) -> AsyncIterator[tuple[Follower, Upstream]]:
    app = web.Application()
    app.router.add_get("/all", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    follower = Follower()
    upstream = Upstream(
        f"http://127.0.0.1:{runner.addresses[0][1]}/all",
        "sdk-key",
        take=follower.take,
        begin=follower.begin,
        present=follower.hears,
        clock=RealClock(),
        chance=lambda: 1.0,
        **{"first_pause_seconds": 0.02, **options},
    )
    upstream.start()
    try:
        yield follower, upstream
    finally:
        await upstream.close()
        await runner.cleanup()


async def test_a_stream_that_ends_or_is_refused_is_begun_again() -> None:
    server = Server(refuses, says("1", then_stays=False), refuses, says("2"))
    async with following(server) as (follower, _):
        await until(lambda: follower.taken == ["1", "2"])
        assert follower.present == [False, True, False, True]
        assert server.requests[0].headers["Authorization"] == "sdk-key"


async def test_an_event_that_cannot_be_read_makes_the_stream_begin_again() -> None:
    server = Server(says("1", "bad", "2"))
    async with following(server) as (follower, _):
        follower.fails_on = "bad"
        await until(lambda: follower.taken == ["1", "1", "bad", "2"])


async def test_a_fault_of_ours_does_not_end_the_following() -> None:
    async with following(Server(says("1", "bad"))) as (follower, _):
        follower.breaks_on = "bad"
        await until(lambda: follower.taken == ["1", "1", "bad"])


async def test_a_stream_without_a_sign_of_life_is_given_up() -> None:
    server = Server(says("1"))
    async with following(server, silence_seconds=0.2) as (follower, _):
        await until(lambda: follower.taken == ["1", "1"])
        assert follower.present == [True, False, True]


async def test_everything_is_asked_for_anew_at_once_when_somebody_wants_it() -> None:
    async with following(Server(says("1"))) as (follower, upstream):
        await until(lambda: follower.taken == ["1"])
        upstream.resync()
        await until(lambda: follower.taken == ["1", "1"])
        assert follower.begun == 2


async def test_a_pause_ends_when_somebody_wants_everything_anew() -> None:
    async with following(Server(refuses, says("1")), first_pause_seconds=3600.0) as (follower, upstream):
        await until(lambda: follower.present == [False])
        upstream.resync()
        await until(lambda: follower.taken == ["1"])


async def test_the_pauses_grow_from_failure_to_failure() -> None:
    server = Server(refuses)
    async with following(server, first_pause_seconds=0.02):
        await until(lambda: len(server.asked_at) == 6)
    pauses = [later - earlier for earlier, later in pairwise(server.asked_at)]
    assert all(pause >= 0.02 * 2**number for number, pause in enumerate(pauses))
