"""A replica that was gone while a kill was taken elsewhere, and comes back with old flags (promise I3)."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from controller import lastknown
from controller.app import LAST_KNOWN, Rampart
from controller.domain.flag import FlagSpec, SetShare
from controller.domain.plan import Serve
from controller.domain.sdkflag import new_flag, turned_on, with_share
from controller.settings import DatabaseSettings, Settings
from controller.store.postgres import PostgresStore
from tests.store.samples import FLAG, entry, kill
from tests.support.postgres import database, postgres_server, store
from tests.support.server import free_port

__all__ = ["database", "postgres_server", "store"]

SHARE = SetShare(
    flag=FLAG,
    serve=Serve(rollout="on", fallback="off"),
    exposure=50_000,
    audience=(),
    bucket_by="user",
    comment="",
)


def replica(folder: Path, url: str) -> Rampart:
    return Rampart(Settings(data_dir=str(folder), database=DatabaseSettings(url=url, timeout_seconds=5.0)))


def serves(rampart: Rampart) -> bool:
    """Whether an SDK that asks now is given the flag."""
    config = rampart.board.shown(FLAG)
    return rampart.board.ready and config is not None and bool(config.data["on"])


def remembers(folder: Path) -> bool:
    known = lastknown.load(folder / LAST_KNOWN)
    return known is not None and any(config.data["on"] for config in known.flags)


async def until(condition: Callable[[], bool], *, seconds: float = 15.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - nothing tells when it comes true
            await asyncio.sleep(0.01)


async def served_once(folder: Path, url: str, store: PostgresStore) -> None:
    """A replica has run there, with the flag on, and was stopped."""
    config = new_flag(FlagSpec(environment=FLAG.environment, key=FLAG.key), 1)
    await store.save_flag_config(turned_on(with_share(config, SHARE, 2), 3))
    first = replica(folder, url)
    await first.start()
    await until(lambda: serves(first) and remembers(folder))
    await first.stop()


async def test_a_replica_that_was_gone_when_a_kill_was_taken_serves_the_flag_at_no_moment(
    tmp_path: Path, database: str, store: PostgresStore
) -> None:
    await served_once(tmp_path, database, store)
    await store.record_kill(kill(), entry("kill"))
    second = replica(tmp_path, database)
    await second.start()
    seen = []
    async with asyncio.timeout(15):
        while second.readiness():
            seen.append(serves(second))
            await asyncio.sleep(0)
    seen.append(serves(second))
    await second.stop()
    assert not any(seen)


async def test_a_replica_that_starts_while_the_database_is_away_serves_what_it_served_last(
    tmp_path: Path, database: str, store: PostgresStore
) -> None:
    await served_once(tmp_path, database, store)
    second = replica(tmp_path, f"postgresql://nobody@127.0.0.1:{free_port()}/rampart")
    await second.start()
    await until(lambda: serves(second), seconds=4.0)
    await second.stop()
