"""Which endpoint answers, what a fault of ours looks like, and how many are served at once."""

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from controller.delivery.entrance import Endpoint
from controller.delivery.front import FrontDoor
from controller.delivery.turns import Turns
from tests.support.sdk_door import CLIENT_ID, KEY, make_flag, running_door


async def nowhere(*_: object) -> None:
    raise AssertionError("nobody answers here")


def front(*paths: str) -> FrontDoor:
    return FrontDoor([Endpoint(path, nowhere) for path in paths], nowhere)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/eval/id", ("/eval/{id}", {"id": "id"})),
        ("/eval/id/who", ("/eval/{id}/{context}", {"id": "id", "context": "who"})),
        ("/eval//id/", ("/eval/{id}", {"id": "id"})),
        ("/eval/{id}", ("/eval/{id}", {"id": "{id}"})),
        ("/eval/named/here", ("/eval/named/here", {})),
        ("/eval", None),
        ("/eval/id/who/else", None),
        ("/evaluate/id", None),
        ("/", None),
    ],
)
def test_a_path_leads_to_one_endpoint_and_its_parameters(
    path: str, found: tuple[str, dict[str, str]] | None
) -> None:
    at = front("/eval/{id}", "/eval/{id}/{context}", "/eval/named/here")._find(path)
    assert (at and (at[0].path, at[1])) == found


def test_two_endpoints_never_share_a_path() -> None:
    with pytest.raises(ValueError, match="two endpoints"):
        front("/eval/{id}", "/eval/{name}")


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_a_fault_of_ours_is_an_answer_and_leaves_the_server_up(
    http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_door(make_flag()) as door:
        with monkeypatch.context() as broken:
            broken.setattr(door.board, "snapshot", lambda _: 1 / 0)
            async with http.get(f"{door.url}/sdk/latest-all", headers={"Authorization": KEY}) as response:
                assert response.status == 500
                assert "division" not in await response.text(), "the cause is for the log"
        async with http.get(f"{door.url}/sdk/latest-all", headers={"Authorization": KEY}) as response:
            assert response.status == 200


async def test_what_is_for_no_sdk_is_left_to_the_rest(http: aiohttp.ClientSession) -> None:
    async with running_door() as door, http.get(f"{door.url}/nothing/here") as response:
        assert response.status == 404


async def test_one_piece_of_work_is_done_in_a_turn() -> None:
    turns, done = Turns(), []

    async def work(number: int) -> None:
        async with turns.one():
            done.append(number)

    working = [asyncio.create_task(work(number)) for number in range(5)]
    most = 0
    while not all(task.done() for task in working):
        before = len(done)
        await asyncio.sleep(0)
        most = max(most, len(done) - before)
    assert (done, most) == ([0, 1, 2, 3, 4], 1)


async def test_a_crowd_is_sent_away_until_it_is_smaller(http: aiohttp.ClientSession) -> None:
    turns = Turns(max_waiting=1)
    async with running_door(make_flag(client_side=True), turns=turns) as door:
        who = base64.urlsafe_b64encode(b'{"kind":"user","key":"ana"}').decode().rstrip("=")
        values = f"{door.url}/sdk/evalx/{CLIENT_ID}/contexts/{who}"
        question: Any = {
            "json": {"context": {"targetingKey": "ana"}},
            "headers": {"Authorization": f"Bearer {KEY}"},
        }
        everything = f"{door.url}/ofrep/v1/evaluate/flags"
        async with turns.one():
            async with http.get(values) as refused:
                assert (refused.status, int(refused.headers["Retry-After"]) > 0) == (503, True)
            async with http.post(everything, **question) as refused:
                assert (refused.status, int(refused.headers["Retry-After"]) > 0) == (429, True)
        async with http.get(values) as served:
            assert served.status == 200
        async with http.post(everything, **question) as served:
            assert served.status == 200


@pytest.mark.parametrize("head", ["GET /{large} HTTP/1.1\r\n", "GET / HTTP/1.1\r\nX-Large: {large}\r\n"])
async def test_a_head_without_an_end_is_refused(head: str) -> None:
    async with running_door() as door:
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        writer.write(head.format(large="x" * 200_000).encode() + b"Host: x\r\n\r\n")
        async with asyncio.timeout(10):
            assert (await reader.readline()).startswith(b"HTTP/1.1 400")
        writer.close()
