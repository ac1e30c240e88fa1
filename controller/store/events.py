"""The EventStore on PostgreSQL. Counts are kept by slots of a few seconds, a row for each replica.

A delivery is taken and its counts are added in one transaction: so it is counted once, however often it is sent,
to whichever replica, and whatever becomes of the answer of a commit.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from pathlib import Path

from controller.domain.tally import (
    NO_BUCKET,
    SLOT_SECONDS,
    Cell,
    Counted,
    Delivery,
    Sketch,
    Tally,
    Watch,
    merged,
    packed,
)
from controller.store import queries
from controller.store.connections import Connection, Connections

SQL = queries.load(Path(__file__).with_suffix(".sql"))

Row = tuple[str, str, str, str, str, int, int, int, bytes]


class PostgresEvents:
    def __init__(self, connections: Connections, *, replica: str) -> None:
        self._database = connections
        self._replica = replica
        self._slot: datetime | None = None
        self._in_slot: dict[Cell, Sketch] = {}

    async def count(self, deliveries: Sequence[Delivery]) -> int:
        # One that is there twice is still one.
        by_id = {delivery.id: delivery for delivery in deliveries}

        async def add(connection: Connection) -> tuple[int, datetime, dict[Cell, Sketch]]:
            # Sorted, so that replicas that have the same deliveries do not wait for each other in a circle.
            taken = await connection.fetch(SQL["take_deliveries"], sorted(by_id))
            slot = await connection.fetchval(SQL["present_slot"], SLOT_SECONDS)
            tallies = merged(by_id[row["id"]] for row in taken)
            new = self._new_contexts(tallies, slot)
            rows = [row for cell, tally in sorted(tallies.items()) for row in _rows(cell, tally, new[cell])]
            if rows:
                columns = [list(column) for column in zip(*rows, strict=True)]
                await connection.execute(SQL["add_counts"], slot, self._replica, *columns)
            return len(taken), slot, new

        taken, slot, new = await self._database.transact(add)
        self._remember(slot, new)
        return taken

    def _new_contexts(self, tallies: dict[Cell, Tally], slot: datetime) -> dict[Cell, Sketch]:
        """Of each cell, whom the slot does not have yet. Nothing is remembered before it is committed."""
        known = self._in_slot if slot == self._slot else {}
        return {cell: tally.contexts.new_to(known.get(cell, Sketch())) for cell, tally in tallies.items()}

    def _remember(self, slot: datetime, new: dict[Cell, Sketch]) -> None:
        if slot != self._slot:
            self._slot, self._in_slot = slot, {}
        for cell, sketch in new.items():
            self._in_slot.setdefault(cell, Sketch()).add_all(sketch)

    async def counted(
        self, events: Collection[tuple[str, str]], *, window_seconds: float, contexts: bool
    ) -> Sequence[Counted]:
        flags, keys = [flag for flag, _ in events], [event for _, event in events]
        statement = SQL["contexts" if contexts else "counts"]
        return [
            Counted(
                cell=Cell(
                    row["environment"], row["flag"], row["event"], row["variation"], row["cohort"], row["exposure"]
                ),
                bucket=row["bucket"],
                count=row["count"],
                contexts=row["contexts"],
                age_seconds=row["age_seconds"],
            )
            for row in await self._database.fetch(statement, flags, keys, window_seconds)
        ]

    async def watch(self, watches: Collection[Watch], *, from_seconds: float) -> None:
        flags, metrics = [one.flag for one in watches], [one.metric for one in watches]
        await self._database.execute(SQL["watch"], flags, metrics, from_seconds)

    async def watches(self) -> Collection[Watch]:
        return [Watch(row["flag"], row["metric"]) for row in await self._database.fetch(SQL["watches"])]

    async def note_gap(self, environment: str, missed: int) -> None:
        await self._database.execute(SQL["note_gap"], environment, missed)

    async def forget(self, *, counts_seconds: float, deliveries_seconds: float) -> None:
        await self._database.execute(SQL["forget_counts"], counts_seconds)
        await self._database.execute(SQL["forget_deliveries"], deliveries_seconds)
        await self._database.execute(SQL["forget_watches"], counts_seconds)


def _rows(cell: Cell, tally: Tally, contexts: Sketch) -> list[Row]:
    """One for all events of the cell, and one for each bucket of their values."""
    whole = (*cell, NO_BUCKET, tally.count, packed(contexts))
    return [whole, *((*cell, bucket, count, b"") for bucket, count in sorted(tally.buckets.items()))]
