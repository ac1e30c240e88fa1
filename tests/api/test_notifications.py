"""Who may see what channels were not told, and send it again (promise I19)."""

import httpx
import msgspec
import pytest

from controller.domain.audit import AuditEntry
from controller.domain.message import Message
from controller.domain.notification import Backlog, DeadLetter, LettersChanged, Owed
from controller.settings import LogChannelSettings, Settings
from controller.store.memory import MemoryStore
from tests.api.fake_engine import FLAG, START, FakeEngine, Gone

LEFT, DEAD = "/api/v1/notifications", "/api/v1/notifications/dead"
REDELIVER, DISCARD = f"{DEAD}/redeliver", f"{DEAD}/discard"


@pytest.fixture
async def letters(engine: FakeEngine) -> list[DeadLetter]:
    """Two to oncall and one to team; and one that waits for team."""
    assert isinstance(engine.store, MemoryStore)
    engine.settings = Settings(channels={"audit-trail": LogChannelSettings()})
    for number, channel in enumerate(["oncall", "oncall", "team", "team"]):
        values = {"at": START, "actor": "kim", "cause": "user", "environment": "production", "reason": "INC-1"}
        entry = AuditEntry(id=f"entry-{number}", action="kill", subject=str(FLAG), **values)  # type: ignore[arg-type]
        engine.store.note(entry)
        told = Message(id=entry.id, sequence=number, event="killed", flag=str(FLAG), **values)  # type: ignore[arg-type]
        await engine.notifications.take([entry.id], [Owed(channel=channel, thread=str(FLAG), message=told)])
        if number < 3:
            await engine.notifications.bury(channel, entry.id, "410: the address is gone")
    return list(await engine.notifications.dead())


def changed(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return msgspec.json.decode(answer.content, type=LettersChanged).ids


async def dead(engine: FakeEngine, client: httpx.AsyncClient, **query: str | int) -> list[DeadLetter]:
    answer = await client.get(DEAD, headers=engine.headers("read"), params=query)
    assert answer.status_code == 200, answer.text
    return msgspec.json.decode(answer.content, type=list[DeadLetter])


async def test_whoever_may_read_sees_what_is_left_to_every_channel(
    engine: FakeEngine, letters: list[DeadLetter], client: httpx.AsyncClient
) -> None:
    engine.clock.passed += 90
    answer = await client.get(LEFT, headers=engine.headers("read"))
    assert msgspec.json.decode(answer.content, type=list[Backlog]) == [
        Backlog(channel="audit-trail"),
        Backlog(channel="oncall", dead=2),
        Backlog(channel="team", waiting=1, oldest_waiting_seconds=90.0, dead=1),
    ]


async def test_dead_letters_come_with_what_they_say_and_why_in_pages_and_by_channel(
    engine: FakeEngine, letters: list[DeadLetter], client: httpx.AsyncClient
) -> None:
    assert await dead(engine, client) == letters
    assert letters[0].why == "410: the address is gone"
    assert letters[0].message is not None
    assert letters[0].message.reason == "INC-1"
    assert await dead(engine, client, limit=1, after=int(letters[0].id)) == letters[1:2]
    assert await dead(engine, client, channel="team") == letters[2:]


@pytest.mark.parametrize("path", [REDELIVER, DISCARD])
async def test_what_is_sent_again_or_discarded_is_named_by_id_by_channel_or_expressly_all_of_it(
    engine: FakeEngine, letters: list[DeadLetter], client: httpx.AsyncClient, path: str
) -> None:
    headers = engine.headers("operate")
    first, second, third = (one.id for one in letters)
    assert changed(await client.post(path, headers=headers, json={"ids": [second, "987"]})) == [second]
    assert (await client.post(path, headers=headers, json={"ids": [first], "channel": "team"})).status_code == 404
    assert changed(await client.post(path, headers=headers, json={"channel": "oncall"})) == [first]
    assert (await client.post(path, headers=headers, json={})).status_code == 422
    assert changed(await client.post(path, headers=headers, json={"everything": True})) == [third]
    assert await dead(engine, client) == []


async def test_what_was_sent_again_waits_and_what_was_discarded_is_gone(
    engine: FakeEngine, letters: list[DeadLetter], client: httpx.AsyncClient
) -> None:
    await client.post(REDELIVER, headers=engine.headers("operate"), json={"channel": "oncall"})
    await client.post(DISCARD, headers=engine.headers("operate"), json={"channel": "team"})
    left = {one.channel: (one.waiting, one.dead) for one in await engine.notifications.backlog()}
    assert left == {"oncall": (2, 0), "team": (1, 0)}


@pytest.mark.parametrize("path", [REDELIVER, DISCARD])
async def test_who_did_it_and_why_is_in_the_audit_log(
    engine: FakeEngine, letters: list[DeadLetter], client: httpx.AsyncClient, path: str
) -> None:
    body = {"ids": [letters[0].id], "note": "the address is back"}
    await client.post(path, headers=engine.headers("operate"), json=body)
    (row,) = await engine.store.audit(newest_first=True, limit=1)
    entry = msgspec.json.decode(row.body, type=AuditEntry)
    verb = path.removeprefix(f"{DEAD}/")
    assert (entry.actor, entry.action) == ("operate", f"{verb}_notifications")
    assert entry.reason.endswith("the address is back")
    assert entry.details == {"messages": ["oncall: entry-0"]}


@pytest.mark.parametrize("path", [REDELIVER, DISCARD])
async def test_ids_of_no_dead_letter_are_said_to_be_none(
    engine: FakeEngine, letters: list[DeadLetter], client: httpx.AsyncClient, path: str
) -> None:
    before = await engine.store.audit_head()
    answer = await client.post(path, headers=engine.headers("operate"), json={"ids": ["987"]})
    assert (answer.status_code, "987" in answer.json()["detail"]) == (404, True)
    assert await engine.store.audit_head() == before


@pytest.mark.parametrize("path", [REDELIVER, DISCARD])
async def test_only_who_may_operate_everywhere_sends_again_or_discards(
    engine: FakeEngine, letters: list[DeadLetter], client: httpx.AsyncClient, path: str
) -> None:
    for headers in (
        engine.headers("read"),
        engine.headers("kill"),
        engine.headers("operate", environments=("production",)),
    ):
        assert (await client.post(path, headers=headers, json={"everything": True})).status_code == 403
    assert len(await engine.notifications.dead()) == 3


async def test_without_a_database_it_says_so(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    engine.notifications = Gone()
    for path in (LEFT, DEAD):
        assert (await client.get(path, headers=engine.headers("read"))).status_code == 503
    answer = await client.post(REDELIVER, headers=engine.headers("operate"), json={"everything": True})
    assert answer.status_code == 503
