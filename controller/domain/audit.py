"""Audit entries and their hash chain.

    hash(n) = SHA-256( hash(n-1) ‖ n as 8 bytes big-endian ‖ body(n) )

The body is canonical JSON (sorted keys, no white space, UTF-8), so that anybody can recompute the chain from
an export with nothing but SHA-256. `verify_chain` needs no server.
"""

import hashlib
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

GENESIS_HASH = bytes(32)

_encoder = msgspec.json.Encoder(order="sorted")


class AuditEntry(Struct, frozen=True, kw_only=True):
    """What happened, who did it and why. `subject` is a run id or a flag; `details` holds the evidence.

    `id` is unique per decision: a commit whose answer was lost is found again by it.
    """

    id: str
    at: datetime
    actor: str
    action: str
    cause: str
    subject: str
    environment: str
    reason: str
    run: str | None = None
    run_version: int | None = None
    flag: str | None = None
    details: dict[str, Any] = {}


class AuditRow(Struct, frozen=True, kw_only=True):
    """One link of the chain as stored. `body` is the canonical JSON of an AuditEntry."""

    sequence: int
    previous: bytes
    hash: bytes
    body: str


class ChainReport(Struct, frozen=True, kw_only=True):
    """`problem` is None when every row verifies; `head` is the last good (sequence, hash)."""

    rows: int
    head_sequence: int
    head_hash: str
    problem: str | None = None


def canonical_body(entry: AuditEntry) -> str:
    return _encoder.encode(entry).decode()


def link_hash(previous: bytes, sequence: int, body: str) -> bytes:
    return hashlib.sha256(previous + sequence.to_bytes(8, "big") + body.encode()).digest()


def verify_chain(rows: Iterable[AuditRow], *, after: tuple[int, bytes] = (0, GENESIS_HASH)) -> ChainReport:
    """Check rows that follow `after` (sequence, hash): no gap, no changed byte, no broken link."""
    sequence, previous = after
    count = 0
    for row in rows:
        problem = _problem(row, sequence, previous)
        if problem:
            return ChainReport(rows=count, head_sequence=sequence, head_hash=previous.hex(), problem=problem)
        sequence, previous = row.sequence, row.hash
        count += 1
    return ChainReport(rows=count, head_sequence=sequence, head_hash=previous.hex())


def _problem(row: AuditRow, sequence: int, previous: bytes) -> str | None:
    if row.sequence != sequence + 1:
        return f"row {sequence + 1} is missing: row {row.sequence} follows row {sequence}"
    if row.previous != previous:
        return f"row {row.sequence} does not continue row {sequence}: its previous hash differs"
    if link_hash(previous, row.sequence, row.body) != row.hash:
        return f"row {row.sequence} was changed: its hash does not fit its content"
    return None
