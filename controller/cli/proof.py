"""The proof of a run: put together from what the server answers, read back, and its report as lines for people."""

from collections.abc import Iterator
from datetime import UTC, datetime

import click
import msgspec

from controller.cli.audit import Record, body_of, destination, pages
from controller.cli.connection import Connection
from controller.cli.exits import Exit, Failure
from controller.cli.screens import day_and_clock
from controller.cli.terminal import say
from controller.domain.audit import AuditEntry
from controller.domain.catalogue import PlanRevision, PolicyRevision
from controller.domain.proof import (
    CheckName,
    CheckResult,
    Ending,
    Proof,
    ProofHead,
    ProofReport,
    ProofRow,
    text_of,
    verify,
    wanted,
)
from controller.domain.quantities import exposure_text

FOUND_GOOD: dict[CheckName, str] = {
    "chain": "{count}: each hash fits its content and its neighbours",
    "head": "the noted head is in the file, unchanged",
    "versions": "{count} of the run, none missing and none twice",
    "transitions": "{count}, each one allowed",
    "exposure": "exposure after {count}: never above its stage, no stage skipped, no raise after a kill",
    "documents": "{count}: the texts that the run followed",
    "decisions": "{count} made again: the same action, words, rule, exposure and verdicts",
    "states": "{count}: each as the rows before it leave the run",
}
FOUND_BAD: dict[CheckName, str] = {
    "chain": "the hash chain is broken",
    "head": "the noted head does not fit",
    "versions": "rows of the run are missing, or are there twice",
    "transitions": "the run took a way that does not exist",
    "exposure": "the exposure was not what the plan allows",
    "documents": "the plans or policies are not what the run followed",
    "decisions": "decisions do not follow from what they rested on",
    "states": "the run does not lead from one row to the next",
}
COUNTED: dict[CheckName, tuple[str, str]] = {
    "chain": ("audit row", "audit rows"),
    "head": ("head", "heads"),
    "versions": ("version", "versions"),
    "transitions": ("transition", "transitions"),
    "exposure": ("row", "rows"),
    "documents": ("plan or policy", "plans and policies"),
    "decisions": ("decision", "decisions"),
    "states": ("recorded state", "recorded states"),
}
ENDINGS = {"complete": "completed", "kill": "killed", "abandon": "abandoned"}


def write_proof(server: Connection, run: str, *, whole: bool, file: str | None) -> int:
    """Export the run, and say what to note and how to check it. Written, too, when it does not verify."""
    proof = _gathered(server, run, whole=whole)
    with destination(file) as sink:
        sink.write(msgspec.json.format(msgspec.json.encode(proof), indent=1) + b"\n")
    last = proof.rows[-1]
    head = f"{last.sequence}:{last.hash}"
    say(
        f"{_count(len(proof.rows), 'audit row', 'audit rows')} of {run}" + (", and of all others" if whole else "")
    )
    say(f"note its head somewhere else: {head}")
    report = verify(proof)
    if report.good:
        say(f"check it anywhere: rampart verify {file or 'FILE'} --head {head}")
        return Exit.OK
    findings = [finding.text for check in report.checks for finding in check.findings]
    raise Failure("what the server gave does not verify", Exit.FINDING, points=findings)


def _gathered(server: Connection, run: str, *, whole: bool) -> Proof:
    """The log goes on meanwhile: nothing after the head, as it is first, is taken in."""
    head = server.get("audit", "head").decode(ProofHead)
    own = _rows(server, head, run=run)
    if not own:
        raise Failure(f"the audit log has no row of {run}", Exit.USAGE, hint="rampart list shows the latest runs")
    needed = wanted(msgspec.convert(record.entry, AuditEntry) for record in own)
    plans = [server.get("plans", name, revision=number).decode(PlanRevision) for name, number in needed.plans]
    policies = [
        server.get("policies", name, revision=number).decode(PolicyRevision) for name, number in needed.policies
    ]
    rows = _rows(server, head, after=own[0].sequence - 1) if whole else own
    return Proof(
        run=run,
        exported_at=datetime.now(UTC),
        server_version=server.get("version").decode(dict[str, str])["version"],
        whole=whole,
        head=head,
        plans=[text_of(plan) for plan in plans],
        policies=[text_of(policy) for policy in policies],
        rows=[_row(record) for record in rows],
    )


def _rows(server: Connection, head: ProofHead, *, run: str | None = None, after: int = 0) -> list[Record]:
    rows = []
    for line in pages(server, run=run, after=after):
        record = msgspec.json.decode(line, type=Record)
        if record.sequence > head.sequence:
            break
        rows.append(record)
    return rows


def _row(record: Record) -> ProofRow:
    return ProofRow(sequence=record.sequence, previous=record.previous, hash=record.hash, body=body_of(record))


def read_proof(content: bytes) -> Proof:
    try:
        return msgspec.json.decode(content, type=Proof)
    except msgspec.DecodeError as error:
        raise Failure(
            f"this is no proof of a run that this version can read: {error}",
            Exit.FINDING,
            hint="rampart audit export RUN writes one; for the whole log: rampart audit verify --file FILE",
        ) from error


def report_lines(report: ProofReport) -> Iterator[str]:
    if report.good:
        yield click.style(f"✔ {report.run}: everything in this file fits", fg="green", bold=True)
    else:
        yield click.style(f"✖ {report.run}: this file does not prove what it says", fg="red", bold=True)
    yield f"  {_end(report.ending) if report.ending else f'{report.phase}, not ended'}"
    yield f"  exposure {' → '.join(map(exposure_text, report.exposures))}"
    yield ""
    for check in report.checks:
        yield from _check_lines(check)
    if report.limits:
        yield ""
        yield "Not checked:"
        yield from (f"  {limit}" for limit in report.limits)


def _end(ending: Ending) -> str:
    when = f"{ENDINGS[ending.action]} on {day_and_clock(ending.at)} by {ending.actor} (row {ending.row})"
    return f"{when}: {ending.reason}"


def _check_lines(check: CheckResult) -> Iterator[str]:
    if check.findings:
        yield click.style(f"✖ {FOUND_BAD[check.name]}", fg="red")
        yield from (f"  - {finding.text}" for finding in check.findings)
    else:
        good = FOUND_GOOD[check.name].format(count=_count(check.checked, *COUNTED[check.name]))
        yield f"{click.style('✔', fg='green')} {good}"


def _count(number: int, one: str, more: str) -> str:
    return f"{number} {one if number == 1 else more}"
