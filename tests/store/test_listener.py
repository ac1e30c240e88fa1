"""Replicas are told of changes by a real PostgreSQL, and go on being told whatever happens to the connection."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from pathlib import Path
from random import Random
from typing import Any

import pytest
from structlog.testing import capture_logs

from controller.ports import Store
from controller.store.embedded import EmbeddedPostgres
from controller.store.listener import TOPICS, listen
from controller.store.migrations import migrate
from controller.store.postgres import PostgresStore
from tests.store.samples import FLAG, change, entry, flag_config, kill, plan, policy, sdk_key, started, token
from tests.support.postgres import Frozen


class Told:
    """The topics that a replica was told of, in order."""

    def __init__(self) -> None:
        self.topics: list[str] = []
        self._more = asyncio.Event()

    def __call__(self, topic: str) -> None:
        self.topics.append(topic)
        self._more.set()

    async def of(self, *topics: str, within: float = 10.0) -> None:
        async with asyncio.timeout(within):
            while not set(topics) <= set(self.topics):
                self._more.clear()
                await self._more.wait()


@contextlib.asynccontextmanager
async def listening(dsn: str, *, keepalive_seconds: float = 5.0) -> AsyncIterator[Told]:
    """A listener that has connected, with nothing told yet."""
    told = Told()
    task = asyncio.create_task(listen(dsn, told, Random(1), keepalive_seconds=keepalive_seconds))
    try:
        await told.of(*TOPICS)
        told.topics.clear()
        yield told
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.wait([task])


CHANGES: dict[str, tuple[str, Callable[[Store], Awaitable[object]]]] = {
    "record_kill": ("kills", lambda store: store.record_kill(kill(), entry("kill"))),
    "save_flag_config": ("flags", lambda store: store.save_flag_config(flag_config(2))),
    "save_token": ("tokens", lambda store: store.save_token(token(), entry("token"))),
    "save_sdk_key": ("sdk_keys", lambda store: store.save_sdk_key(sdk_key(), entry("key"))),
    "save_plan": ("plans", lambda store: store.save_plan(plan(), entry())),
}
TAKEN_BACK: dict[str, tuple[str, Callable[[Store], Awaitable[object]]]] = {
    "reset_kills": ("kills", lambda store: store.reset_kills(FLAG, ["kill-1"], entry("reset"))),
    "save_flag_config": ("flags", lambda store: store.save_flag_config(flag_config(3))),
    "revoke_token": ("tokens", lambda store: store.revoke_token("ci", entry("revoke"))),
    "revoke_sdk_key": ("sdk_keys", lambda store: store.revoke_sdk_key("shop", entry("revoke"))),
    "save_plan": ("plans", lambda store: store.save_plan(plan(bake="2h"), entry())),
}


async def test_every_change_of_what_replicas_hold_in_memory_is_told_at_once(
    store: PostgresStore, database: str
) -> None:
    async with listening(database) as told:
        for changes in (CHANGES, TAKEN_BACK):
            for topic, make in changes.values():
                told.topics.clear()
                await make(store)
                # A tenth of a second is the promise; the rest is for a busy machine.
                await told.of(topic, within=2.0)
                assert set(told.topics) == {topic}


async def test_a_change_is_told_within_a_tenth_of_a_second(store: PostgresStore, database: str) -> None:
    """The quickest of several: what the machine does meanwhile only ever adds."""
    took = []
    async with listening(database) as told:
        for number in range(10):
            await store.record_kill(kill(f"kill-{number}"), entry("kill"))
            began = asyncio.get_running_loop().time()
            await told.of("kills")
            took.append(asyncio.get_running_loop().time() - began)
            told.topics.clear()
    assert min(took) < 0.1


async def test_what_ticks_write_and_what_changes_nothing_is_not_told(store: PostgresStore, database: str) -> None:
    run = await started(store)
    await store.save_token(token(), entry("token"))
    await store.save_flag_config(flag_config(2))
    await store.record_kill(kill("kill-2", "another"), entry("kill"))
    async with listening(database) as told:
        await store.commit(change(run, "pause"))
        await store.save_token(token(), entry("token"))
        await store.save_flag_config(flag_config(2))
        await store.confirm_kill("kill-2", run.created_at)
        await store.save_policy(policy(limit="3%"), entry())
        await store.save_plan(plan(), entry())
        # What was told before this one would have come before it.
        await store.save_sdk_key(sdk_key(), entry("key"))
        await told.of("sdk_keys")
        assert told.topics == ["sdk_keys"]


async def test_after_its_connection_was_ended_a_replica_is_told_again(store: PostgresStore, database: str) -> None:
    async with listening(database) as told:
        ended = await store._database.fetchval(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            "WHERE datname = current_database() AND query LIKE 'LISTEN%'"
        )
        assert ended == 1
        await told.of(*TOPICS)  # anything may have changed meanwhile
        told.topics.clear()
        await store.record_kill(kill(), entry("kill"))
        await told.of("kills")


async def gives_up(logs: list[MutableMapping[str, Any]]) -> None:
    """Until a listener has said that its connection is gone."""
    async with asyncio.timeout(30):
        while True:
            if any(one["event"] == "not_told_of_changes" for one in logs):
                return
            await asyncio.sleep(0.05)


@pytest.mark.timeout(120)
async def test_a_server_that_froze_is_noticed_and_a_new_one_is_listened_to(tmp_path: Path) -> None:
    """The connection of a frozen server looks healthy; only a question without an answer tells."""
    embedded = EmbeddedPostgres(tmp_path)
    dsn = await embedded.start()
    await migrate(dsn)
    assert embedded.pid is not None
    async with listening(dsn, keepalive_seconds=0.2) as told:
        with Frozen(embedded.pid), capture_logs() as logs:
            await gives_up(logs)
            assert told.topics == []
        await told.of(*TOPICS, within=30)
        told.topics.clear()
        store = PostgresStore(dsn, timeout_seconds=10.0)
        await store.connect()
        await store.record_kill(kill(), entry("kill"))
        await told.of("kills")
        await store.close()
    await embedded.stop()
