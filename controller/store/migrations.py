"""Brings a database to the schema this version needs: plain SQL files, each applied once, in order.

`NNNN_pre_*.sql` is safe while the previous version still runs; `NNNN_post_*.sql` waits until it is gone.
"""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import asyncpg
import structlog
from msgspec import Struct

from controller.errors import RampartError, StoreUnavailable

FILE_NAME = re.compile(r"^(\d{4})_(pre|post)_[a-z0-9_]+\.sql$")
CONNECT_SECONDS = 10.0
# An arbitrary number that means "Rampart's migrations" in this database.
ADVISORY_LOCK = 7_262_670_123

BOOKKEEPING = """
CREATE TABLE IF NOT EXISTS migrations (
    name text PRIMARY KEY,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
)
"""

_log = structlog.get_logger()


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


def load(folder: Path, phases: Sequence[str]) -> list[Migration]:
    """The migrations of these phases, in order. Raises RampartError on a name that is not one, or none at all."""
    found = []
    for path in sorted(folder.glob("*.sql")):
        name = FILE_NAME.match(path.name)
        if name is None:
            raise RampartError(f"{path} is not named NNNN_pre_words.sql or NNNN_post_words.sql")
        if name[2] in phases:
            found.append(Migration(path.name, path.read_text()))
    if not found and "pre" in phases:
        raise RampartError(f"no migrations in {folder}; reinstall Rampart")
    return found


async def migrate(dsn: str, *, folder: Path | None = None, phases: Sequence[str] = ("pre", "post")) -> list[str]:
    """Apply what is missing and return its names. Any number of processes may do so at the same time.

    Raises StoreUnavailable when the database does not answer, RampartError when a file changed after it was
    applied.
    """
    pending = load(folder or directory(), phases)
    try:
        connection = await asyncpg.connect(dsn, timeout=CONNECT_SECONDS, statement_cache_size=0)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise StoreUnavailable(f"cannot connect to the database to migrate it: {error or 'timeout'}") from error
    try:
        applied = [each.name for each in pending if await _apply(connection, each)]
    except (OSError, asyncpg.PostgresConnectionError) as error:
        raise StoreUnavailable(f"the database went away during migration; start again: {error}") from error
    finally:
        connection.terminate()
    if applied:
        _log.info("database_migrated", applied=applied)
    return applied


async def _apply(connection: "asyncpg.Connection[asyncpg.Record]", migration: Migration) -> bool:
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", ADVISORY_LOCK)
        await connection.execute(BOOKKEEPING)
        known = await connection.fetchval("SELECT checksum FROM migrations WHERE name = $1", migration.name)
        if known is not None and known != migration.checksum:
            raise RampartError(
                f"migration {migration.name} was changed after it was applied to this database; "
                "restore the file and write a new migration instead"
            )
        if known is None:
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
        return known is None
