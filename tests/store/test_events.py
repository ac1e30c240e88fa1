"""Events in PostgreSQL: counted once, in slots of time, and never for a time that was not counted."""

import asyncio
import uuid
from collections import Counter
from collections.abc import Sequence

import pytest

from controller.domain.evidence import RatioQuestion
from controller.domain.tally import NO_BUCKET, Cell, Delivery, Sketch, Tally, Watch, contexts_of, unpacked
from controller.settings import EventsSourceSettings
from controller.sources.events import EventsSource
from controller.store.events import PostgresEvents
from controller.store.postgres import PostgresStore
from tests.support.many_flags import SystemClock
from tests.support.sources import lent
from tests.support.tracking import WATCHES, deliver, event_door, record

ON = Cell("production", "checkout", "error", "on", "share", 10_000)
OFF = ON._replace(variation="off")
LATENCY = ON._replace(event="latency")
ASKED = [("checkout", "error"), ("checkout", "latency")]
EVERYTHING = [Watch("checkout", one) for one in ("error", "latency", contexts_of("error"))]
WINDOW_SECONDS = 600.0


@pytest.fixture
async def events(store: PostgresStore) -> PostgresEvents:
    kept = PostgresEvents(store.connections, replica="a")
    await kept.watch(EVERYTHING, from_seconds=-3600)
    return kept


def delivery(
    *cells: Cell, count: int = 1, contexts: Sequence[int] = (), buckets: dict[int, int] | None = None
) -> Delivery:
    tallies = {}
    for cell in cells:
        tally = tallies[cell] = Tally()
        tally.count = count
        tally.contexts.add_all(contexts)
        tally.buckets = dict(buckets or {})
    return Delivery(uuid.uuid4().bytes, tallies)


async def counts(events: PostgresEvents, window_seconds: float = WINDOW_SECONDS) -> dict[tuple[Cell, int], int]:
    found = await events.counted(ASKED, window_seconds=window_seconds, contexts=False)
    return {(one.cell, one.bucket): one.count for one in found}


async def contexts(events: PostgresEvents, cell: Cell) -> float:
    found = await events.counted(ASKED, window_seconds=WINDOW_SECONDS, contexts=True)
    return Sketch(one for row in found if row.cell == cell for one in unpacked(row.contexts)).estimate()


async def shift(store: PostgresStore, seconds: float) -> None:
    """The past grows: what was counted moves towards it."""
    for table, column in (("event_counts", "slot"), ("event_counts", "counted_at"), ("event_gaps", "until")):
        await store.connections.execute(
            f"UPDATE {table} SET {column} = {column} - make_interval(secs => $1)", seconds
        )


async def test_a_delivery_that_comes_again_is_not_counted_again_whoever_takes_it(
    store: PostgresStore, events: PostgresEvents
) -> None:
    other = PostgresEvents(store.connections, replica="b")
    one, another = delivery(ON, count=3), delivery(ON, count=4)
    assert await events.count([one, one]) == 1
    assert await other.count([one, another]) == 1
    assert await events.count([one]) == 0
    assert await counts(events) == {(ON, NO_BUCKET): 7}


async def test_replicas_that_take_the_same_at_the_same_time_count_it_once(
    store: PostgresStore, events: PostgresEvents
) -> None:
    replicas = [PostgresEvents(store.connections, replica=str(number)) for number in range(4)]
    deliveries = [delivery(ON, OFF) for _ in range(200)]
    taken = await asyncio.gather(
        *(one.count(deliveries[start : start + 50]) for one in replicas for start in range(0, 200, 50))
    )
    assert sum(taken) == 200
    assert await counts(events) == {(ON, NO_BUCKET): 200, (OFF, NO_BUCKET): 200}


async def test_values_are_counted_by_bucket_beside_all_events(events: PostgresEvents) -> None:
    await events.count([delivery(LATENCY, count=5, buckets={-20: 2, -19: 1})])
    await events.count([delivery(LATENCY, count=1, buckets={-20: 1})])
    assert await counts(events) == {(LATENCY, NO_BUCKET): 6, (LATENCY, -20): 3, (LATENCY, -19): 1}


async def test_contexts_are_one_however_many_replicas_and_slots_they_are_in(
    store: PostgresStore, events: PostgresEvents
) -> None:
    other = PostgresEvents(store.connections, replica="b")
    await events.count([delivery(ON, contexts=[1, 2, 3])])
    await events.count([delivery(ON, contexts=[3, 4])])
    await shift(store, 60)
    await other.count([delivery(ON, contexts=[1, 5])])
    await events.count([delivery(ON, contexts=[1, 2])])
    assert await contexts(events, ON) == 5


async def test_a_window_holds_what_came_in_since_it_began(store: PostgresStore, events: PostgresEvents) -> None:
    await events.count([delivery(ON, count=1)])
    await shift(store, 100)
    await events.count([delivery(ON, count=2)])
    assert await counts(events, 60) == {(ON, NO_BUCKET): 2}
    assert await counts(events, 120) == {(ON, NO_BUCKET): 3}


async def test_the_age_is_that_of_what_came_last(store: PostgresStore, events: PostgresEvents) -> None:
    await events.count([delivery(ON)])
    await shift(store, 40)
    (found,) = await events.counted(ASKED, window_seconds=WINDOW_SECONDS, contexts=False)
    assert found.age_seconds == pytest.approx(40, abs=5)


async def test_nothing_is_said_of_the_time_before_a_gap(store: PostgresStore, events: PostgresEvents) -> None:
    staging = ON._replace(environment="staging")
    await events.count([delivery(ON, staging, count=5)])
    await shift(store, 60)
    await events.note_gap("production", 2)
    await events.note_gap("production", 1)
    assert await counts(events) == {(staging, NO_BUCKET): 5}
    await shift(store, 60)
    await events.count([delivery(ON, count=2)])
    assert await counts(events) == {(ON, NO_BUCKET): 2, (staging, NO_BUCKET): 5}


async def test_nothing_is_said_of_the_time_before_everything_asked_for_was_counted(
    store: PostgresStore, events: PostgresEvents
) -> None:
    await events.count([delivery(ON)])
    await events.watch([Watch("checkout", "another")], from_seconds=5)
    assert await counts(events) == {}, "errors were counted before, but not what they are compared with"
    await events.watch([Watch("another-flag", "error")], from_seconds=5)
    await store.connections.execute("UPDATE event_watches SET since = since - interval '1 hour'")
    await events.watch([Watch("checkout", "another")], from_seconds=5)
    assert await counts(events) == {(ON, NO_BUCKET): 1}, "asking again begins nothing anew"
    assert set(await events.watches()) == {
        *EVERYTHING,
        Watch("checkout", "another"),
        Watch("another-flag", "error"),
    }


async def test_what_is_older_than_is_kept_is_deleted(store: PostgresStore, events: PostgresEvents) -> None:
    old = delivery(ON)
    await events.count([old])
    await store.connections.execute("UPDATE event_counts SET slot = slot - interval '3 hours'")
    await store.connections.execute("UPDATE event_deliveries SET counted_at = counted_at - interval '2 hours'")
    await store.connections.execute("UPDATE event_watches SET asked_at = asked_at - interval '3 hours'")
    await events.count([delivery(ON, count=2)])
    await events.forget(counts_seconds=7200, deliveries_seconds=3600)
    assert await store.connections.fetchval("SELECT count(*) FROM event_counts") == 1
    assert await store.connections.fetchval("SELECT count(*) FROM event_deliveries") == 1
    assert await events.watches() == []
    assert await events.count([old]) == 1


EVENTS, USERS = 30_000, 2_000


@pytest.fixture
async def replicas(store: PostgresStore) -> list[PostgresEvents]:
    found = [PostgresEvents(store.connections, replica=name) for name in ("a", "b")]
    await found[0].watch(WATCHES, from_seconds=-3600)
    return found


async def test_the_events_of_a_real_sdk_are_counted_exactly_and_none_twice(
    store: PostgresStore, replicas: list[PostgresEvents]
) -> None:
    """Two replicas; every delivery is sent three times. What is true is what the SDK itself answered."""
    async with event_door(replicas[0]) as here, event_door(replicas[1]) as there:
        deliveries, kinds, truth = await asyncio.to_thread(record, here.url, events=EVENTS, users=USERS)
        assert sum(kinds.values()) >= EVENTS
        statuses = await deliver([here, there], [*deliveries, *deliveries[:-1], *deliveries[1:]])
        assert set(statuses) == {202}
    rows = await store.connections.fetch(
        "SELECT event, variation, sum(count)::bigint AS count FROM event_counts WHERE bucket = $1"
        " AND event <> 'contexts' GROUP BY event, variation",
        NO_BUCKET,
    )
    assert Counter({(row["event"], row["variation"]): row["count"] for row in rows}) == truth.events
    source = EventsSource("track", EventsSourceSettings(), lent(SystemClock(), replicas[1]))
    for variation in ("on", "off"):
        labels = f'flag="checkout-v2",variation="{variation}"'
        question = RatioQuestion(
            bad=f"error_contexts_total{{{labels}}}", total=f"contexts_total{{{labels}}}", window_seconds=600
        )
        reading = (await source.measure([question]))[question]
        assert reading.bad == pytest.approx(len(truth.contexts["error", variation]), rel=0.15)
        assert reading.total == pytest.approx(len(truth.contexts["latency", variation]), rel=0.15)
