"""Freezes of the organisation in PostgreSQL. Each is added and lifted together with its audit entry."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec.structs import replace

from controller.domain.audit import AuditEntry, canonical_body
from controller.domain.freezes import OrganisationFreeze
from controller.store import queries, rows
from controller.store.connections import Connections

SQL = queries.load(Path(__file__).with_suffix(".sql"))
HISTORY = 1000


class PostgresFreezes:
    def __init__(self, connections: Connections) -> None:
        self._database = connections

    async def add(self, freeze: OrganisationFreeze, entry: AuditEntry) -> int | None:
        values = (freeze.name, freeze.starts_at, freeze.ends_at, rows.document(freeze), entry.at)
        number: int | None = await self._database.fetchval(
            SQL["add_freeze"], *values, entry.id, canonical_body(entry)
        )
        return number

    async def lift(self, freeze: OrganisationFreeze, entry: AuditEntry) -> bool:
        values = (freeze.name, entry.at, rows.document(freeze), entry.id, canonical_body(entry))
        return await self._database.fetchval(SQL["lift_freeze"], *values) is not None

    async def standing(self) -> Sequence[OrganisationFreeze]:
        return [_freeze(row) for row in await self._database.fetch(SQL["standing"])]

    async def latest(self) -> Sequence[OrganisationFreeze]:
        return [_freeze(row) for row in await self._database.fetch(SQL["latest"], HISTORY)]


def _freeze(row: rows.Row) -> OrganisationFreeze:
    """One that cannot be read is a freeze all the same, and then it may cover every plan."""
    try:
        return replace(msgspec.json.decode(row["document"], type=OrganisationFreeze), number=row["number"])
    except msgspec.DecodeError as error:
        return OrganisationFreeze(
            name=row["name"],
            starts_at=row["starts_at"],
            ends_at=row["ends_at"],
            added_by="unknown",
            added_at=row["starts_at"],
            reason=f"the document of this freeze cannot be read: {error}",
            number=row["number"],
        )
