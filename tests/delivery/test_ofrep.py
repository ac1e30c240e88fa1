"""OpenFeature's remote evaluation, on the wire."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from msgspec.structs import replace

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

ONE = f"/ofrep/v1/evaluate/flags/{FLAG.key}"
ALL = "/ofrep/v1/evaluate/flags"
ANA = {"context": {"targetingKey": "ana"}}
SAM = {"context": {"targetingKey": "sam", "email": "sam@acme.example"}}
OPEN = make_flag(client_side=True)
STAFF_ONLY = raised(OPEN, 0, STAFF)
HIDDEN = raised(make_flag("backend-only"), 100_000)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(headers=bearer(KEY)) as session:
        yield session


async def asked(http: aiohttp.ClientSession, url: str, question: Any = ANA, **options: Any) -> tuple[int, Any]:
    async with http.post(url, json=question, **options) as response:
        return response.status, await response.json()


async def test_a_flag_is_answered_with_value_variant_and_reason(http: aiohttp.ClientSession) -> None:
    async with running_door(STAFF_ONLY) as door:
        assert await asked(http, door.url + ONE, SAM) == (
            200,
            {
                "key": FLAG.key,
                "value": True,
                "variant": "on",
                "reason": "TARGETING_MATCH",
                "metadata": {"version": STAFF_ONLY.version},
            },
        )


async def test_a_killed_flag_serves_its_off_variation_and_not_the_callers_default(
    http: aiohttp.ClientSession,
) -> None:
    async with running_door(raised(OPEN, 100_000)) as door:
        assert (await asked(http, door.url + ONE))[1]["value"] is True
        door.board.hold_down(FLAG, "kill-1")
        status, answered = await asked(http, door.url + ONE)
        assert (status, answered["value"], answered["variant"], answered["reason"]) == (
            200,
            False,
            "off",
            "DISABLED",
        )


@pytest.mark.parametrize(
    ("exposure", "reason"), [(0, "STATIC"), (30_000, "SPLIT"), (100_000, "STATIC")], ids=["none", "some", "all"]
)
async def test_a_share_is_a_split_only_between_two(
    http: aiohttp.ClientSession, exposure: int, reason: str
) -> None:
    async with running_door(raised(OPEN, exposure)) as door:
        assert (await asked(http, door.url + ONE))[1]["reason"] == reason


@pytest.mark.parametrize(
    ("question", "code"),
    [
        ([], "INVALID_CONTEXT"),
        ({"context": "ana"}, "INVALID_CONTEXT"),
        ({}, "INVALID_CONTEXT"),
        ({"context": {}}, "TARGETING_KEY_MISSING"),
        ({"context": {"targetingKey": ""}}, "TARGETING_KEY_MISSING"),
        ({"context": {"targetingKey": ["ana"]}}, "INVALID_CONTEXT"),
        ({"context": {"targetingKey": "ana", "kind": "!"}}, "INVALID_CONTEXT"),
    ],
)
async def test_a_question_without_a_context_is_refused_in_openfeatures_words(
    http: aiohttp.ClientSession, question: Any, code: str
) -> None:
    async with running_door(OPEN) as door:
        status, answered = await asked(http, door.url + ONE, question)
        assert (status, answered["key"], answered["errorCode"]) == (400, FLAG.key, code)
        assert answered["errorDetails"]
        status, answered = await asked(http, door.url + ALL, question)
        assert (status, answered["errorCode"], "key" in answered) == (400, code, False)


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[" * 5_000, b'{"context":{}}' + b" " * 70_000])
async def test_what_is_no_question_is_a_parse_error(http: aiohttp.ClientSession, body: bytes) -> None:
    async with running_door(OPEN) as door, http.post(door.url + ONE, data=body) as response:
        assert (response.status, (await response.json())["errorCode"]) == (400, "PARSE_ERROR")


async def test_an_unknown_flag_is_404_with_its_code(http: aiohttp.ClientSession) -> None:
    async with running_door(OPEN, HIDDEN) as door:
        url = f"{door.url}{ALL}/nowhere"
        status, answered = await asked(http, url)
        assert (status, answered["key"], answered["errorCode"]) == (404, "nowhere", "FLAG_NOT_FOUND")
        hidden = f"{door.url}{ALL}/{HIDDEN.key}"
        assert (await asked(http, hidden))[0] == 200
        assert (await asked(http, hidden, headers=bearer(CLIENT_ID)))[1]["errorCode"] == "FLAG_NOT_FOUND"


async def test_a_flag_that_cannot_be_evaluated_says_so_and_hides_no_other(http: aiohttp.ClientSession) -> None:
    broken = turned_on(make_flag("broken"), 2)
    broken = replace(broken, data={**broken.data, "fallthrough": {"variation": 7}})
    async with running_door(OPEN, broken) as door:
        status, answered = await asked(http, f"{door.url}{ALL}/broken")
        assert (status, answered["errorCode"]) == (500, "PARSE_ERROR")
        status, answered = await asked(http, door.url + ALL)
        codes = {one["key"]: one.get("errorCode") for one in answered["flags"]}
        assert (status, codes) == (200, {FLAG.key: None, "broken": "PARSE_ERROR"})


async def test_a_multi_context_names_each_kind(http: aiohttp.ClientSession) -> None:
    context = {"kind": "multi", "user": SAM["context"], "device": {"targetingKey": "phone"}}
    async with running_door(STAFF_ONLY) as door:
        assert (await asked(http, door.url + ONE, {"context": context}))[1]["value"] is True
        device = {"context": {"kind": "device", "targetingKey": "phone", "email": "sam@acme.example"}}
        assert (await asked(http, door.url + ONE, device))[1]["value"] is False


@pytest.mark.parametrize(
    ("headers", "flags"),
    [
        (bearer(KEY), {FLAG.key, HIDDEN.key}),
        ({"X-API-Key": KEY}, {FLAG.key, HIDDEN.key}),
        (bearer(CLIENT_ID), {FLAG.key}),
        (bearer(MOBILE_KEY), {FLAG.key}),
        ({"X-API-Key": CLIENT_ID}, {FLAG.key}),
    ],
    ids=["server", "server-x-api-key", "client", "mobile", "client-x-api-key"],
)
async def test_the_key_says_which_flags_are_answered(headers: dict[str, str], flags: set[str]) -> None:
    async with aiohttp.ClientSession() as http, running_door(OPEN, HIDDEN) as door:
        status, answered = await asked(http, door.url + ALL, headers=headers)
        assert (status, {one["key"] for one in answered["flags"]}) == (200, flags)


@pytest.mark.parametrize("headers", [{}, {"X-API-Key": "wrong"}, bearer("wrong"), {"Authorization": KEY}])
async def test_without_a_known_key_nothing_is_answered(headers: dict[str, str]) -> None:
    async with aiohttp.ClientSession() as http, running_door(OPEN) as door:
        for path in (ONE, ALL):
            assert (await asked(http, door.url + path, headers=headers))[0] == 401


async def test_before_keys_and_flags_are_loaded_nobody_is_refused_for_good(http: aiohttp.ClientSession) -> None:
    door = Door()
    await door.start()
    try:
        async with http.post(door.url + ALL, json=ANA) as early:
            assert (early.status, int(early.headers["Retry-After"]) > 0) == (503, True)
    finally:
        await door.stop()


async def test_nothing_new_is_304_until_something_changed(http: aiohttp.ClientSession) -> None:
    async with running_door(STAFF_ONLY) as door:
        url = door.url + ALL
        async with http.post(url, json=ANA) as full:
            etag = full.headers["ETag"]
        async with http.post(url, json=ANA, headers={"If-None-Match": etag}) as same:
            assert (same.status, await same.read(), same.headers["ETag"]) == (304, b"", etag)
        async with http.post(url, json=SAM, headers={"If-None-Match": etag}) as other:
            assert other.status == 200
        door.board.hold_down(FLAG, "kill-1")
        async with http.post(url, json=ANA, headers={"If-None-Match": etag}) as changed:
            assert (changed.status, changed.headers["ETag"] != etag) == (200, True)


async def next_message(response: aiohttp.ClientResponse) -> dict[str, str]:
    lines: list[str] = []
    async with asyncio.timeout(10):
        while (line := (await response.content.readline()).decode().rstrip("\n")) or not lines:
            if line and line != ":":
                lines.append(line)
    return dict(line.split(": ", 1) for line in lines)


async def test_the_answer_names_a_stream_that_tells_when_to_ask_again(http: aiohttp.ClientSession) -> None:
    async with running_door(OPEN, HIDDEN) as door, aiohttp.ClientSession() as browser:
        (stream,) = (await asked(http, door.url + ALL, headers=bearer(CLIENT_ID)))[1]["eventStreams"]
        assert (stream["type"], stream["inactivityDelaySec"] > 0) == ("sse", True)
        # A browser sends no header with a stream, and finds the place by the origin it knows.
        async with browser.get(door.url + stream["endpoint"]["requestUri"]) as response:
            assert response.headers["Access-Control-Allow-Origin"] == "*"
            first = await next_message(response)
            assert (first["event"], json.loads(first["data"])["type"]) == ("message", "refetchEvaluation")
            door.board.put(with_version(HIDDEN, door.board.versions.next()))
            door.board.hold_down(FLAG, "kill-1")
            second = await next_message(response)
            assert second["id"] != first["id"]
            door.board.close()
            assert await response.content.read() == b""


async def test_the_name_of_a_stream_opens_nothing_else(http: aiohttp.ClientSession) -> None:
    async with running_door(OPEN, heartbeat_seconds=0.05) as door:
        (stream,) = (await asked(http, door.url + ALL))[1]["eventStreams"]
        path = stream["endpoint"]["requestUri"]
        name = path.rpartition("/")[2]
        assert (await asked(http, door.url + ALL, headers=bearer(name)))[0] == 401
        async with http.get(f"{door.url}/all", headers={"Authorization": name}) as refused:
            assert refused.status == 401
        async with http.get(door.url + path) as response:
            await next_message(response)
            door.keys.load([make_key("another")])
            await until(lambda: door.client_streams.open == 0)
        async with http.get(door.url + path) as gone:
            assert gone.status == 404


async def test_pages_of_other_origins_may_ask(http: aiohttp.ClientSession) -> None:
    async with running_door(OPEN) as door:
        page = {"Origin": "https://shop.example"}
        async with http.options(door.url + ALL, headers=page) as preflight:
            allowed = preflight.headers["Access-Control-Allow-Headers"].lower()
            assert all(name in allowed for name in ("authorization", "x-api-key", "content-type", "if-none-match"))
        async with http.post(door.url + ALL, json=ANA, headers=page) as response:
            assert "ETag" in response.headers["Access-Control-Expose-Headers"]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_questions_are_posted(http: aiohttp.ClientSession, method: str) -> None:
    async with running_door(OPEN) as door, http.request(method, door.url + ONE) as refused:
        assert (refused.status, "POST" in refused.headers["Allow"]) == (405, True)
