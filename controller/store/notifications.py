"""The NotificationStore on PostgreSQL: a queue for each channel, and its dead letters."""

import asyncio
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import msgspec
import structlog
from msgspec.structs import replace

from controller.domain.audit import AuditEntry, canonical_body
from controller.domain.message import Message
from controller.domain.notification import Backlog, DeadLetter, Letters, Owed, Shed, Waiting
from controller.store import queries
from controller.store.connections import Connection, Connections

SQL = queries.load(Path(__file__).with_suffix(".sql"))
CONNECTIONS_AT_ONCE = 2
"""Of the pool, which ticks and kills use, too: however much waits to be told, it takes no more of them."""

OF_A_THREAD = 20
TOO_MANY = "more messages were waiting for this channel than are kept"

log = structlog.get_logger()

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Message)


class PostgresNotifications:
    def __init__(self, connections: Connections) -> None:
        self._database = connections
        self._turns = asyncio.Semaphore(CONNECTIONS_AT_ONCE)

    async def take(self, entry_ids: Collection[str], owed: Sequence[Owed]) -> None:
        columns = (
            [one.channel for one in owed],
            [one.thread for one in owed],
            [one.message.id for one in owed],
            [_encoder.encode(one.message).decode() for one in owed],
        )
        await self._fetch("take", list(entry_ids), *columns)

    async def waiting(self, channel: str, *, resting: Collection[str], limit: int) -> Sequence[Waiting]:
        rows = await self._fetch("waiting", channel, list(resting), OF_A_THREAD, limit)
        return [one for row in rows if (one := await self._readable(channel, row)) is not None]

    async def _readable(self, channel: str, row: Any) -> Waiting | None:
        """What another version wrote and we cannot read must not hold up what is behind it."""
        try:
            told = _decoder.decode(row["document"])
        except msgspec.DecodeError as error:
            log.error("notification_unreadable", channel=channel, id=row["message"], error=str(error))
            await self.bury(channel, row["message"], f"it cannot be read: {error}")
            return None
        return Waiting(
            thread=row["thread"],
            message=told,
            waited_seconds=row["waited_seconds"],
            attempts=row["attempts"],
        )

    async def told(self, channel: str, message_ids: Collection[str]) -> None:
        await self._fetch("told", channel, list(message_ids))

    async def failed(self, channel: str, message_id: str, why: str) -> None:
        await self._fetch("failed", channel, message_id, why)

    async def bury(self, channel: str, message_id: str, why: str) -> None:
        await self._fetch("bury", channel, message_id, why)

    async def give_up(self, channel: str, *, older_than_seconds: float, why: str) -> int:
        return len(await self._fetch("give_up", channel, older_than_seconds, why))

    async def backlog(self) -> Sequence[Backlog]:
        return [Backlog(**dict(row)) for row in await self._fetch("backlog")]

    async def shed(self, *, waiting: int, dead: int) -> Sequence[Shed]:
        given_up = Counter(row["channel"] for row in await self._fetch("shed_waiting", waiting, TOO_MANY))
        dropped = Counter(row["channel"] for row in await self._fetch("drop_dead", dead))
        names = sorted({*given_up, *dropped})
        return [Shed(channel=name, given_up=given_up[name], dropped=dropped[name]) for name in names]

    async def dead(self, *, channel: str | None = None, after: int = 0, limit: int = 100) -> Sequence[DeadLetter]:
        return [_dead_letter(row) for row in await self._fetch("dead", after, channel, limit)]

    async def redeliver(self, letters: Letters, entry: AuditEntry) -> Sequence[str]:
        return await self._audited("redeliver", letters, entry)

    async def discard(self, letters: Letters, entry: AuditEntry) -> Sequence[str]:
        return await self._audited("discard", letters, entry)

    async def _audited(self, statement: str, letters: Letters, entry: AuditEntry) -> Sequence[str]:
        ids = None if letters.ids is None else [int(one) for one in letters.ids]

        async def change(connection: Connection) -> Sequence[str]:
            rows = await connection.fetch(SQL[statement], ids, letters.channel)
            changed = sorted(rows, key=lambda row: row["id"])
            if changed:
                messages = [f"{row['channel']}: {row['message']}" for row in changed]
                named = replace(entry, details={**entry.details, "messages": messages})
                await connection.fetchval(SQL["append_audit"], named.id, canonical_body(named))
            return [str(row["id"]) for row in changed]

        return await self._database.transact(change)

    async def _fetch(self, statement: str, *arguments: Any) -> Sequence[Any]:
        async with self._turns:
            return await self._database.fetch(SQL[statement], *arguments)


def _dead_letter(row: Any) -> DeadLetter:
    try:
        told = _decoder.decode(row["document"])
    except msgspec.DecodeError:
        told = None  # `why` says so
    return DeadLetter(
        id=str(row["id"]),
        channel=row["channel"],
        died_at=row["died_at"],
        attempts=row["attempts"],
        why=row["why"],
        message=told,
    )
