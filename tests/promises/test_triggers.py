"""A trigger is pressed after a start without a database; its kill dominates as every other (I3, I4, I19)."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import httpx
import msgspec

from controller.access import digest, new_secret
from controller.api import create_app
from controller.app import Rampart
from controller.domain.audit import AuditEntry
from controller.domain.catalogue import Trigger
from controller.domain.flag import FlagSpec, SetShare
from controller.domain.plan import Serve
from controller.domain.sdkflag import new_flag, turned_on, with_share
from controller.settings import DatabaseSettings, Settings
from controller.store.postgres import PostgresStore
from tests.store.samples import FLAG, NOW, entry
from tests.support.postgres import database, postgres_server, store
from tests.support.server import free_port

__all__ = ["database", "postgres_server", "store"]


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.02)


@asynccontextmanager
async def living(folder: Path, database_url: str) -> AsyncIterator[tuple[Rampart, httpx.AsyncClient]]:
    settings = Settings(data_dir=str(folder), database=DatabaseSettings(url=database_url, timeout_seconds=1.0))
    rampart = Rampart(settings)
    transport = httpx.ASGITransport(app=cast("Any", create_app(rampart)))
    await rampart.start()
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://rampart.test") as client:
            yield rampart, client
    finally:
        await rampart.stop()


async def test_a_trigger_kills_after_a_start_without_a_database_and_is_recorded_when_it_is_back(
    tmp_path: Path, database: str, store: PostgresStore
) -> None:
    share = SetShare(
        flag=FLAG, serve=Serve(rollout="on", fallback="off"), exposure=50_000, audience=(), bucket_by="user",
        comment="",
    )  # fmt: skip
    spec = FlagSpec(environment=FLAG.environment, key=FLAG.key)
    secret = new_secret()
    trigger = Trigger(name="pager", digest=digest(secret), flag=FLAG, created_at=NOW, created_by="dana")
    await store.save_flag_config(turned_on(with_share(new_flag(spec, 1), share, 2), 3))
    await store.save_trigger(trigger, entry("create_trigger"))
    kept = tmp_path / "last-known.json"

    async def is_kept() -> bool:
        return kept.exists() and b'"pager"' in kept.read_bytes()

    async with living(tmp_path, database):
        await until(is_kept)
    assert secret not in kept.read_text()

    async with living(tmp_path, f"postgresql://nobody@127.0.0.1:{free_port()}/gone") as (rampart, client):
        answer = await client.post(f"/k/{secret}", data={"reason": "INC-7"})
        assert answer.status_code in (200, 202), answer.text
        (receipt,) = answer.json()["kills"]
        assert receipt["durable"]
        shown = rampart.board.shown(FLAG)
        assert shown is None or shown.data["on"] is False
        assert rampart.killbook.holds(FLAG) == [receipt["kill_id"]]

    async with living(tmp_path, database) as (rampart, client):

        async def is_recorded() -> bool:
            return [one.kill.id for one in await store.active_kills()] == [receipt["kill_id"]]

        await until(is_recorded)
        rows = [msgspec.json.decode(row.body, type=AuditEntry) for row in await store.audit()]
        (kill,) = [row for row in rows if row.action == "kill"]
        assert (kill.actor, kill.reason) == ("trigger:pager", "killed by trigger:pager: INC-7")
        assert await store.revoke_trigger("pager", entry("revoke_trigger"))

        async def is_revoked() -> bool:
            return (await client.get(f"/k/{secret}")).status_code == 404

        await until(is_revoked)
        assert rampart.killbook.holds(FLAG) == [receipt["kill_id"]]
