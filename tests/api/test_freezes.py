"""Freezes of the organisation: who may add and lift one, what is refused, and what the audit log says."""

from typing import Any

import httpx
import msgspec
import pytest

from controller.domain.audit import AuditEntry
from controller.domain.freezes import FreezeStatus
from tests.api.fake_engine import FakeEngine, Gone

FREEZES = "/api/v1/freezes"
BLACK_FRIDAY = {
    "name": "black-friday",
    "from": "2026-11-26T00:00",
    "to": "2026-12-01T08:00",
    "timezone": "Europe/Berlin",
    "reason": "the shop is full",
}


def read(answer: httpx.Response) -> FreezeStatus:
    assert answer.status_code < 300, answer.text
    return msgspec.json.decode(answer.content, type=FreezeStatus)


async def entries(engine: FakeEngine) -> list[AuditEntry]:
    return [msgspec.json.decode(row.body, type=AuditEntry) for row in await engine.store.audit()]


async def test_times_are_read_in_the_zone_that_is_named(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    added = read(await client.post(FREEZES, headers=engine.headers("operate"), json=BLACK_FRIDAY))
    assert f"{added.starts_at:%Y-%m-%dT%H:%M}" == "2026-11-25T23:00"
    assert f"{added.ends_at:%Y-%m-%dT%H:%M}" == "2026-12-01T07:00"
    assert added.state == "to_come"


async def test_it_says_which_plans_it_covers_now_and_this_replica_holds_to_it_at_once(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    headers = engine.headers("operate")
    body = {"name": "now", "for": "2h", "reason": "why", "labels": {"tier": "1"}, "environments": ["production"]}
    added = read(await client.post(FREEZES, headers=headers, json=body))
    assert (added.state, added.plans) == ("holds", ["checkout-v2"])
    assert engine.freezebook.covering("production", {"tier": "1"}, now=engine.clock.now())
    other = {**body, "name": "other", "labels": {"tier": "2"}}
    assert read(await client.post(FREEZES, headers=headers, json=other)).plans == []


async def test_adding_and_lifting_name_who_and_why_in_the_audit_log(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    await client.post(FREEZES, headers=engine.headers("operate"), json=BLACK_FRIDAY)
    lifted = await client.post(
        f"{FREEZES}/black-friday/lift", headers=engine.headers("operate", "read"), json={"note": "sold out"}
    )
    assert (read(lifted).state, read(lifted).lifted_by) == ("lifted", "operate-read")
    added, ended = await entries(engine)
    assert (added.actor, added.action, added.subject) == ("operate", "add_freeze", "freeze/black-friday")
    assert added.reason == (
        "operate froze all plans in all environments from 2026-11-26 00:00 to 2026-12-01 08:00 Europe/Berlin: "
        "the shop is full"
    )
    assert (ended.actor, ended.action) == ("operate-read", "lift_freeze")
    assert ended.reason.endswith("which was to last until 2026-12-01 08:00 Europe/Berlin: sold out")
    headers = engine.headers("read")
    assert (await client.get(FREEZES, headers=headers)).json() == []
    assert [one["state"] for one in (await client.get(f"{FREEZES}?all=true", headers=headers)).json()] == [
        "lifted"
    ]


@pytest.mark.parametrize("scopes", [("read",), ("author",), ("kill",), ("approve",)])
async def test_only_who_may_operate_adds_or_lifts_one(
    engine: FakeEngine, client: httpx.AsyncClient, scopes: tuple[Any, ...]
) -> None:
    headers = engine.headers(*scopes)
    assert (await client.post(FREEZES, headers=headers, json=BLACK_FRIDAY)).status_code == 403
    assert (await client.post(f"{FREEZES}/x/lift", headers=headers, json={"note": "y"})).status_code == 403


async def test_a_token_of_one_environment_freezes_and_thaws_nothing_beyond_it(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    limited = engine.headers("operate", environments=("staging",))
    assert (await client.post(FREEZES, headers=limited, json=BLACK_FRIDAY)).status_code == 403
    there = {**BLACK_FRIDAY, "environments": ["production"]}
    assert (await client.post(FREEZES, headers=limited, json=there)).status_code == 403
    here = {**BLACK_FRIDAY, "name": "here", "environments": ["staging"]}
    assert (await client.post(FREEZES, headers=limited, json=here)).status_code == 201
    await client.post(FREEZES, headers=engine.headers("operate"), json=BLACK_FRIDAY)
    refused = await client.post(f"{FREEZES}/black-friday/lift", headers=limited, json={"note": "mine"})
    assert refused.status_code == 403
    assert (await client.post(f"{FREEZES}/here/lift", headers=limited, json={"note": "mine"})).status_code == 200


@pytest.mark.parametrize(
    ("changes", "field", "told"),
    [
        ({"to": "2026-11-25T00:00"}, "to", "it ends before it begins"),
        ({"from": "2025-11-26T00:00", "to": "2025-12-01T08:00"}, "to", "it is over already"),
        ({"to": "2062-12-01T08:00"}, "to", "longer than a year"),
        ({"to": None}, "to", "either until when"),
        ({"for": "2h"}, "to", "either until when"),
        ({"timezone": "Europe/Atlantis"}, "timezone", "is no time zone"),
        ({"timezone": "Europe"}, "timezone", "is no time zone"),
        ({"from": "2026-02-31T00:00"}, "from", "is no day and time"),
    ],
)
async def test_what_cannot_be_meant_is_refused_naming_the_field(
    engine: FakeEngine, client: httpx.AsyncClient, changes: dict[str, Any], field: str, told: str
) -> None:
    body = {key: value for key, value in (BLACK_FRIDAY | changes).items() if value is not None}
    refused = await client.post(FREEZES, headers=engine.headers("operate"), json=body)
    assert refused.status_code == 422
    (problem,) = refused.json()["problems"]
    assert problem["path"] == field
    assert told in problem["message"]
    assert await engine.store.audit() == []


async def test_a_freeze_has_a_reason(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    refused = await client.post(FREEZES, headers=engine.headers("operate"), json={**BLACK_FRIDAY, "reason": ""})
    assert refused.status_code == 400


async def test_a_name_is_taken_while_its_freeze_is_not_over(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    headers = engine.headers("operate")
    await client.post(FREEZES, headers=headers, json=BLACK_FRIDAY)
    assert (await client.post(FREEZES, headers=headers, json=BLACK_FRIDAY)).status_code == 409
    engine.clock.passed = 30 * 86_400
    again = {**BLACK_FRIDAY, "from": "2027-11-25T00:00", "to": "2027-11-30T08:00"}
    assert (await client.post(FREEZES, headers=headers, json=again)).status_code == 201


async def test_there_is_an_end_to_how_many_may_stand(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    headers = engine.headers("operate")
    for number in range(100):
        await client.post(FREEZES, headers=headers, json={**BLACK_FRIDAY, "name": f"n{number}"})
    assert (await client.post(FREEZES, headers=headers, json=BLACK_FRIDAY)).status_code == 422


async def test_without_a_database_a_freeze_is_not_called_added(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    engine.store = Gone()
    answer = await client.post(FREEZES, headers=engine.headers("operate"), json=BLACK_FRIDAY)
    assert answer.status_code == 503


async def test_what_is_not_there_cannot_be_lifted(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    answer = await client.post(f"{FREEZES}/nothing/lift", headers=engine.headers("operate"), json={"note": "x"})
    assert answer.status_code == 404
