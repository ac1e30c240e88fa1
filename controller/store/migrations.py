"""Brings a database to the schema this version needs: plain SQL files, each applied once, in order.

`NNNN_pre_*.sql` is safe while the previous version still runs; `NNNN_post_*.sql` waits until no replica of another
version is registered. Nothing overtakes a migration that waits, so that an upgrade is finished before the next.
"""

import hashlib
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TypeAlias

import asyncpg
import structlog
from msgspec import Struct

from controller import __version__
from controller.errors import RampartError, StoreUnavailable

FILE_NAME = re.compile(r"^(\d{4})_(pre|post)_[a-z0-9_]+\.sql$")
CONNECT_SECONDS = 10.0
# An arbitrary number that means "Rampart's migrations" in this database.
ADVISORY_LOCK = 7_262_670_123

BOOKKEEPING = """
CREATE TABLE migrations (
    name text PRIMARY KEY,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
)
"""

Direct: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_log = structlog.get_logger()


class Caller(Struct, frozen=True):
    version: str
    replica: str


class Migration(Struct, frozen=True):
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def directory() -> Path:
    """Inside the installed package, or at the top of a checkout."""
    packaged = Path(__file__).with_name("migrations")
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "migrations"


def load(folder: Path) -> list[Migration]:
    """The migrations in order. Raises RampartError on a name that is not one, or none at all."""
    found = []
    for path in sorted(folder.glob("*.sql")):
        if FILE_NAME.match(path.name) is None:
            raise RampartError(f"{path} is not named NNNN_pre_words.sql or NNNN_post_words.sql")
        found.append(Migration(path.name, path.read_text()))
    if not found:
        raise RampartError(f"no migrations in {folder}; reinstall Rampart")
    return found


async def migrate(
    dsn: str, *, folder: Path | None = None, version: str = __version__, replica: str = ""
) -> list[str]:
    """Apply what is missing and may be applied now; return its names. Any number of processes may do so at once.

    `replica` names the caller, when it is one: its own registration by an earlier version is in nobody's way.
    Raises StoreUnavailable when the database does not answer, RampartError when a file changed after it was
    applied or the previous upgrade is not finished.
    """
    known = load(folder or directory())
    try:
        connection = await asyncpg.connect(dsn, timeout=CONNECT_SECONDS, statement_cache_size=0)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise StoreUnavailable(f"cannot connect to the database to migrate it: {error or 'timeout'}") from error
    applied: list[str] = []
    waiting: list[str] = []
    try:
        for each in known:
            if not await _apply(connection, each, applied, Caller(version, replica), waiting):
                waiting.append(each.name)
    except (OSError, asyncpg.PostgresConnectionError) as error:
        raise StoreUnavailable(f"the database went away during migration; start again: {error}") from error
    finally:
        connection.terminate()
    if applied:
        _log.info("database_migrated", applied=applied)
    if waiting:
        _log.info("migrations_wait_for_replicas", waiting=waiting)
    return applied


def problem(applied: Collection[str], folder: Path | None = None) -> str | None:
    """Why this version cannot work on a database with these migrations. An unknown `pre` is no reason."""
    known = [each.name for each in load(folder or directory())]
    missing = [name for name in known if _phase(name) == "pre" and name not in applied]
    if missing:
        at = max(applied, default="nothing")
        return f"the database is at {at}, this version needs {missing[-1]}; run rampart migrate"
    beyond = [name for name in sorted(applied) if _phase(name) == "post" and name not in known]
    if beyond:
        return f"the database was upgraded past this version ({beyond[-1]}); upgrade this replica"
    return None


def unfinished(applied: Collection[str], folder: Path | None = None) -> list[str]:
    """What still waits for replicas of an earlier version to be gone."""
    return [
        each.name
        for each in load(folder or directory())
        if _phase(each.name) == "post" and each.name not in applied
    ]


def _phase(name: str) -> str:
    match = FILE_NAME.match(name)
    return match[2] if match else ""


async def _apply(
    connection: Direct, migration: Migration, applied: list[str], caller: Caller, waiting: Sequence[str]
) -> bool:
    """Adds its name to `applied` when it was missing. False: it must wait, as those in `waiting` do."""
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", ADVISORY_LOCK)
        # Even IF NOT EXISTS asks for the right to create, which replicas need not have.
        if await connection.fetchval("SELECT to_regclass('migrations')") is None:
            await connection.execute(BOOKKEEPING)
        known = await connection.fetchval("SELECT checksum FROM migrations WHERE name = $1", migration.name)
        if known is not None and known != migration.checksum:
            raise RampartError(
                f"migration {migration.name} was changed after it was applied to this database; "
                "restore the file and write a new migration instead"
            )
        if known is None:
            others = await _others(connection, caller) if _phase(migration.name) == "post" or waiting else []
            if _phase(migration.name) == "post" and others:
                return False
            if waiting:
                raise RampartError(
                    f"migration {waiting[0]} waits for {', '.join(others) or 'replicas'}, and "
                    f"{migration.name} comes after it; finish the upgrade before this one first: "
                    "bring every replica to its version; release those that are gone: rampart raises release"
                )
            try:
                await connection.execute(migration.sql)
            except asyncpg.PostgresError as error:
                if connection.is_closed():
                    raise
                raise RampartError(
                    f"migration {migration.name} failed, and nothing of it is left: {error}"
                ) from error
            await connection.execute(
                "INSERT INTO migrations (name, checksum) VALUES ($1, $2)", migration.name, migration.checksum
            )
            applied.append(migration.name)
        return True


async def _others(connection: Direct, caller: Caller) -> list[str]:
    """Registered replicas of another version, each as a person would name it."""
    if await connection.fetchval("SELECT to_regclass('replicas')") is None:
        return []
    found = await connection.fetch(
        "SELECT name, version FROM replicas WHERE version <> $1 AND name <> $2 ORDER BY name",
        caller.version,
        caller.replica,
    )
    return [f"replica {row['name']} ({row['version']})" for row in found]
