"""Several documents are applied together or not at all, in memory as in PostgreSQL."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from controller.domain.audit import AuditEntry
from controller.domain.catalogue import Applied
from controller.errors import Conflict
from controller.ports import Store
from controller.store.memory import MemoryStore
from controller.store.postgres import PostgresStore
from tests.store.samples import entry, flag_config, pending_run, plan, policy
from tests.support.postgres import database, postgres_server, store

__all__ = ["database", "postgres_server", "store"]


@pytest.fixture(params=["memory", "postgresql"])
def either(request: pytest.FixtureRequest) -> Store:
    if request.param == "memory":
        return MemoryStore(time.monotonic)
    found: Store = request.getfixturevalue("store")
    return found


def audited(*documents: Applied) -> Sequence[tuple[Applied, AuditEntry]]:
    return [(document, entry()) for document in documents]


async def everything(store: Store) -> list[Any]:
    return [await store.plans(), await store.policies(), await store.flag_configs(), await store.audit()]


async def test_what_is_saved_together_is_there_with_one_audit_entry_each(either: Store) -> None:
    documents = audited(policy(), flag_config(7), plan())
    assert list(await either.save_together(documents)) == [1, 7, 1]
    bodies = [msgspec.json.decode(row.body, type=AuditEntry) for row in await either.audit()]
    assert [one.id for one in bodies] == [one.id for _, one in documents]


async def test_what_did_not_change_gets_neither_revision_nor_audit_entry(either: Store) -> None:
    await either.save_together(audited(policy(), flag_config(7), plan()))
    again = audited(policy(limit="2%"), flag_config(7), plan())
    assert list(await either.save_together(again)) == [2, 7, 1]
    assert len(await either.audit()) == 4


async def test_when_the_last_cannot_be_saved_the_first_were_not(either: Store) -> None:
    await either.save_together(audited(policy(), plan(), flag_config(7)))
    before = await everything(either)
    with pytest.raises(Conflict, match="is at version 7"):
        await either.save_together(audited(policy(limit="2%"), plan(bake="1h"), flag_config(3)))
    assert await everything(either) == before


async def test_applies_and_starts_at_the_same_time_do_not_wait_for_each_other_in_a_circle(
    store: PostgresStore,
) -> None:
    names = [f"plan-{number}" for number in range(6)]
    await store.save_together(audited(policy(), *(plan(name) for name in names)))

    async def apply(bake: str, order: list[str]) -> None:
        flags = [flag_config(1, key=name) for name in order]
        await store.save_together(audited(*(plan(name, bake=bake) for name in order), *flags))

    starts = [store.create_run(pending_run(name), entry("start")) for name in names]
    applies = [apply("1m", names), apply("2m", names[::-1]), apply("3m", names[3:] + names[:3])]
    await asyncio.gather(*applies, *starts, return_exceptions=False)
    assert {one.revision for one in await store.plans()} == {4}
