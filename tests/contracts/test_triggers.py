"""Addresses that kill, in memory as in PostgreSQL."""

import time

import pytest

from controller.domain.catalogue import Trigger
from controller.errors import Conflict
from controller.ports import Store
from controller.store.memory import MemoryStore
from tests.store.samples import FLAG, NOW, entry
from tests.support.postgres import database, postgres_server, store

__all__ = ["database", "postgres_server", "store"]


@pytest.fixture(params=["memory", "postgresql"])
def either(request: pytest.FixtureRequest) -> Store:
    if request.param == "memory":
        return MemoryStore(time.monotonic)
    found: Store = request.getfixturevalue("store")
    return found


def trigger(name: str = "pager", digest: bytes = b"t" * 32) -> Trigger:
    return Trigger(name=name, digest=digest, flag=FLAG, created_at=NOW, created_by="dana")


async def test_a_trigger_comes_back_as_saved_and_is_gone_once_revoked_each_with_its_audit_entry(
    either: Store,
) -> None:
    await either.save_trigger(trigger(), entry())
    assert list(await either.triggers()) == [trigger()]
    assert await either.revoke_trigger("pager", entry())
    assert not await either.revoke_trigger("pager", entry())
    assert list(await either.triggers()) == []
    assert len(await either.audit()) == 2


async def test_a_secret_belongs_to_one_trigger(either: Store) -> None:
    await either.save_trigger(trigger(), entry())
    with pytest.raises(Conflict, match="another trigger has this secret"):
        await either.save_trigger(trigger("other"), entry())
