"""The API on a real PostgreSQL: what memory forgives is not forgiven here."""

from collections.abc import AsyncIterator

import asyncpg
import httpx
import pytest

from controller.store.postgres import PostgresStore
from tests.api.fake_engine import FakeEngine, client_of
from tests.api.manifests import FLAG, PLAN, POLICY, SETTINGS
from tests.api.test_routes import API, body_of
from tests.support.engine import ModelProvider
from tests.support.postgres import database, postgres_server, store

__all__ = ["database", "postgres_server", "store"]


@pytest.fixture
async def client(store: PostgresStore) -> AsyncIterator[httpx.AsyncClient]:
    engine = FakeEngine(store=store, settings=SETTINGS, providers={"main": ModelProvider()})
    async with client_of(engine) as client:
        client.headers.update(engine.headers())
        yield client


async def test_what_was_applied_is_listed_audited_and_verified(client: httpx.AsyncClient, database: str) -> None:
    three = FLAG + "  variations: { zebra: 1, 'off': false, 'on': true }\n"
    applied = await client.post(
        f"{API}/manifests", json=body_of(PLAN, POLICY, three, note="first\ttime \U0001f680")
    )
    assert applied.status_code == 200, applied.text
    assert applied.json()["revisions"].keys() == {"RolloutPlan/checkout", "GuardrailPolicy/web", "Flag/checkout"}
    (flag,) = (await client.get(f"{API}/flags")).json()
    assert list(flag["variations"]) == ["zebra", "off", "on"]
    assert (await client.get(f"{API}/plans/checkout")).json()["plan"]["spec"]["stages"][1]["exposure"] == "100%"
    again = await client.post(f"{API}/manifests", json=body_of(PLAN, POLICY, three))
    assert again.json()["changes"] == []
    token = await client.post(f"{API}/tokens", json={"name": "ci", "scopes": ["read"], "expires_in": "1d"})
    assert token.status_code == 201
    assert (
        await client.get(f"{API}/kills", headers={"Authorization": f"Bearer {token.json()['secret']}"})
    ).is_success
    key = await client.post(f"{API}/sdk-keys", json={"name": "web", "environment": "production"})
    assert key.status_code == 201
    assert (await client.delete(f"{API}/sdk-keys/web")).status_code == 204
    assert (await client.get(f"{API}/audit/verify")).json()["rows"] == 6
    rows = (await client.get(f"{API}/audit")).json()
    assert [row["entry"]["action"] for row in rows] == [
        *["apply"] * 3,
        "create_token",
        "create_sdk_key",
        "revoke_sdk_key",
    ]
    connection = await asyncpg.connect(database)
    await connection.execute("UPDATE audit SET body = replace(body, 'web', 'wet') WHERE sequence = 1")
    await connection.close()
    assert "row" in (await client.get(f"{API}/audit/verify")).json()["problem"]


@pytest.mark.parametrize("value", ['"a\\0b"', '"\\ud800"', '"\U0001f680"', '"\\u2028"'])
async def test_no_text_of_a_manifest_ends_in_an_internal_error(client: httpx.AsyncClient, value: str) -> None:
    owned = POLICY.replace("{ name: web }", f"{{ name: web, owner: {value} }}")
    answer = await client.post(f"{API}/manifests", json=body_of(owned))
    assert answer.status_code in (200, 422), answer.text


async def test_a_damaged_document_spoils_no_list_and_no_other_apply(
    client: httpx.AsyncClient, store: PostgresStore
) -> None:
    await client.post(f"{API}/manifests", json=body_of(PLAN, POLICY, FLAG))
    await store._database.execute("UPDATE manifest_revisions SET document = '{}' WHERE name = 'web'")
    await store._database.execute("UPDATE flag_configs SET document = '{}'")
    assert [plan.revision for plan in await store.plans()] == [1]
    assert (await client.get(f"{API}/policies")).status_code == 200
    mended = await client.post(f"{API}/manifests", json=body_of(POLICY.replace("1%", "2%")))
    assert mended.status_code == 200, mended.text
    assert mended.json()["revisions"] == {"GuardrailPolicy/web": 2}
    changed = await client.post(
        f"{API}/manifests", json=body_of(FLAG + "  variations: { 'on': true, 'off': 0 }\n")
    )
    assert changed.status_code == 422
    assert "production/checkout cannot be read from the database" in changed.json()["blocks"][0]
