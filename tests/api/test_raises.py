"""Whether exposure may rise, and who may say that it may although a replica is missing (promise I19)."""

import httpx
import msgspec
import pytest

from controller.domain.audit import AuditEntry
from controller.domain.catalogue import Replica
from controller.domain.status import Raises, Released
from tests.api.fake_engine import FakeEngine, Gone

RAISES, RELEASE = "/api/v1/raises", "/api/v1/raises/release"


@pytest.fixture
async def lonely(engine: FakeEngine) -> FakeEngine:
    """replica-2 checked in once, and has been silent since."""
    await engine.store.check_in(Replica(name="replica-2", version="1"), life="1", valid_seconds=5.0, remembered=0)
    engine.clock.passed += 60
    await engine.presence.check_in()
    return engine


async def test_whoever_may_read_sees_what_keeps_exposure_from_rising(
    lonely: FakeEngine, client: httpx.AsyncClient
) -> None:
    answer = await client.get(RAISES, headers=lonely.headers("read"))
    seen = msgspec.json.decode(answer.content, type=Raises)
    assert not seen.allowed
    assert "replica replica-2 has not checked in" in seen.obstacles[0]


async def test_it_is_answered_without_a_database(lonely: FakeEngine, client: httpx.AsyncClient) -> None:
    lonely.store = Gone()
    assert (await client.get(RAISES, headers=lonely.headers("read"))).status_code == 200


async def test_a_release_forgets_the_absent_at_once_and_names_its_author_in_the_audit_log(
    lonely: FakeEngine, client: httpx.AsyncClient
) -> None:
    answer = await client.post(RELEASE, headers=lonely.headers("operate"), json={"note": "scaled away"})
    assert answer.status_code == 200
    released = msgspec.json.decode(answer.content, type=Released)
    assert released.released == ["replica-2"]
    assert released.raises.allowed
    (row,) = await lonely.store.audit()
    entry = msgspec.json.decode(row.body, type=AuditEntry)
    assert (entry.actor, entry.action) == ("operate", "release_raises")
    assert entry.reason.endswith("scaled away")
    assert entry.details["released"] == ["replica-2"]


async def test_nothing_to_release_is_no_audit_row(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    answer = await client.post(RELEASE, headers=engine.headers("operate"))
    assert msgspec.json.decode(answer.content, type=Released).released == []
    assert await engine.store.audit() == []


@pytest.mark.parametrize("scope", ["operate", "admin"])
async def test_a_token_of_one_environment_releases_nothing(
    lonely: FakeEngine, client: httpx.AsyncClient, scope: str
) -> None:
    headers = lonely.headers(scope, environments=("production",))  # type: ignore[arg-type]
    answer = await client.post(RELEASE, headers=headers, json={})
    assert answer.status_code == 403
    assert "limited to production" in answer.json()["detail"]
    assert (await client.get(RAISES, headers=lonely.headers("read"))).json()["allowed"] is False


async def test_a_release_without_a_database_says_so(lonely: FakeEngine, client: httpx.AsyncClient) -> None:
    lonely.store = Gone()
    answer = await client.post(RELEASE, headers=lonely.headers("operate"), json={})
    assert answer.status_code == 503
