"""The server-SDK door, seen by the real LaunchDarkly SDK and, where the SDK hides it, by plain HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from ldclient import Context
from ldclient.config import Config
from ldclient.impl.datasource.feature_requester import FeatureRequesterImpl
from ldclient.versioned_data_kind import FEATURES
from msgspec.structs import replace

from controller.domain.sdkflag import with_version
from controller.snapshot import FlagBoard, VersionClock
from tests.support.sdk_door import (
    FLAG,
    KEY,
    STAFF,
    STAGING_KEY,
    Door,
    SteppedClock,
    free_port,
    make_flag,
    make_key,
    raised,
    running_door,
    until,
    user,
)

ANA = user("ana")
EVERYBODY = raised(make_flag(), 100_000, STAFF)


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(headers={"Authorization": KEY}) as session:
        yield session


async def read_until(response: aiohttp.ClientResponse, wanted: bytes) -> bytes:
    """What the stream said up to and including `wanted`, or all of it when it ends before."""
    said = b""
    async with asyncio.timeout(10):
        while wanted not in said:
            chunk = await response.content.readany()
            if not chunk:
                break
            said += chunk
    return said


def version_in(client: Any) -> int:
    """The version of the flag that the SDK holds, read from inside it: it shows it nowhere."""
    return int(client._data_system.store.get(FEATURES, FLAG.key, lambda one: one)["version"])


# — with the real SDK —


async def test_an_sdk_starts_from_the_stream_and_follows_it() -> None:
    async with running_door(make_flag()) as door, door.client() as client:
        assert client.is_initialized()
        assert client.variation(FLAG.key, ANA, None) is False
        door.board.put(EVERYBODY)
        await until(lambda: client.variation(FLAG.key, ANA, None) is True)
        door.board.put(make_flag("second"))
        await until(lambda: client.variation("second", ANA, None) is False)
        door.board.put(replace(with_version(EVERYBODY, 9), archived=True))
        await until(lambda: client.variation(FLAG.key, ANA, "unknown") == "unknown")


async def test_a_kill_serves_the_fallback_to_every_context_staff_included() -> None:
    contexts = [ANA, user("sam", email="sam@acme.example"), Context.create("phone-1", "device")]
    async with running_door(EVERYBODY) as door, door.client() as client:
        assert [client.variation(FLAG.key, one, None) for one in contexts[:2]] == [True, True]
        door.board.hold_down(FLAG, "kill-1")
        await until(lambda: not any(client.variation(FLAG.key, one, True) for one in contexts))
        door.board.put(with_version(EVERYBODY, 10**15))
        door.board.put(make_flag("marker"))
        await until(lambda: client.variation("marker", ANA, None) is False)
        assert not any(client.variation(FLAG.key, one, True) for one in contexts)


async def test_contexts_that_cannot_be_hashed_get_the_fallback() -> None:
    half = raised(make_flag(), 50_000)
    async with running_door(half) as door, door.client() as client:
        devices = [Context.create(f"device-{number}", "device") for number in range(50)]
        assert not any(client.variation(FLAG.key, one, True) for one in devices)


async def test_an_sdk_that_polls_asks_with_the_entity_tag() -> None:
    async with running_door(make_flag()) as door:
        config = Config(sdk_key=KEY, base_uri=door.url)
        requester: Any = FeatureRequesterImpl(config)  # type: ignore[no-untyped-call]
        first = await asyncio.to_thread(requester.get_all_data)
        assert (await asyncio.to_thread(requester.get_all_data))[FEATURES] is first[FEATURES], (
            "304, from its cache"
        )
        door.board.put(EVERYBODY)
        assert (await asyncio.to_thread(requester.get_all_data))[FEATURES][FLAG.key]["on"] is True


async def test_an_sdk_that_polls_serves_what_it_polled() -> None:
    async with running_door(EVERYBODY) as door, door.client(stream=False) as client:
        assert client.is_initialized()
        assert client.variation(FLAG.key, ANA, None) is True


async def test_with_a_wrong_key_an_sdk_serves_its_own_defaults() -> None:
    async with running_door(EVERYBODY) as door, door.client("sdk-wrong", wait_seconds=0.5) as client:
        assert not client.is_initialized()
        assert client.variation(FLAG.key, ANA, "default") == "default"


async def test_an_sdk_that_came_too_early_starts_by_itself_when_the_door_opens() -> None:
    door = Door()
    await door.start()
    try:
        async with door.client(wait_seconds=0.2) as client:
            assert not client.is_initialized()
            door.open_up(EVERYBODY)
            await until(client.is_initialized)
            assert client.variation(FLAG.key, ANA, None) is True
    finally:
        await door.stop()


async def test_after_a_restart_sdks_come_back_and_versions_do_not_go_back() -> None:
    clock, reserved = SteppedClock(), [0]
    clock.jump(3600)

    async def reserve(version: int) -> bool:
        reserved[0] = version
        return True

    def board() -> FlagBoard:
        return FlagBoard(VersionClock(clock=clock, floor=reserved[0], reserve=reserve))

    first = Door(board(), port=free_port())
    first.open_up(EVERYBODY)
    await first.start()
    async with first.client() as client:
        first.board.hold_down(FLAG, "kill-1")
        await until(lambda: client.variation(FLAG.key, ANA, None) is False)
        before = version_in(client)
        await first.board.versions.secure()
        await first.stop()

        clock.jump(-7200)
        second = Door(board(), port=first.port)
        second.open_up(EVERYBODY)
        second.board.hold_down(FLAG, "kill-1")
        await second.start()
        await until(lambda: version_in(client) > before)
        assert client.variation(FLAG.key, ANA, None) is False
        second.board.lift(FLAG, "kill-1")
        await until(lambda: client.variation(FLAG.key, ANA, None) is True)
        await second.stop()


async def test_events_of_an_sdk_are_taken_in() -> None:
    async with running_door(EVERYBODY) as door:
        async with door.client(send_events=True, diagnostic_opt_out=False) as client:
            client.variation(FLAG.key, ANA, None)
            client.track("bought", ANA)
            client.flush()
            await until(lambda: door.events.posts >= 2)  # what happened, and its own diagnostics
            client.track("bought", ANA)
        assert door.events.posts >= 3, "a refusal would have silenced it for good"


# — on the wire —


async def test_a_stream_is_chunked_uncached_and_begins_with_a_put(http: aiohttp.ClientSession) -> None:
    async with running_door(make_flag()) as door, http.get(f"{door.url}/all") as response:
        assert response.status == 200
        assert response.version == aiohttp.HttpVersion11
        assert response.headers["Transfer-Encoding"] == "chunked"
        assert response.headers["Content-Type"].startswith("text/event-stream")
        assert (response.headers["Cache-Control"], response.headers["X-Accel-Buffering"]) == ("no-cache", "no")
        event, data, _ = (await read_until(response, b"\n\n")).split(b"\n", 2)
        assert event == b"event: put"
        put = json.loads(data.removeprefix(b"data: "))
        assert (put["path"], list(put["data"]["flags"]), put["data"]["segments"]) == ("/", [FLAG.key], {})


async def test_a_silent_stream_is_kept_alive_by_comments(http: aiohttp.ClientSession) -> None:
    async with running_door(heartbeat_seconds=0.02) as door, http.get(f"{door.url}/all") as response:
        assert b"\n\n:\n\n:\n\n" in await read_until(response, b"\n\n:\n\n:\n\n")


async def test_a_closing_door_ends_its_streams_cleanly(http: aiohttp.ClientSession) -> None:
    async with running_door(make_flag()) as door, http.get(f"{door.url}/all") as response:
        await read_until(response, b"event: put")
        door.board.close()
        assert b"nothing" not in await read_until(response, b"nothing"), "the end, and no broken connection"
        await until(lambda: door.streams.open == 0)


async def test_a_stream_that_its_client_left_is_forgotten(http: aiohttp.ClientSession) -> None:
    async with running_door(make_flag()) as door:
        async with http.get(f"{door.url}/all") as response:
            await read_until(response, b"event: put")
            assert door.streams.open == 1
            response.close()
        await until(lambda: door.streams.open == 0)


async def test_a_client_that_does_not_read_is_cut_off_and_delays_nobody() -> None:
    big = make_flag()
    big = replace(big, data={**big.data, "padding": "x" * 200_000})
    async with running_door(big, send_seconds=0.3) as door, door.client() as client:
        _, writer = await asyncio.open_connection("127.0.0.1", door.port, limit=1024)
        writer.write(f"GET /all HTTP/1.1\r\nHost: x\r\nAuthorization: {KEY}\r\n\r\n".encode())
        await until(lambda: door.streams.open == 2)
        for version in range(2, 400):
            door.board.put(with_version(big, version))
            await asyncio.sleep(0)
        door.board.hold_down(FLAG, "kill-1")
        await until(lambda: version_in(client) > 400)
        await until(lambda: door.streams.open == 1)
        await until(lambda: door.connections == 1)  # it does not keep a socket, and what was to be sent on it
        writer.close()


@pytest.mark.parametrize("first", ["keys", "flags"])
async def test_a_wrong_key_is_401_and_only_when_that_is_certain(http: aiohttp.ClientSession, first: str) -> None:
    door = Door()
    await door.start()
    wrong = {"Authorization": "sdk-wrong"}
    paths = [("GET", "/all"), ("GET", "/sdk/latest-all"), ("POST", "/bulk"), ("POST", "/diagnostic")]

    def load_first() -> None:
        if first == "keys":
            door.keys.load([make_key()])
        else:
            door.board.load([make_flag()], [])

    async def answers(headers: dict[str, str] | None = None) -> set[int]:
        statuses = set()
        for method, path in paths:
            async with http.request(method, door.url + path, headers=headers) as response:
                statuses.add(response.status)
        return statuses

    try:
        assert await answers() == await answers(wrong) == {503}
        load_first()
        assert await answers() == await answers(wrong) == {503}, "half of it is still missing"
        door.keys.load([make_key()])
        door.board.load([make_flag()], [])
        assert await answers(wrong) == await answers({"Authorization": ""}) == {401}
        assert await answers() == {200, 202}
    finally:
        await door.stop()


async def test_the_key_may_come_behind_its_scheme_and_chooses_the_environment(http: aiohttp.ClientSession) -> None:
    staging = raised(make_flag(environment="staging"), 100_000)
    async with running_door(make_flag(), staging) as door:
        for secret, on in ((KEY, False), (f"api_key {KEY}", False), (STAGING_KEY, True)):
            async with http.get(f"{door.url}/sdk/latest-all", headers={"Authorization": secret}) as response:
                assert (await response.json())["flags"][FLAG.key]["on"] is on


async def test_a_stream_hears_nothing_of_other_environments(http: aiohttp.ClientSession) -> None:
    async with running_door(make_flag()) as door, http.get(f"{door.url}/all") as response:
        await read_until(response, b"event: put")
        door.board.put(make_flag("secret-project", environment="staging"))
        door.board.put(make_flag("mine"))
        said = await read_until(response, b"/flags/mine")
        assert b"secret-project" not in said


async def test_a_revoked_key_stops_reading(http: aiohttp.ClientSession) -> None:
    async with (
        running_door(make_flag(), heartbeat_seconds=0.05) as door,
        http.get(f"{door.url}/all") as response,
    ):
        await read_until(response, b"event: put")
        door.keys.load([make_key(STAGING_KEY, "staging")])
        await until(lambda: door.streams.open == 0)


async def test_the_number_of_streams_is_bounded(http: aiohttp.ClientSession) -> None:
    async with running_door(make_flag(), max_streams=1) as door, http.get(f"{door.url}/all") as first:
        await read_until(first, b"event: put")
        async with http.get(f"{door.url}/all") as second:
            assert (second.status, int(second.headers["Retry-After"]) > 0) == (503, True)
        first.close()
        await until(lambda: door.streams.open == 0)
        async with http.get(f"{door.url}/all") as third:
            assert third.status == 200


async def test_a_poll_is_answered_304_until_something_changed(http: aiohttp.ClientSession) -> None:
    async with running_door(make_flag()) as door:
        url = f"{door.url}/sdk/latest-all"
        async with http.get(url) as full:
            etag = full.headers["ETag"]
        for offered in (etag, f"W/{etag}", f'"other", {etag}', "*"):
            async with http.get(url, headers={"If-None-Match": offered}) as same:
                assert (same.status, await same.read(), same.headers["ETag"]) == (304, b"", etag)
        door.board.put(EVERYBODY)
        async with http.get(url, headers={"If-None-Match": etag}) as changed:
            assert changed.status == 200
            assert changed.headers["ETag"] != etag


@pytest.mark.parametrize("path", ["/bulk", "/diagnostic"])
async def test_events_are_accepted_with_the_date_that_sdks_need(http: aiohttp.ClientSession, path: str) -> None:
    async with running_door() as door:
        async with http.post(door.url + path, data=b"[" + b" " * 1_000_000 + b"]") as response:
            assert (response.status, len(response.headers.getall("Date"))) == (202, 1)
        assert door.events.posts == 1


async def test_an_endless_body_of_events_is_refused_without_silencing_the_sdk(http: aiohttp.ClientSession) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65536

    async with running_door() as door:
        try:
            async with http.post(f"{door.url}/bulk", data=endless()) as response:
                assert response.status == 400
        except (aiohttp.ClientConnectionError, ConnectionError):
            pass  # the server may hang up while the client is still writing
        async with http.post(f"{door.url}/bulk", data=b"[]") as response:
            assert response.status == 202


@pytest.mark.parametrize(("path", "right"), [("/all", "GET"), ("/sdk/latest-all", "GET"), ("/bulk", "POST")])
async def test_other_methods_are_told_what_is_allowed(http: aiohttp.ClientSession, path: str, right: str) -> None:
    async with running_door() as door:
        async with http.put(door.url + path) as refused:
            assert (refused.status, right in refused.headers["Allow"]) == (405, True)
        async with http.options(door.url + path) as options:
            assert (options.status, right in options.headers["Allow"]) == (204, True)


@pytest.mark.parametrize("path", ["/all", "/sdk/latest-all"])
async def test_head_answers_the_headers_alone(http: aiohttp.ClientSession, path: str) -> None:
    async with running_door(make_flag()) as door, http.head(door.url + path) as response:
        assert (response.status, await response.read()) == (200, b"")
        assert door.streams.open == 0
