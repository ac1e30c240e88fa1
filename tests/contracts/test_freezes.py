"""Freezes of the organisation, and what they do to commits, in memory as in PostgreSQL."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from controller.domain.audit import AuditEntry
from controller.domain.catalogue import Transition
from controller.domain.freezes import OrganisationFreeze
from controller.domain.rollout import Run
from controller.errors import FreezeBegan
from controller.ports import Store
from controller.store.memory import MemoryStore
from tests.store.samples import change, created_run, entry
from tests.support.postgres import Server, database, postgres_server, store

__all__ = ["database", "postgres_server", "store"]


@pytest.fixture(params=["memory", "postgresql"])
def either(request: pytest.FixtureRequest) -> Store:
    if request.param == "memory":
        return MemoryStore(time.monotonic)
    found: Store = request.getfixturevalue("store")
    return found


def now() -> datetime:
    return datetime.now(UTC)


def freeze(name: str = "black-friday", **values: Any) -> OrganisationFreeze:
    start = now() - timedelta(minutes=1)
    return OrganisationFreeze(
        **{
            "name": name,
            "starts_at": start,
            "ends_at": start + timedelta(days=3),
            "added_by": "dana",
            "added_at": start,
            "reason": "the shop is full",
            **values,
        }
    )


async def add(store: Store, one: OrganisationFreeze) -> int | None:
    return await store.add_freeze(one, replace(entry("add_freeze"), at=now()))


def rising(run: Run, *, newest: int | None, raises: bool = True) -> Transition:
    step = change(run, "start", raises=raises, newest_freeze=newest)
    return replace(step, entry=replace(step.entry, at=now()))


async def test_a_freeze_comes_back_as_it_was_added_with_the_number_of_its_audit_row(either: Store) -> None:
    first = freeze(environments=("production",), labels={"tier": "1"}, timezone="Europe/Berlin")
    number = await add(either, first)
    assert number == (await either.audit_head())[0]
    assert list(await either.freezes()) == [replace(first, number=number)]


async def test_a_name_is_free_again_once_its_freeze_is_over_or_was_lifted(either: Store) -> None:
    over = freeze(ends_at=now() - timedelta(seconds=1))
    assert await add(either, over)
    assert await add(either, freeze())
    rows = await either.audit_head()
    assert await add(either, freeze()) is None
    assert await either.audit_head() == rows
    assert await either.lift_freeze(freeze(lifted_at=now()), replace(entry("lift_freeze"), at=now()))
    assert await add(either, freeze())


async def test_of_two_freezes_of_one_name_added_at_the_same_time_one_is_there(either: Store) -> None:
    numbers = await asyncio.gather(*(add(either, freeze()) for _ in range(8)))
    assert sum(number is not None for number in numbers) == 1
    assert len(await either.freezes()) == 1


async def test_a_lifted_freeze_stands_no_more_and_stays_in_the_history(either: Store) -> None:
    await add(either, freeze())
    lifted = freeze(lifted_at=now(), lifted_by="kim", lifted_why="over early")
    assert await either.lift_freeze(lifted, replace(entry("lift_freeze"), at=now()))
    assert not await either.freezes()
    assert [one.lifted_by for one in await either.latest_freezes()] == ["kim"]
    assert not await either.lift_freeze(lifted, replace(entry("lift_freeze"), at=now()))
    assert [msgspec.json.decode(row.body, type=AuditEntry).action for row in await either.audit()] == [
        "add_freeze",
        "lift_freeze",
    ]


async def test_a_raise_that_was_decided_before_a_freeze_was_added_does_not_happen(either: Store) -> None:
    run = await created_run(either)
    number = await add(either, freeze())
    with pytest.raises(FreezeBegan, match="decide again"):
        await either.commit(rising(run, newest=(number or 0) - 1))
    found = await either.run(run.id)
    assert found is not None
    assert found[0] == run
    assert len(await either.audit(run=run.id)) == run.version


async def test_a_freeze_that_was_known_when_it_was_decided_is_not_judged_again_by_the_database(
    either: Store,
) -> None:
    run = await created_run(either)
    number = await add(either, freeze(labels={"tier": "1"}))
    await either.commit(rising(run, newest=number))


@pytest.mark.parametrize(
    "other",
    [
        {"starts_at": now() + timedelta(hours=1)},
        {"ends_at": now() - timedelta(seconds=30)},
        {"lifted_at": now() - timedelta(seconds=30)},
    ],
    ids=["to come", "over", "lifted"],
)
async def test_a_freeze_that_does_not_hold_stops_nothing(either: Store, other: dict[str, Any]) -> None:
    run = await created_run(either)
    await add(either, freeze())
    await either.lift_freeze(freeze(lifted_at=now()), replace(entry("lift_freeze"), at=now()))
    if "lifted_at" not in other:
        await add(either, freeze("another", **other))
    await either.commit(rising(run, newest=0))


async def test_what_freezes_do_not_stand_against_is_committed_all_the_same(either: Store) -> None:
    run = await created_run(either)
    await add(either, freeze())
    await either.commit(rising(run, newest=None))


async def test_a_replica_of_an_earlier_version_raises_nothing_while_a_freeze_holds(
    store: Store, postgres_server: Server
) -> None:
    await add(store, freeze())
    with pytest.raises(Exception, match="no run may rise"):
        await postgres_server._run("tests", "SELECT append_raise('old', '{}', NULL, NULL)")
    await store.lift_freeze(freeze(lifted_at=now()), replace(entry("lift_freeze"), at=now()))
    await postgres_server._run("tests", "SELECT append_raise('old', '{}', NULL, NULL)")


async def test_a_freeze_that_cannot_be_read_covers_every_plan(store: Store, postgres_server: Server) -> None:
    await add(store, freeze(labels={"tier": "1"}))
    await postgres_server._run("tests", """UPDATE freezes SET document = '{"later": 1}'""")
    (found,) = await store.freezes()
    assert found.covers("anywhere", {})
    assert found.holds(now())
