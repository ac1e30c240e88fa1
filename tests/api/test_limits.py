"""A flood or a slow caller takes what is theirs, and never the kill routes (promise I20)."""

import asyncio
from typing import Any

import httpx
import pytest

from controller import api
from controller.access import Actor
from controller.admission import MAX_BODY_BYTES
from controller.domain.status import RunStatus
from tests.api.fake_engine import FakeEngine, client_of

KILL = "/api/v1/flags/checkout-v2/kill"
PAUSE = "/api/v1/plans/checkout-v2/pause"


async def test_a_body_over_a_mebibyte_is_refused(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    answer = await client.post("/api/v1/manifests", headers=engine.headers(), content=b" " * (MAX_BODY_BYTES + 1))
    assert answer.status_code == 413
    assert answer.json()["type"] == "urn:rampart:too-large"


async def test_a_body_without_a_length_is_refused_when_it_grows_too_large(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    async def endless() -> Any:
        for _ in range(MAX_BODY_BYTES // 1024 + 2):
            yield b" " * 1024

    answer = await client.post("/api/v1/manifests", headers=engine.headers(), content=endless())
    assert answer.status_code == 413


async def test_a_file_over_its_limit_is_a_problem_with_its_name(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    body = {"files": [{"name": "big.yaml", "text": "x" * (256 * 1024 + 1)}]}
    answer = await client.post("/api/v1/manifests", headers=engine.headers(), json=body)
    assert answer.status_code == 422
    assert [(one["file"], one["code"]) for one in answer.json()["problems"]] == [("big.yaml", "R000")]


async def test_a_full_house_answers_at_once_and_still_kills(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "REQUESTS_AT_ONCE", 3)
    engine = FakeEngine()
    gate, all_inside = asyncio.Event(), asyncio.Barrier(4)

    async def stuck(plan: str, actor: Actor, note: str) -> RunStatus:
        await all_inside.wait()
        await gate.wait()
        return await engine.commands.status(plan)

    engine.commands.pause = stuck  # type: ignore[method-assign]
    async with client_of(engine) as client:
        headers = engine.headers()
        waiting = [asyncio.create_task(client.post(PAUSE, headers=headers)) for _ in range(3)]
        async with asyncio.timeout(5):
            await all_inside.wait()
            refused = await client.get("/api/v1/plans", headers=headers)
            assert refused.status_code == 503
            assert refused.headers["retry-after"] == "1"
            assert refused.json()["type"] == "urn:rampart:busy"
            assert (await client.post(KILL, headers=headers)).status_code == 200
            gate.set()
            assert [answer.status_code for answer in await asyncio.gather(*waiting)] == [200] * 3
            assert (await client.get("/api/v1/plans", headers=headers)).status_code == 200


async def test_a_body_that_does_not_come_to_its_end_gives_its_place_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controller.admission.BODY_WITHIN_SECONDS", 0.05)
    monkeypatch.setattr(api, "KILLS_AT_ONCE", 1)
    engine = FakeEngine()

    async def dripping() -> Any:
        yield b'{"reason": '
        await asyncio.sleep(60)

    async with client_of(engine) as client:
        slow = await client.post(KILL, headers=engine.headers("kill"), content=dripping())
        assert slow.status_code == 408
        assert slow.json()["type"] == "urn:rampart:too-slow"
        assert (await client.post(KILL, headers=engine.headers("kill"))).status_code == 200


async def test_a_caller_without_a_token_holds_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "KILLS_AT_ONCE", 1)
    engine = FakeEngine()

    async def never() -> Any:
        await asyncio.sleep(60)
        yield b"{}"

    async with client_of(engine) as client, asyncio.timeout(5):
        assert (await client.post(KILL, content=never())).status_code == 401
        assert (await client.post(KILL, headers=engine.headers("kill"))).status_code == 200
