"""Several flags killed by one request: previewed, selected, told one by one."""

from typing import Any

import httpx
import msgspec
import pytest

from controller.domain.selection import KillPreview, Raised
from controller.domain.status import KilledAndNot
from tests.api.fake_engine import FLAG, START, FakeEngine, Gone

KILLS, PREVIEW = "/api/v1/kills", "/api/v1/kills/preview"
TIER_1 = {"labels": {"tier": "1"}}
PRODUCTION = {"provider": "main", "environment": "production", "key": "checkout-v2"}
STAGING = {**PRODUCTION, "environment": "staging"}


async def previewed(engine: FakeEngine, client: httpx.AsyncClient, **body: Any) -> KillPreview:
    answer = await client.post(PREVIEW, headers=engine.headers("read"), json=body)
    assert answer.status_code == 200, answer.text
    return msgspec.json.decode(answer.content, type=KillPreview)


async def test_a_preview_shows_what_would_be_hit_and_hits_nothing(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    found = await previewed(engine, client, **TIER_1)
    (target,) = found.targets
    assert (target.flag, target.owner, target.allowed) == (FLAG, "team-checkout", False)
    assert engine.kills.active() == []


async def test_what_was_raised_lately_is_selected_by_time(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    engine.raised.note(Raised(flag=FLAG, plan="checkout-v2", run="checkout-v2#1", action="advance", at=START))
    engine.clock.passed = 1200
    assert (await previewed(engine, client, raised_within="30m")).targets
    assert not (await previewed(engine, client, raised_within="10m")).targets


async def test_the_same_selection_kills_what_its_preview_showed(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    answer = await client.post(KILLS, headers=engine.headers("kill"), json={**TIER_1, "reason": "INC-1"})
    assert answer.status_code == 200
    assert [kill["flag"]["key"] for kill in answer.json()["kills"]] == ["checkout-v2"]
    assert [(kill.flag, kill.reason) for kill in engine.kills.active()] == [(FLAG, "INC-1")]


async def test_the_flags_of_a_preview_are_killed_by_name(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    answer = await client.post(KILLS, headers=engine.headers("kill"), json={"flags": [PRODUCTION, STAGING]})
    assert answer.status_code == 200
    assert len(engine.kills.active()) == 2


async def test_it_works_with_the_database_away_and_says_so(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    engine.store = Gone()
    assert (await previewed(engine, client, **TIER_1)).doubts
    answer = await client.post(KILLS, headers=engine.headers("kill"), json=TIER_1)
    assert answer.status_code == 200


async def test_a_token_of_one_environment_kills_there_and_is_told_of_the_rest(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    limited = engine.headers("kill", environments=("production",))
    answer = await client.post(KILLS, headers=limited, json={"flags": [STAGING, PRODUCTION]})
    assert answer.status_code == 207
    done = msgspec.json.decode(answer.content, type=KilledAndNot)
    assert [one.flag.environment for one in done.kills] == ["production"]
    assert [one.flag.environment for one in done.refused] == ["staging"]


async def test_when_all_are_refused_nothing_is_called_killed(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    limited = engine.headers("kill", environments=("elsewhere",))
    answer = await client.post(KILLS, headers=limited, json={"flags": [STAGING, PRODUCTION]})
    assert answer.status_code == 422
    assert len(answer.json()["blocks"]) == 2
    assert engine.kills.active() == []


async def test_what_is_not_confirmed_yet_is_202(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    engine.kills.confirms = False
    answer = await client.post(KILLS, headers=engine.headers("kill"), json=TIER_1)
    assert answer.status_code == 202


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"reason": "all of it"}, 422),
        ({"environment": "production"}, 422),
        ({"flags": [PRODUCTION], "labels": {"tier": "1"}}, 422),
        ({"flags": [PRODUCTION], "environment": "production"}, 422),
        ({"raised_within": "25h"}, 422),
        ({"raised_within": "0s"}, 422),
        ({"raised_within": "soon"}, 400),
        ({"labels": {"tier": "9"}}, 404),
    ],
    ids=str,
)
async def test_an_order_that_is_not_clear_kills_nothing(
    engine: FakeEngine, client: httpx.AsyncClient, body: dict[str, Any], status: int
) -> None:
    answer = await client.post(KILLS, headers=engine.headers("kill"), json=body)
    assert answer.status_code == status, answer.text
    assert engine.kills.active() == []


@pytest.mark.parametrize("scopes", [("read",), ("operate",), ("author",), ("approve",)])
async def test_only_who_may_kill_kills_several(
    engine: FakeEngine, client: httpx.AsyncClient, scopes: tuple[Any, ...]
) -> None:
    answer = await client.post(KILLS, headers=engine.headers(*scopes), json=TIER_1)
    assert answer.status_code == 403
