"""What LaunchDarkly's client-side SDKs ask and are answered, on the wire."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from msgspec.structs import replace

from controller.domain.catalogue import FlagConfig
from controller.domain.sdkflag import turned_on, with_version
from tests.support.sdk_door import (
    CLIENT_ID,
    FLAG,
    KEY,
    MOBILE_KEY,
    STAFF,
    Door,
    make_flag,
    make_key,
    raised,
    running_door,
    until,
)

ANA = {"kind": "user", "key": "ana"}
SAM = {"kind": "user", "key": "sam", "email": "sam@acme.example"}
OPEN = make_flag(client_side=True)
EVERYBODY = raised(OPEN, 100_000, STAFF)
STAFF_ONLY = raised(OPEN, 0, STAFF)
HIDDEN = raised(make_flag("backend-only"), 100_000)

MOBILE = {"Authorization": MOBILE_KEY}


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def written(context: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(context).encode()).decode().rstrip("=")


def evalx(door: Door, context: object = ANA, query: str = "") -> str:
    return f"{door.url}/sdk/evalx/{CLIENT_ID}/contexts/{written(context)}{query}"


def stream_of(door: Door, context: object = ANA, query: str = "") -> str:
    return f"{door.url}/eval/{CLIENT_ID}/{written(context)}{query}"


async def asked(http: aiohttp.ClientSession, url: str, **options: Any) -> Any:
    async with http.get(url, **options) as response:
        assert response.status == 200, await response.text()
        return await response.json()


class Listening:
    """One open stream, event by event."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def event(self) -> tuple[str, Any]:
        """The next one: its name, and its data read as JSON if there is any."""
        lines: list[str] = []
        async with asyncio.timeout(10):
            while True:
                line = (await self._response.content.readline()).decode()
                if line == "":
                    return "end", None
                if line not in ("\n", ":\n"):
                    lines.append(line.rstrip("\n"))
                elif lines:
                    break
        fields = dict(line.split(": ", 1) for line in lines)
        return fields["event"], json.loads(fields["data"]) if fields["data"] else None


@asynccontextmanager
async def listening(http: aiohttp.ClientSession, url: str, **options: Any) -> AsyncIterator[Listening]:
    async with http.get(url, **options) as response:
        assert response.status == 200, await response.text()
        yield Listening(response)


def staged(config: FlagConfig, exposure: int) -> FlagConfig:
    return raised(config, exposure, STAFF)


# — values —


async def test_a_browser_is_told_what_its_own_context_gets(http: aiohttp.ClientSession) -> None:
    async with running_door(STAFF_ONLY) as door:
        ana = (await asked(http, evalx(door)))[FLAG.key]
        assert ana == {
            "value": False,
            "variation": 1,
            "version": STAFF_ONLY.version,
            "flagVersion": STAFF_ONLY.version,
            "trackEvents": False,
        }
        sam = (await asked(http, evalx(door, SAM)))[FLAG.key]
        assert (sam["value"], sam["variation"]) == (True, 0)


async def test_reasons_are_given_to_whoever_asks_for_them(http: aiohttp.ClientSession) -> None:
    async with running_door(STAFF_ONLY) as door:
        shown = await asked(http, evalx(door, SAM, "?withReasons=true"))
        assert shown[FLAG.key]["reason"] == {
            "kind": "RULE_MATCH",
            "ruleIndex": 0,
            "ruleId": "rampart-always-staff",
        }


async def test_nothing_of_a_flag_that_is_not_for_clients_reaches_one(http: aiohttp.ClientSession) -> None:
    async with running_door(OPEN, HIDDEN) as door:
        assert list(await asked(http, evalx(door))) == [FLAG.key]
        mobile = f"{door.url}/msdk/evalx/contexts/{written(ANA)}"
        assert list(await asked(http, mobile, headers=MOBILE)) == [FLAG.key]
        async with listening(http, stream_of(door)) as stream:
            assert list((await stream.event())[1]) == [FLAG.key]
            door.board.put(with_version(HIDDEN, 10**6))
            door.board.put(replace(with_version(HIDDEN, 10**6 + 1), archived=True))
            door.board.put(staged(OPEN, 50_000))
            event, data = await stream.event()
            assert (event, data["key"]) == ("patch", FLAG.key)


async def test_a_client_side_id_opens_no_door_of_servers(http: aiohttp.ClientSession) -> None:
    async with running_door(OPEN) as door:
        for path in ("/all", "/sdk/latest-all"):
            for key in (CLIENT_ID, MOBILE_KEY):
                async with http.get(door.url + path, headers={"Authorization": key}) as refused:
                    assert refused.status == 401
        async with http.get(f"{door.url}/sdk/evalx/{KEY}/contexts/{written(ANA)}") as refused:
            assert refused.status == 404


@pytest.mark.parametrize("form", ["contexts", "users", "context", "user"])
async def test_a_context_may_come_in_the_path_or_in_the_body(http: aiohttp.ClientSession, form: str) -> None:
    given = {"key": "sam", "custom": {"email": "sam@acme.example"}} if form.startswith("user") else SAM
    async with running_door(STAFF_ONLY) as door:
        for prefix, headers in ((f"/sdk/evalx/{CLIENT_ID}", {}), ("/msdk/evalx", MOBILE)):
            url = f"{door.url}{prefix}/{form}"
            if form.endswith("s"):
                shown = await asked(http, f"{url}/{written(given)}", headers=headers)
            else:
                async with http.request("REPORT", url, json=given, headers=headers) as response:
                    shown = await response.json()
            assert shown[FLAG.key]["value"] is True


async def test_values_are_answered_304_until_something_changed(http: aiohttp.ClientSession) -> None:
    async with running_door(STAFF_ONLY) as door:
        async with http.get(evalx(door)) as full:
            etag = full.headers["ETag"]
        async with http.get(evalx(door), headers={"If-None-Match": etag}) as same:
            assert (same.status, await same.read()) == (304, b"")
        for other in (evalx(door, SAM), evalx(door, ANA, "?withReasons=true")):
            async with http.get(other, headers={"If-None-Match": etag}) as another:
                assert another.status == 200
        door.board.hold_down(FLAG, "kill-1")
        async with http.get(evalx(door), headers={"If-None-Match": etag}) as changed:
            assert changed.status == 200


@pytest.mark.parametrize(
    "wrong", ["!", written("text"), written({"kind": "user"}), written({}), base64.b64encode(b"[" * 5000).decode()]
)
async def test_a_context_that_is_none_is_refused_with_the_reason(http: aiohttp.ClientSession, wrong: str) -> None:
    async with running_door(OPEN) as door:
        for path in (f"/sdk/evalx/{CLIENT_ID}/contexts/{wrong}", f"/eval/{CLIENT_ID}/{wrong}"):
            async with http.get(door.url + path) as refused:
                assert refused.status == 400
                assert "context" in await refused.text()


async def test_a_context_that_is_too_large_is_refused(http: aiohttp.ClientSession) -> None:
    async with running_door(OPEN) as door:
        large = {**ANA, "about": "x" * 70_000}
        async with http.request("REPORT", f"{door.url}/sdk/evalx/{CLIENT_ID}/context", json=large) as refused:
            assert refused.status == 400


async def test_there_are_no_goals(http: aiohttp.ClientSession) -> None:
    async with running_door() as door:
        assert await asked(http, f"{door.url}/sdk/goals/{CLIENT_ID}") == []


@pytest.mark.parametrize("first", ["keys", "flags"])
async def test_an_unknown_id_is_refused_only_when_that_is_certain(http: aiohttp.ClientSession, first: str) -> None:
    door = Door()
    await door.start()
    paths = [f"/sdk/evalx/unknown/contexts/{written(ANA)}", f"/eval/unknown/{written(ANA)}", "/ping/unknown"]
    mobile = [f"/msdk/evalx/contexts/{written(ANA)}", f"/meval/{written(ANA)}", "/mping"]

    async def answers(of: list[str]) -> set[int]:
        return {(await http.get(door.url + path, headers={"Authorization": "mob-unknown"})).status for path in of}

    try:
        assert await answers(paths + mobile) == {503}
        if first == "keys":
            door.keys.load([make_key()])
        else:
            door.board.load([OPEN], [])
        assert await answers(paths + mobile) == {503}, "half of it is still missing"
        door.keys.load([make_key()])
        door.board.load([OPEN], [])
        assert (await answers(paths), await answers(mobile)) == ({404}, {401})
    finally:
        await door.stop()


# — streams —


async def test_a_stream_says_everything_first_and_then_each_change(http: aiohttp.ClientSession) -> None:
    async with running_door(OPEN) as door:
        for url, headers in ((stream_of(door), {}), (f"{door.url}/meval/{written(ANA)}", MOBILE)):
            async with listening(http, url, headers=headers) as stream:
                event, data = await stream.event()
                assert (event, data[FLAG.key]["value"]) == ("put", False)
                before = data[FLAG.key]["version"]
                door.board.put(with_version(EVERYBODY, before + 10))
                event, data = await stream.event()
                assert (event, data["key"], data["value"], data["version"]) == (
                    "patch",
                    FLAG.key,
                    True,
                    before + 10,
                )
                door.board.put(with_version(OPEN, before + 20))
                assert (await stream.event())[1]["value"] is False


async def test_a_context_in_the_body_opens_a_stream_too(http: aiohttp.ClientSession) -> None:
    async with (
        running_door(STAFF_ONLY) as door,
        http.request("REPORT", f"{door.url}/eval/{CLIENT_ID}?withReasons=true", json=SAM) as response,
    ):
        event, data = await Listening(response).event()
        assert (event, data[FLAG.key]["value"], data[FLAG.key]["reason"]["kind"]) == ("put", True, "RULE_MATCH")


async def test_a_kill_is_said_to_every_stream_and_later_puts_do_not_undo_it(http: aiohttp.ClientSession) -> None:
    async with (
        running_door(EVERYBODY) as door,
        listening(http, stream_of(door)) as ana,
        listening(http, stream_of(door, SAM)) as sam,
    ):
        served = [(await stream.event())[1][FLAG.key] for stream in (ana, sam)]
        assert [one["value"] for one in served] == [True, True]
        door.board.hold_down(FLAG, "kill-1")
        for stream, before in zip((ana, sam), served, strict=True):
            event, data = await stream.event()
            assert (event, data["value"]) == ("patch", False)
            assert data["version"] > before["version"], "an SDK ignores what is not newer"
        door.board.put(with_version(EVERYBODY, 10**15))
        door.board.put(make_flag("marker", client_side=True))
        while (said := (await ana.event())[1])["key"] != "marker":
            assert said["value"] is False


async def test_a_flag_that_is_no_longer_for_clients_is_taken_from_them(http: aiohttp.ClientSession) -> None:
    async with running_door(EVERYBODY) as door, listening(http, stream_of(door)) as stream:
        served = (await stream.event())[1][FLAG.key]
        hidden = raised(make_flag(version=served["version"] + 1), 100_000)
        door.board.put(hidden)
        event, data = await stream.event()
        assert (event, data["key"], data["version"] > served["version"]) == ("delete", FLAG.key, True)
        door.board.put(with_version(EVERYBODY, hidden.version + 1))
        assert (await stream.event())[0] == "patch"
        door.board.put(replace(with_version(EVERYBODY, hidden.version + 2), archived=True))
        assert (await stream.event())[0] == "delete"


async def test_a_flag_that_depends_on_another_is_said_anew_with_it(http: aiohttp.ClientSession) -> None:
    dependent = turned_on(make_flag("dependent", client_side=True), 2)
    data = {
        **dependent.data,
        "prerequisites": [{"key": HIDDEN.key, "variation": 0}],
        "fallthrough": {"variation": 0},
    }
    dependent = replace(dependent, data=data)
    async with running_door(dependent, HIDDEN) as door, listening(http, stream_of(door)) as stream:
        served = (await stream.event())[1]["dependent"]
        assert (served["value"], "prerequisites" in served) == (True, False), "the name of a hidden flag is hidden"
        door.board.put(with_version(make_flag(HIDDEN.key), 10**6))
        event, everything = await stream.event()
        assert (event, everything["dependent"]["value"]) == ("put", False)


async def test_whoever_cannot_send_a_context_is_only_told_to_ask_again(http: aiohttp.ClientSession) -> None:
    async with running_door(OPEN, HIDDEN) as door:
        for url, headers in ((f"{door.url}/ping/{CLIENT_ID}", {}), (f"{door.url}/mping", MOBILE)):
            async with listening(http, url, headers=headers) as stream:
                assert await stream.event() == ("ping", None)
                door.board.put(with_version(HIDDEN, door.board.versions.next()))
                door.board.put(with_version(EVERYBODY, door.board.versions.next()))
                assert await stream.event() == ("ping", None)


async def test_a_revoked_id_ends_its_streams(http: aiohttp.ClientSession) -> None:
    async with running_door(OPEN, heartbeat_seconds=0.05) as door, listening(http, stream_of(door)) as stream:
        await stream.event()
        door.keys.load([make_key()])
        assert await stream.event() == ("end", None)
        await until(lambda: door.client_streams.open == 0)


async def test_streams_end_when_the_doors_close(http: aiohttp.ClientSession) -> None:
    async with running_door(OPEN) as door:
        for url in (stream_of(door), f"{door.url}/ping/{CLIENT_ID}"):
            async with listening(http, url) as stream:
                await stream.event()
                door.board.close()
                assert await stream.event() == ("end", None)
            async with listening(http, url) as late:
                assert await late.event() == ("end", None)


async def test_browsers_take_no_streams_from_servers(http: aiohttp.ClientSession) -> None:
    async with running_door(OPEN, max_streams=1) as door, listening(http, stream_of(door)) as first:
        await first.event()
        async with http.get(stream_of(door)) as second:
            assert (second.status, int(second.headers["Retry-After"]) > 0) == (503, True)
        async with http.get(f"{door.url}/all", headers={"Authorization": KEY}) as server:
            assert server.status == 200


async def test_a_stream_that_is_not_read_keeps_no_more_than_which_flags_changed(
    http: aiohttp.ClientSession,
) -> None:
    big = make_flag(client_side=True)
    big = replace(big, data={**big.data, "variations": ["x" * 200_000, "off"]})
    async with running_door(big, send_seconds=0.3) as door:
        _, writer = await asyncio.open_connection("127.0.0.1", door.port, limit=1024)
        writer.write(f"GET /eval/{CLIENT_ID}/{written(ANA)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await until(lambda: door.client_streams.open == 1)
        for version in range(2, 200):
            door.board.put(with_version(big, version))
            door.board.put(with_version(raised(big, 100_000), version * 1000))
            await asyncio.sleep(0.001)
            if door.client_streams.open == 0:
                break
        await until(lambda: door.client_streams.open == 0)
        await until(lambda: door.connections == 0)
        writer.close()


async def test_many_streams_are_told_a_few_at_a_time_and_all_of_them(http: aiohttp.ClientSession) -> None:
    async with (
        running_door(EVERYBODY) as door,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as many,
    ):
        responses = [await many.get(stream_of(door, {"kind": "user", "key": f"u{n}"})) for n in range(120)]
        streams = [Listening(response) for response in responses]
        for stream in streams:
            assert (await stream.event())[0] == "put"
        door.board.hold_down(FLAG, "kill-1")
        for stream in streams:
            event, data = await stream.event()
            assert (event, data["value"]) == ("patch", False)
        for response in responses:
            response.close()


# — pages of other origins —

PAGE = {"Origin": "https://shop.example"}


async def test_any_page_may_ask_with_a_public_id(http: aiohttp.ClientSession) -> None:
    async with running_door(OPEN) as door:
        asks = {**PAGE, "Access-Control-Request-Method": "REPORT"}
        paths = [f"/sdk/evalx/{CLIENT_ID}/context", f"/eval/{CLIENT_ID}", f"/events/bulk/{CLIENT_ID}"]
        for path in paths:
            async with http.options(door.url + path, headers=asks) as preflight:
                assert (preflight.status, preflight.headers["Access-Control-Allow-Origin"]) == (204, "*")
                allowed = preflight.headers["Access-Control-Allow-Headers"].lower().split(", ")
                assert {"x-launchdarkly-user-agent", "x-launchdarkly-event-schema", "content-type"} <= set(allowed)
                assert int(preflight.headers["Access-Control-Max-Age"]) > 0
        async with http.get(evalx(door), headers=PAGE) as response:
            assert response.headers["Access-Control-Allow-Origin"] == "*"
            assert "Date" in response.headers["Access-Control-Expose-Headers"]
        async with http.get(f"{door.url}/sdk/evalx/unknown/contexts/{written(ANA)}", headers=PAGE) as refused:
            assert (refused.status, refused.headers["Access-Control-Allow-Origin"]) == (404, "*")


async def test_no_page_is_told_what_a_server_is(http: aiohttp.ClientSession) -> None:
    async with running_door(OPEN) as door:
        async with http.options(f"{door.url}/all", headers=PAGE) as preflight:
            assert "Access-Control-Allow-Origin" not in preflight.headers
        async with http.get(f"{door.url}/sdk/latest-all", headers={**PAGE, "Authorization": KEY}) as response:
            assert "Access-Control-Allow-Origin" not in response.headers


async def test_with_origins_in_the_settings_only_their_pages_may_ask(http: aiohttp.ClientSession) -> None:
    async with running_door(OPEN, origins=["https://shop.example"]) as door:
        async with http.get(evalx(door), headers=PAGE) as response:
            assert response.headers["Access-Control-Allow-Origin"] == PAGE["Origin"]
            assert response.headers["Vary"] == "origin"
        async with http.get(evalx(door), headers={"Origin": "https://evil.example"}) as other:
            assert "Access-Control-Allow-Origin" not in other.headers
        async with http.options(evalx(door), headers={"Origin": "https://evil.example"}) as preflight:
            assert "Access-Control-Allow-Headers" not in preflight.headers
