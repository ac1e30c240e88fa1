"""Two real processes are brought to the next version, one after the other, while a rollout goes on."""

import asyncio
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import asyncpg
import pytest

from controller import __version__
from tests.support import manifests
from tests.support.exposition import Exposition, Traffic
from tests.support.replicas import Database, replicas
from tests.support.repository import ROOT
from tests.support.server import RampartServer, wait_until

FLAG = "checkout"
NEXT = "99.0.0"
PRE, POST = "9001_pre_next.sql", "9002_post_next.sql"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    own = Database(tmp_path / "database")
    yield own
    own.stop()


@pytest.fixture
def app() -> Iterator[Exposition]:
    exposition = Exposition({FLAG: {"on": Traffic(), "off": Traffic()}})
    yield exposition
    exposition.close()


def next_version(folder: Path) -> Mapping[str, str]:
    """A checkout of a version that does not exist yet, as the environment of whoever runs it."""
    shutil.copytree(ROOT / "controller", folder / "controller", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "migrations", folder / "migrations")
    (folder / "migrations" / PRE).write_text("CREATE TABLE next (n int)")
    (folder / "migrations" / POST).write_text("ALTER TABLE leaders ADD COLUMN next int")
    package = folder / "controller" / "__init__.py"
    text = package.read_text()
    assert __version__ in text
    package.write_text(text.replace(__version__, NEXT))
    # Without the second one Python would look into the directory that the tests run in first.
    return {"PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"}


async def applied(url: str) -> set[str]:
    connection = await asyncpg.connect(url)
    try:
        return {row["name"] for row in await connection.fetch("SELECT name FROM migrations")}
    finally:
        await connection.close()


def version_of(server: RampartServer) -> str:
    return str(server.call("GET", "version")["version"])


def reasons(server: RampartServer) -> str:
    return server.request("GET", "/readyz", token=None).body.decode()


@pytest.mark.timeout(240)
def test_two_replicas_are_upgraded_one_after_the_other_while_a_rollout_goes_on(
    tmp_path: Path, database: Database, app: Exposition
) -> None:
    upgraded = next_version(tmp_path / "next")
    more = (
        f'[sources.app]\nkind = "scrape"\ntargets = ["{app.url}"]\nevery_seconds = 0.25\ntimeout_seconds = 1.0\n'
        "[engine]\npoll_seconds = 0.2\nlease_seconds = 5.0\npresence_seconds = 3.0\n"
    )

    def migrations() -> set[str]:
        return asyncio.run(applied(database.url))

    with replicas(tmp_path, database.url, more=more, count=2) as (first, second):
        first.apply(
            a_policy=manifests.policy(every="500ms", window="2s", stale_after="2s"),
            the_flag=manifests.flag(FLAG),
            the_plan=manifests.plan(FLAG, bake="6s"),
        )
        first.command(FLAG, "start")
        second.wait_phase(FLAG, "progressing")

        assert first.stop() == 0
        first.start(env=upgraded)
        assert [version_of(first), version_of(second)] == [NEXT, __version__]
        assert PRE in migrations()
        assert POST not in migrations()
        second.wait_ready()

        assert second.stop() == 0
        second.start(env=upgraded)
        wait_until(lambda: POST in migrations(), what="the upgrade to be finished")
        done = second.wait_phase(FLAG, "completed", seconds=120)
        assert done["observed_exposure"] == 100_000
        assert first.call("GET", "audit/verify")["problem"] is None

        # Whoever starts the earlier version by mistake is told, and is given no traffic.
        assert second.stop() == 0
        second.start(wait_ready=False)
        second.wait_serving()
        wait_until(lambda: f"upgraded past this version ({POST})" in reasons(second), what="readiness to tell")
