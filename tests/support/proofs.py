"""Proofs of runs in a store, and forgeries of them."""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from msgspec.structs import replace

from controller.domain.audit import AuditEntry, AuditRow, canonical_body, link_hash
from controller.domain.proof import Proof, ProofHead, ProofReport, ProofRow, text_of, wanted
from controller.ports import Store
from tests.support.rollouts import NOW


async def proof_of(store: Store, run: str, *, whole: bool = False) -> Proof:
    """As the command exports it, without HTTP between."""
    own = await store.audit(run=run, limit=100_000)
    sequence, digest = await store.audit_head()
    rows = await store.audit(after=own[0].sequence - 1, limit=100_000) if whole else own
    needed = wanted(entry_of(row) for row in own)
    plans = [await store.plan(name, revision) for name, revision in needed.plans]
    policies = [await store.policy(name, revision) for name, revision in needed.policies]
    return Proof(
        run=run,
        exported_at=NOW,
        server_version="0",
        whole=whole,
        head=ProofHead(sequence=sequence, hash=digest.hex()),
        plans=[text_of(plan) for plan in plans if plan],
        policies=[text_of(policy) for policy in policies if policy],
        rows=[
            ProofRow(sequence=row.sequence, previous=row.previous.hex(), hash=row.hash.hex(), body=row.body)
            for row in rows
        ],
    )


def entry_of(row: AuditRow | ProofRow) -> AuditEntry:
    return msgspec.json.decode(row.body, type=AuditEntry)


def edited(row: ProofRow, change: Callable[[dict[str, Any]], None]) -> ProofRow:
    """The row with another body; its hash is left as it was."""
    content = msgspec.json.decode(row.body)
    change(content)
    return replace(row, body=canonical_body(msgspec.convert(content, AuditEntry)))


def rehashed(proof: Proof, rows: Iterable[ProofRow]) -> Proof:
    """What a forger with a text editor and SHA-256 can do: every hash fits again, the file's own end too."""
    forged: list[ProofRow] = []
    for row in rows:
        adjacent = forged and forged[-1].sequence == row.sequence - 1
        previous = forged[-1].hash if adjacent else row.previous
        digest = link_hash(bytes.fromhex(previous), row.sequence, row.body).hex()
        forged.append(replace(row, previous=previous, hash=digest))
    head = proof.head
    if forged[-1].sequence == head.sequence or proof.whole:
        head = ProofHead(sequence=forged[-1].sequence, hash=forged[-1].hash)
    return replace(proof, rows=forged, head=head)


def findings(report: ProofReport) -> dict[str, list[str]]:
    """The sentences of the checks that found something."""
    return {check.name: [finding.text for finding in check.findings] for check in report.checks if check.findings}
