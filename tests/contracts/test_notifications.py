"""What both stores of notifications promise, in memory as in PostgreSQL."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from msgspec import Struct

from controller.domain.audit import AuditEntry
from controller.domain.message import Message, message
from controller.domain.notification import Backlog, Letters, Owed, Shed, Waiting
from controller.ports import NotificationStore, Store
from controller.store.memory import MemoryStore
from controller.store.memory_notifications import MemoryNotifications
from controller.store.notifications import OF_A_THREAD, PostgresNotifications
from controller.store.postgres import PostgresStore
from tests.contracts.store_contract import audited
from tests.store.samples import entry, plan, sdk_key
from tests.support.postgres import database, postgres_server, store

__all__ = ["database", "postgres_server", "store"]


class Kept(Struct):
    """A store, what is kept beside it, and a way to let its time pass."""

    store: Store
    notifications: NotificationStore
    pass_seconds: Callable[[float], Awaitable[None]]

    async def happen(self, count: int = 1, *, flag: str = "one") -> list[AuditEntry]:
        """Audit entries of kills of this flag."""
        entries = [entry("kill", flag=flag) for _ in range(count)]
        for one in entries:
            # Anything that is recorded with an entry of its own.
            await self.store.save_sdk_key(sdk_key(one.id, one.id.rjust(32).encode()), one)
        return entries

    async def take(self, *entries: AuditEntry, channels: tuple[str, ...] = ("oncall",)) -> list[str]:
        owed = [
            Owed(channel=channel, thread=str(one.flag), message=of(one)) for one in entries for channel in channels
        ]
        await self.notifications.take([one.id for one in entries], owed)
        return [one.id for one in entries]

    async def waiting(self, channel: str = "oncall", **options: Any) -> list[Waiting]:
        wanted: dict[str, Any] = {"resting": (), "limit": 100} | options
        return list(await self.notifications.waiting(channel, **wanted))

    async def ids(self, channel: str = "oncall", **options: Any) -> list[str]:
        return [one.message.id for one in await self.waiting(channel, **options)]

    async def left(self) -> dict[str, tuple[int, int]]:
        return {one.channel: (one.waiting, one.dead) for one in await self.notifications.backlog()}


def of(one: AuditEntry) -> Message:
    told = message(7, one, plan(), "")
    assert told is not None
    return told


@pytest.fixture(params=["memory", "postgresql"])
def kept(request: pytest.FixtureRequest) -> Kept:
    if request.param == "memory":
        elapsed = [1000.0]

        async def pass_model_seconds(seconds: float) -> None:
            elapsed[0] += seconds

        memory = MemoryStore(lambda: elapsed[0])
        return Kept(memory, MemoryNotifications(memory, lambda: elapsed[0]), pass_model_seconds)
    found: PostgresStore = request.getfixturevalue("store")

    async def pass_seconds(seconds: float) -> None:
        """The past grows instead: everything moves towards it."""
        past = "make_interval(secs => $1)"
        statement = f"UPDATE notifications SET taken_at = taken_at - {past}, died_at = died_at - {past}"
        await found.connections.execute(statement, seconds)

    return Kept(found, PostgresNotifications(found.connections), pass_seconds)


async def test_what_is_taken_is_announced_and_waits_for_each_channel_in_order(kept: Kept) -> None:
    entries = await kept.happen(3)
    assert [one for _, one in await kept.store.unannounced(10)] == entries
    ids = await kept.take(*reversed(entries[:2]), channels=("oncall", "team"))
    assert [one for _, one in await kept.store.unannounced(10)] == entries[2:]
    assert await kept.ids() == await kept.ids("team") == list(reversed(ids))
    assert (await kept.waiting())[0].message == of(entries[0])
    assert await kept.ids("nobody") == []


async def test_what_nobody_is_to_be_told_of_is_announced_too(kept: Kept) -> None:
    entries = await kept.happen(2)
    await kept.notifications.take([one.id for one in entries], [])
    assert await kept.store.unannounced(10) == []
    assert await kept.notifications.backlog() == []


async def test_what_was_taken_before_is_not_owed_again_though_it_was_told_meanwhile(kept: Kept) -> None:
    (one,) = await kept.happen()
    ids = await kept.take(one)
    await kept.take(one)
    assert await kept.ids() == ids
    await kept.notifications.told("oncall", ids)
    await kept.take(one)
    assert await kept.ids() == []


async def test_of_those_that_take_the_same_at_once_it_is_owed_once(kept: Kept) -> None:
    entries = await kept.happen(5)
    await asyncio.gather(*(kept.take(*entries) for _ in range(4)))
    assert await kept.ids() == [one.id for one in entries]


async def test_an_entry_that_the_database_lost_is_neither_announced_nor_owed(kept: Kept) -> None:
    (known,) = await kept.happen()
    lost = entry("kill", flag="one")
    await kept.take(lost, known)
    assert await kept.ids() == [known.id]


async def test_a_channel_that_was_told_leaves_the_others_alone(kept: Kept) -> None:
    ids = await kept.take(*await kept.happen(2), channels=("oncall", "team"))
    await kept.notifications.told("oncall", ids[:1])
    assert (await kept.ids(), await kept.ids("team")) == (ids[1:], ids)


async def test_a_flag_that_rests_and_one_with_many_messages_hide_no_other(kept: Kept) -> None:
    many = await kept.take(*await kept.happen(OF_A_THREAD + 5, flag="many"))
    few = await kept.take(*await kept.happen(2, flag="few"))
    assert await kept.ids() == many[:OF_A_THREAD] + few
    assert await kept.ids(resting=["many"]) == few
    assert await kept.ids(limit=3) == many[:3]


async def test_a_failed_attempt_is_counted_and_it_waits_on(kept: Kept) -> None:
    (told,) = await kept.take(*await kept.happen())
    for _ in range(2):
        await kept.notifications.failed("oncall", told, "no route")
    await kept.pass_seconds(30)
    (waiting,) = await kept.waiting()
    assert waiting.attempts == 2
    assert waiting.waited_seconds == pytest.approx(30, abs=10)


async def test_what_is_buried_is_a_dead_letter_and_tried_no_more(kept: Kept) -> None:
    first, second = await kept.happen(2)
    ids = await kept.take(first, second, channels=("oncall", "team"))
    await kept.notifications.failed("oncall", ids[0], "no route")
    await kept.notifications.bury("oncall", ids[0], "410")
    await kept.notifications.failed("oncall", ids[0], "too late")
    assert (await kept.ids(), await kept.ids("team")) == (ids[1:], ids)
    (letter,) = await kept.notifications.dead()
    assert (letter.channel, letter.attempts, letter.why, letter.message) == ("oncall", 2, "410", of(first))
    assert await kept.left() == {"oncall": (1, 1), "team": (2, 0)}


async def test_dead_letters_are_listed_in_pages_and_by_channel(kept: Kept) -> None:
    ids = await kept.take(*await kept.happen(3), channels=("oncall", "team"))
    for told in ids:
        await kept.notifications.bury("oncall", told, "410")
    await kept.notifications.bury("team", ids[0], "410")
    everything = await kept.notifications.dead()
    assert len(everything) == 4
    page = await kept.notifications.dead(limit=2)
    assert [*page, *await kept.notifications.dead(after=int(page[-1].id))] == everything
    assert [one.message.id for one in await kept.notifications.dead(channel="team") if one.message] == ids[:1]


async def test_the_backlog_tells_how_much_is_left_and_how_long_it_waits(kept: Kept) -> None:
    ids = await kept.take(*await kept.happen(2), channels=("oncall", "team"))
    await kept.pass_seconds(50)
    await kept.notifications.told("team", ids)
    for why in ("no route", "503"):
        await kept.notifications.failed("oncall", ids[1], why)
    (left,) = await kept.notifications.backlog()
    assert (left.channel, left.waiting, left.dead, left.why) == ("oncall", 2, 0, "503")
    assert left.oldest_waiting_seconds == pytest.approx(50, abs=10)
    for told in ids:
        await kept.notifications.bury("oncall", told, "410")
    assert await kept.notifications.backlog() == [Backlog(channel="oncall", dead=2)]


async def test_only_what_waits_for_too_long_is_given_up(kept: Kept) -> None:
    old = await kept.take(*await kept.happen(2))
    await kept.pass_seconds(1000)
    new = await kept.take(*await kept.happen())
    assert await kept.notifications.give_up("oncall", older_than_seconds=500, why="nobody there") == 2
    assert await kept.ids() == new
    assert [(one.message.id, one.why) for one in await kept.notifications.dead() if one.message] == [
        (told, "nobody there") for told in old
    ]


async def test_of_too_many_the_oldest_die_and_of_too_many_dead_the_oldest_are_dropped(kept: Kept) -> None:
    ids = await kept.take(*await kept.happen(6))
    others = await kept.take(*await kept.happen(2), channels=("team",))
    shed = await kept.notifications.shed(waiting=2, dead=3)
    assert shed == [Shed(channel="oncall", given_up=4, dropped=1)]
    assert (await kept.ids(), await kept.ids("team")) == (ids[4:], others)
    assert [one.message.id for one in await kept.notifications.dead() if one.message] == ids[1:4]
    assert await kept.notifications.shed(waiting=2, dead=3) == []


async def test_a_dead_letter_that_is_sent_again_waits_in_its_old_place_as_if_it_were_new(kept: Kept) -> None:
    ids = await kept.take(*await kept.happen(2))
    await kept.notifications.bury("oncall", ids[0], "410")
    await kept.pass_seconds(1000)
    (letter,) = await kept.notifications.dead()
    redelivered = await kept.notifications.redeliver(Letters(ids=(letter.id, "987654")), entry("redeliver"))
    assert list(redelivered) == [letter.id]
    waiting = await kept.waiting()
    assert [one.message.id for one in waiting] == ids
    assert waiting[0].attempts == 0
    assert waiting[0].waited_seconds < 100
    assert await kept.notifications.dead() == []


@pytest.mark.parametrize("verb", ["redeliver", "discard"])
async def test_what_a_person_does_with_dead_letters_is_audited_with_their_ids(kept: Kept, verb: str) -> None:
    ids = await kept.take(*await kept.happen(2), channels=("oncall", "team"))
    for channel in ("oncall", "team"):
        await kept.notifications.bury(channel, ids[0], "410")
    before = len(await audited(kept.store))
    changed = await getattr(kept.notifications, verb)(Letters(channel="team"), entry(verb))
    assert len(changed) == 1
    assert (await audited(kept.store))[before:] == [verb]
    _, recorded = (await kept.store.unannounced(100))[-1]
    assert recorded.details == {"messages": [f"team: {ids[0]}"]}
    assert [one.channel for one in await kept.notifications.dead()] == ["oncall"]
    waits = ids if verb == "redeliver" else ids[1:]
    assert await kept.ids("team") == waits


async def test_nothing_that_is_dead_is_neither_sent_again_nor_audited(kept: Kept) -> None:
    ids = await kept.take(*await kept.happen())
    before = await audited(kept.store)
    for verb in (kept.notifications.redeliver, kept.notifications.discard):
        assert list(await verb(Letters(), entry("redeliver"))) == []
        assert list(await verb(Letters(ids=("1", "2", "3")), entry("redeliver"))) == []
    assert await kept.ids() == ids
    assert await audited(kept.store) == before


async def test_what_cannot_be_read_is_a_dead_letter_that_can_be_discarded(store: PostgresStore) -> None:
    kept = Kept(store, PostgresNotifications(store.connections), asyncio.sleep)
    ids = await kept.take(*await kept.happen(2))
    statement = """UPDATE notifications SET document = '{"id": 1}' WHERE message = $1"""
    await store.connections.execute(statement, ids[0])
    assert await kept.ids() == ids[1:]
    (letter,) = await kept.notifications.dead()
    assert letter.message is None
    assert letter.why.startswith("it cannot be read:")
    assert list(await kept.notifications.discard(Letters(ids=(letter.id,)), entry("discard"))) == [letter.id]


async def test_a_backlog_leaves_connections_of_the_pool_to_ticks_and_kills(
    store: PostgresStore, database: str
) -> None:
    notifications = PostgresNotifications(store.connections)
    other = await asyncpg.connect(database)
    async with other.transaction():
        await other.execute("LOCK TABLE notifications")
        asking = [asyncio.create_task(notifications.backlog()) for _ in range(8)]
        await store.connections.execute("SELECT pg_sleep(0.1)")
        assert await store.audit_head() == (0, bytes(32))
        assert not any(one.done() for one in asking)
    await asyncio.gather(*asking)
    await other.close()
