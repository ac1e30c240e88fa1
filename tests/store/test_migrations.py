"""Migrations: each once, in order, whoever starts how many at a time."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import asyncpg
import pytest

from controller.domain.catalogue import Replica
from controller.errors import RampartError, StoreUnavailable
from controller.store import upgrade
from controller.store.migrations import directory, load, migrate, problem, unfinished
from controller.store.postgres import PostgresStore
from tests.support.postgres import Server


@pytest.fixture
async def empty(postgres_server: Server) -> AsyncIterator[str]:
    dsn = await postgres_server.create_database()
    yield dsn
    await postgres_server.drop_database(dsn)


async def test_parallel_starts_apply_each_migration_once(empty: str, tmp_path: Path) -> None:
    (tmp_path / "0001_pre_table.sql").write_text("CREATE TABLE t (n int); SELECT pg_sleep(0.05);")
    (tmp_path / "0002_pre_row.sql").write_text("INSERT INTO t VALUES (2)")
    (tmp_path / "0003_post_row.sql").write_text("INSERT INTO t VALUES (3)")
    applied = await asyncio.gather(*(migrate(empty, folder=tmp_path) for _ in range(4)))
    assert sorted(name for names in applied for name in names) == [
        "0001_pre_table.sql",
        "0002_pre_row.sql",
        "0003_post_row.sql",
    ]
    connection = await asyncpg.connect(empty)
    assert [row["n"] for row in await connection.fetch("SELECT n FROM t ORDER BY n")] == [2, 3]
    await connection.close()
    assert await migrate(empty, folder=tmp_path) == []


async def test_two_starts_bring_an_empty_database_to_the_present_schema(empty: str) -> None:
    first, second = await asyncio.gather(migrate(empty), migrate(empty))
    assert sorted(first + second) == [each.name for each in load(directory())]


async def test_a_role_that_may_not_change_the_schema_finds_it_up_to_date(empty: str) -> None:
    await migrate(empty)
    owner = await asyncpg.connect(empty)
    await owner.execute("CREATE ROLE replica_without_rights LOGIN")
    try:
        await owner.execute("GRANT SELECT ON migrations TO replica_without_rights")
        at = empty.index("://") + 3
        assert await migrate(f"{empty[:at]}replica_without_rights{empty[empty.index('@') :]}") == []
    finally:
        await owner.execute("DROP OWNED BY replica_without_rights; DROP ROLE replica_without_rights")
        await owner.close()


TWO = {
    "0001_pre_replicas.sql": "CREATE TABLE replicas (name text, version text); CREATE TABLE t (old int)",
    "0002_pre_column.sql": "ALTER TABLE t ADD COLUMN new int",
    "0003_post_column.sql": "ALTER TABLE t DROP COLUMN old",
}
NEXT = {"0004_pre_more.sql": "CREATE TABLE more (n int)"}


def folder_with(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


async def register(dsn: str, name: str, version: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute("DELETE FROM replicas WHERE name = $1", name)
    await connection.execute("INSERT INTO replicas (name, version) VALUES ($1, $2)", name, version)
    await connection.close()


async def test_what_the_earlier_version_would_not_bear_waits_until_no_replica_runs_it(
    empty: str, tmp_path: Path
) -> None:
    folder = folder_with(tmp_path, {"0001_pre_replicas.sql": TWO["0001_pre_replicas.sql"]})
    await migrate(empty, folder=folder, version="1")
    await register(empty, "a", "1")
    await register(empty, "b", "1")
    folder_with(folder, TWO)
    assert await migrate(empty, folder=folder, version="2", replica="a") == ["0002_pre_column.sql"]
    await register(empty, "a", "2")
    assert await migrate(empty, folder=folder, version="2", replica="a") == []
    await register(empty, "b", "2")
    assert await migrate(empty, folder=folder, version="2", replica="a") == ["0003_post_column.sql"]


async def test_an_upgrade_does_not_begin_before_the_one_before_it_is_finished(empty: str, tmp_path: Path) -> None:
    folder = folder_with(tmp_path, {"0001_pre_replicas.sql": TWO["0001_pre_replicas.sql"]})
    await migrate(empty, folder=folder, version="1")
    await register(empty, "b", "1")
    folder_with(folder, TWO | NEXT)
    with pytest.raises(RampartError, match=r"0003_post_column\.sql waits for replica b \(1\), and 0004_pre"):
        await migrate(empty, folder=folder, version="3")
    await register(empty, "b", "3")
    assert await migrate(empty, folder=folder, version="3") == ["0003_post_column.sql", "0004_pre_more.sql"]


async def test_a_replica_that_starts_anew_does_not_wait_for_itself(empty: str, tmp_path: Path) -> None:
    """It crashed as the earlier version, so that its registration is still there."""
    folder = folder_with(tmp_path, {"0001_pre_replicas.sql": TWO["0001_pre_replicas.sql"]})
    await migrate(empty, folder=folder, version="1", replica="a")
    await register(empty, "a", "1")
    folder_with(folder, TWO)
    assert len(await migrate(empty, folder=folder, version="2", replica="a")) == 2


async def test_an_empty_database_gets_everything_in_order(empty: str, tmp_path: Path) -> None:
    folder = folder_with(tmp_path, TWO | NEXT)
    assert await migrate(empty, folder=folder, version="3") == sorted(TWO | NEXT)


def test_readiness_tells_a_schema_that_does_not_suit_this_version(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, TWO)
    assert problem(["0001_pre_replicas.sql"], folder) == (
        "the database is at 0001_pre_replicas.sql, this version needs 0002_pre_column.sql; run rampart migrate"
    )
    # Before the upgrade is finished, after it, and while a later version starts.
    early = ["0001_pre_replicas.sql", "0002_pre_column.sql"]
    for applied in (early, sorted(TWO), sorted(TWO | NEXT)):
        assert problem(applied, folder) is None
    assert unfinished(early, folder) == ["0003_post_column.sql"]
    assert unfinished(sorted(TWO), folder) == []
    assert problem([*TWO, *NEXT, "0005_post_drop.sql"], folder) == (
        "the database was upgraded past this version (0005_post_drop.sql); upgrade this replica"
    )


async def test_two_versions_on_one_database_tell_the_truth_and_one_of_them_ends_the_upgrade(
    empty: str, tmp_path: Path
) -> None:
    """The present version with its own files, and a later one with one more of each kind."""
    here, later = "1", "2"
    present = directory()
    more = {
        "9001_pre_next.sql": "CREATE TABLE next (n int)",
        "9002_post_next.sql": "ALTER TABLE leaders ADD COLUMN next int",
    }
    for path in present.glob("*.sql"):
        (tmp_path / path.name).write_text(path.read_text())
    folder_with(tmp_path, more)
    store = PostgresStore(empty)
    await store.connect()

    async def look(name: str, version: str) -> str | None:
        """As each replica does every few seconds, after its check-in."""
        replica = Replica(name=name, version=version)
        life = (await store.check_in(replica, life="", valid_seconds=60.0, remembered=0)).life
        await store.check_in(replica, life=life, valid_seconds=60.0, remembered=0)
        folder = present if version == here else tmp_path
        return await upgrade.look(store, empty, owner=name, replica=name, version=version, folder=folder)

    await migrate(empty, version=here)
    assert [await look("a", here), await look("b", here)] == [None, None]
    assert problem(await store.migrations_applied(), tmp_path) is not None
    await migrate(empty, folder=tmp_path, version=later, replica="a")
    assert [await look("a", later), await look("b", here)] == [None, None]
    assert "9002_post_next.sql" not in await store.migrations_applied()
    assert [await look("b", later), await look("a", later)] == [None, None]
    assert "9002_post_next.sql" in await store.migrations_applied()
    assert await look("c", here) == (
        "the database was upgraded past this version (9002_post_next.sql); upgrade this replica"
    )
    await store.close()


async def test_a_file_changed_after_it_was_applied_is_refused(empty: str, tmp_path: Path) -> None:
    path = tmp_path / "0001_pre_table.sql"
    path.write_text("CREATE TABLE t (n int)")
    await migrate(empty, folder=tmp_path)
    path.write_text("CREATE TABLE t (n bigint)")
    with pytest.raises(RampartError, match=r"0001_pre_table\.sql was changed"):
        await migrate(empty, folder=tmp_path)


async def test_a_failing_migration_leaves_nothing_of_itself(empty: str, tmp_path: Path) -> None:
    path = tmp_path / "0001_pre_table.sql"
    path.write_text("CREATE TABLE t (n int); INSERT INTO nothing VALUES (1);")
    with pytest.raises(RampartError, match="0001_pre_table"):
        await migrate(empty, folder=tmp_path)
    path.write_text("CREATE TABLE t (n int)")
    assert await migrate(empty, folder=tmp_path) == ["0001_pre_table.sql"]


def test_a_file_with_another_kind_of_name_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "add_table.sql").write_text("SELECT 1")
    with pytest.raises(RampartError, match="NNNN_pre_words"):
        load(tmp_path)


async def test_a_database_that_is_away_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="cannot connect"):
        await migrate(f"postgresql://rampart@/rampart?host={tmp_path}")
