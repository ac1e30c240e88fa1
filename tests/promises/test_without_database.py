"""Kills and kill rules while the database is away, and the first moments with one again (promises I3, I4)."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from controller.app import Rampart
from controller.domain.flag import FlagSpec, FlagState, SetShare
from controller.domain.plan import Serve
from controller.domain.sdkflag import new_flag, turned_on, with_share
from controller.errors import RampartError, StoreUnavailable
from controller.settings import DatabaseSettings, Settings
from controller.store.postgres import PostgresStore
from tests.store.samples import FLAG, entry, kill
from tests.support.engine import DANA, World
from tests.support.postgres import database, postgres_server, store

__all__ = ["database", "postgres_server", "store"]

SPEC = FlagSpec(environment=FLAG.environment, key=FLAG.key)


async def away(*_: object, **__: object) -> None:
    raise StoreUnavailable("frozen")


def take_away(world: World) -> None:
    for method in ("claim_due", "commit", "committed", "record_kill", "active_kills", "save_observations"):
        setattr(world.store, method, away)


async def test_a_run_that_rose_just_before_the_database_went_away_is_judged_by_its_kill_rules(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    await world.apply()
    await world.commands.start("checkout-v2", DANA, "")
    await world.tick()
    assert (await world.run()).phase == "progressing"
    take_away(world)
    # The start was committed and applied; this replica never claimed the run again.
    world.provider.put(world.plan.spec.flag, FlagState(enabled=True, exposure=1_000, audience=("staff",)))
    world.source.sides["on"] = {"p95": 0.4}
    await world.blind_for(300)
    assert not world.flag.enabled


@pytest.fixture
async def rampart(tmp_path: Path, database: str) -> AsyncIterator[Rampart]:
    made = Rampart(Settings(data_dir=str(tmp_path), database=DatabaseSettings(url=database, timeout_seconds=5.0)))
    yield made
    await made.stop()


async def until(condition: Any) -> None:
    async with asyncio.timeout(15):
        while True:
            if condition():
                return
            await asyncio.sleep(0.01)


async def test_a_replica_without_a_journal_serves_no_flag_before_it_knows_the_kills_of_the_database(
    store: PostgresStore, rampart: Rampart, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new container on the old database: the kill is known there alone."""
    share = SetShare(
        flag=FLAG,
        serve=Serve(rollout="on", fallback="off"),
        exposure=50_000,
        audience=(),
        bucket_by="user",
        comment="",
    )
    await store.save_flag_config(turned_on(with_share(new_flag(SPEC, 1), share, 2), 3))
    await store.record_kill(kill(), entry("kill"))
    shown: list[bool] = []
    load = rampart.board.load

    def loading(*arguments: Any, **named: Any) -> Any:
        answer = load(*arguments, **named)
        config = rampart.board.shown(FLAG)
        if config is not None:
            shown.append(config.data["on"])
        return answer

    monkeypatch.setattr(rampart.board, "load", loading)
    await rampart.start()
    await until(lambda: not rampart.readiness())
    assert shown
    assert not any(shown)


async def test_a_database_that_cannot_be_used_is_told_and_tried_again(
    rampart: Rampart, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.app.CONNECT_RETRY_SECONDS", 0.01)
    refusals = iter([RampartError("migration 0001 was changed"), ValueError("a row nobody can read")])
    prepare = rampart._prepare

    async def refusing() -> None:
        for refusal in refusals:
            raise refusal
        await prepare()

    rampart._prepare = refusing  # type: ignore[method-assign]
    with structlog.testing.capture_logs() as logs:
        await rampart.start()
        await until(lambda: not rampart.readiness() and rampart.board.ready)
    told = [str(line.get("error")) for line in logs if line["event"] == "database_unusable"]
    assert told == ["RampartError: migration 0001 was changed", "ValueError: a row nobody can read"]
