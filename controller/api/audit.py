"""The audit log: what happened, in order, and whether the chain holds."""

from typing import Annotated

import msgspec
from litestar import get
from litestar.params import FromQuery, QueryParameter

from controller.api.authentication import needs
from controller.api.bodies import AuditHead, AuditRecord
from controller.domain.audit import GENESIS_HASH, AuditRow, ChainReport, verify_chain
from controller.facade import Served
from controller.ports import Store

PAGE = 1000

After = Annotated[int, QueryParameter(ge=0, le=2**53, description="only rows with a higher sequence")]
Limit = Annotated[int, QueryParameter(ge=1, le=PAGE)]
RunId = Annotated[str | None, QueryParameter(pattern=r"^[a-z0-9._-]{1,100}#\d{1,10}$")]


@get("/audit", summary="Audit rows in order, or the newest first", **needs("read"))
async def list_audit(
    engine: Served, after: After = 0, limit: Limit = 100, run: RunId = None, newest_first: FromQuery[bool] = False
) -> list[AuditRecord]:
    rows = await engine.store.audit(after=after, limit=limit, run=run, newest_first=newest_first)
    return [_record(row) for row in rows]


def _record(row: AuditRow) -> AuditRecord:
    return AuditRecord(
        sequence=row.sequence,
        hash=row.hash.hex(),
        previous=row.previous.hex(),
        entry=msgspec.json.decode(row.body),
    )


@get("/audit/head", summary="The latest row, to be kept elsewhere as a witness", **needs("read"))
async def audit_head(engine: Served) -> AuditHead:
    sequence, head = await engine.store.audit_head()
    return AuditHead(sequence=sequence, hash=head.hex())


@get("/audit/verify", summary="Recompute the whole chain", **needs("read"))
async def verify_audit(engine: Served) -> ChainReport:
    return await verify(engine.store)


async def verify(store: Store) -> ChainReport:
    """Page by page, up to the head as it was when this began: rows may be appended meanwhile."""
    head = await store.audit_head()
    at, rows = (0, GENESIS_HASH), 0
    while at[0] < head[0]:
        page = [row for row in await store.audit(after=at[0], limit=PAGE) if row.sequence <= head[0]]
        report = verify_chain(page, after=at)
        rows += report.rows
        at = (report.head_sequence, bytes.fromhex(report.head_hash))
        if report.problem or not page:
            problem = report.problem or f"row {at[0] + 1} is missing: the head says there are {head[0]}"
            return msgspec.structs.replace(report, rows=rows, problem=problem)
    mismatch = None if at == head else f"the head's hash does not fit row {at[0]}"
    return ChainReport(rows=rows, head_sequence=at[0], head_hash=at[1].hex(), problem=mismatch)


HANDLERS = [list_audit, audit_head, verify_audit]
