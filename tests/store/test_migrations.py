"""Migrations: each once, in order, whoever starts how many at a time."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from controller.errors import RampartError, StoreUnavailable
from controller.store.migrations import directory, load, migrate
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
    assert sorted(first + second) == [each.name for each in load(directory(), ("pre", "post"))]


async def test_post_migrations_can_be_left_for_later(empty: str, tmp_path: Path) -> None:
    (tmp_path / "0001_pre_table.sql").write_text("CREATE TABLE t (n int)")
    (tmp_path / "0002_post_drop.sql").write_text("DROP TABLE t")
    assert await migrate(empty, folder=tmp_path, phases=("pre",)) == ["0001_pre_table.sql"]
    assert await migrate(empty, folder=tmp_path) == ["0002_post_drop.sql"]


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
        load(tmp_path, ("pre", "post"))


async def test_a_database_that_is_away_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="cannot connect"):
        await migrate(f"postgresql://rampart@/rampart?host={tmp_path}")
