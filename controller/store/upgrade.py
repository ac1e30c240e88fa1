"""Rolling upgrades: whether this version can work on the schema that is there, and the end of an upgrade."""

from pathlib import Path

from controller import __version__
from controller.store import migrations
from controller.store.postgres import PostgresStore

TASK = "migrate"
LEASE_SECONDS = 60.0


async def look(
    store: PostgresStore,
    dsn: str,
    *,
    owner: str,
    replica: str,
    version: str = __version__,
    folder: Path | None = None,
) -> str | None:
    """Why this replica is not ready, or None; applies what waited for replicas of an earlier version.

    To be called every few seconds. Raises what `migrations.migrate` raises.
    """
    applied = await store.migrations_applied()
    why = migrations.problem(applied, folder)
    if why is not None or not migrations.unfinished(applied, folder):
        return why
    if await store.lead(TASK, owner, lease_seconds=LEASE_SECONDS):
        await migrations.migrate(dsn, folder=folder, version=version, replica=replica)
    return None
