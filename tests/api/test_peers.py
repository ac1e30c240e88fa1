"""The door for other replicas: only their secret opens it, and that secret opens nothing else (promise I19)."""

from typing import Any

import httpx
import msgspec
import pytest

from controller.attempts import FailureLimiter
from controller.domain.catalogue import SCOPES, Kill, KillRecord, PeerAnswer
from controller.settings import Settings
from tests.api.fake_engine import FLAG, PEER_SECRET, START, FakeEngine, Gone, client_of

DOOR = "/api/v1/peers/kills"
OF_A_PEER = {"Authorization": f"Bearer {PEER_SECRET}"}


def record(kill_id: str = "kill-1") -> KillRecord:
    return KillRecord(kill=Kill(id=kill_id, flag=FLAG, accepted_at=START, actor="dana", reason="INC-1"))


def message(*records: KillRecord, **other: Any) -> dict[str, Any]:
    return {"from": "replica-2", "kills": [msgspec.to_builtins(one) for one in records], **other}


async def test_a_replica_that_is_told_takes_the_kills_up_and_says_so(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    answer = await client.post(DOOR, headers=OF_A_PEER, json=message(record()))
    assert answer.status_code == 200
    assert msgspec.json.decode(answer.content, type=PeerAnswer).holds == ("kill-1",)
    assert engine.kills.heard == [record()]


async def test_the_door_opens_to_no_token_whatever_its_scopes(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    for headers in (
        {},
        {"Authorization": "Bearer rampart_guessed"},
        engine.headers("admin"),
        engine.headers(*SCOPES),
    ):
        answer = await client.post(DOOR, headers=headers, json=message(record()))
        assert answer.status_code == 401
        assert answer.headers["content-type"] == "application/problem+json"
    assert not engine.kills.heard


async def test_the_secret_of_the_replicas_opens_no_other_route(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FailureLimiter, "wrong_token", lambda *_: 0.0)
    document = (await client.get("/api/v1/openapi.json")).json()
    values = {"plan": "checkout-v2", "name": "some-name", "key": "checkout-v2", "environment": "production"}
    protected = [
        (method, path.format(**values))
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if operation.get("security")
    ]
    assert len(protected) > 25
    for method, path in protected:
        answer = await client.request(method, path, headers=OF_A_PEER, json={} if method == "post" else None)
        assert answer.status_code == 401, path


async def test_clients_are_not_told_of_the_door(client: httpx.AsyncClient) -> None:
    assert "peers" not in (await client.get("/api/v1/openapi.json")).text


async def test_without_a_secret_there_is_no_door() -> None:
    engine = FakeEngine(settings=Settings())
    engine.peers.secret_digest = b""
    async with client_of(engine) as client:
        for headers in ({}, OF_A_PEER, {"Authorization": "Bearer "}, engine.headers("admin")):
            answer = await client.post(DOOR, headers=headers, json=message())
            assert answer.status_code == 404
            elsewhere = await client.post("/api/v1/nowhere", headers=headers, json=message())
            assert answer.json()["type"] == elsewhere.json()["type"]


async def test_wrong_secrets_and_wrong_tokens_share_one_allowance(client: httpx.AsyncClient) -> None:
    guessed = {"Authorization": "Bearer guessed"}
    for number in range(20):
        path = DOOR if number % 2 else "/api/v1/kills"
        assert (await client.request("POST" if number % 2 else "GET", path, headers=guessed)).status_code == 401
    assert (await client.post(DOOR, headers=guessed)).status_code == 429
    assert (await client.get("/api/v1/kills", headers=guessed)).status_code == 429
    assert (await client.post(DOOR, headers=OF_A_PEER, json=message())).status_code == 200


async def test_the_door_needs_no_database(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    engine.store = Gone()
    answer = await client.post(DOOR, headers=OF_A_PEER, json=message(record()))
    assert answer.status_code == 200
    assert engine.kills.heard


async def test_a_field_of_a_newer_version_is_passed_over(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    body = message(record(), since="2027")
    body["kills"][0]["urgency"] = "high"
    assert (await client.post(DOOR, headers=OF_A_PEER, json=body)).status_code == 200
    assert engine.kills.heard == [record()]


def spoiled(**changed: Any) -> dict[str, Any]:
    body = message(record())
    body["kills"][0]["kill"] |= changed
    return body


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"from": "replica-2"},
        {"from": "a b", "kills": []},
        spoiled(id=""),
        spoiled(id="x" * 101),
        spoiled(id=7),
        spoiled(reason="a\0b"),
        spoiled(accepted_at="2026-11-20T12:00:00"),
        spoiled(flag={"provider": "main", "environment": "production", "key": "a b"}),
        spoiled(cause="whim"),
        message(*[record(str(number)) for number in range(1001)]),
    ],
)
async def test_what_is_no_kill_is_refused_as_a_whole(
    engine: FakeEngine, client: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    answer = await client.post(DOOR, headers=OF_A_PEER, json=body)
    assert answer.status_code == 400, answer.text
    assert not engine.kills.heard


async def test_a_message_over_a_mebibyte_is_refused(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    answer = await client.post(DOOR, headers=OF_A_PEER, json=spoiled(reason="x" * 2**20))
    assert answer.status_code == 413
    assert not engine.kills.heard
