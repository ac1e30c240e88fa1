"""The audit log: read it, take it away, and check its hash chain, or the proof of a run, without the server."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any, BinaryIO

import click
import msgspec
from msgspec import Struct

from controller.cli.connection import Connection
from controller.cli.exits import Exit, Failure
from controller.cli.options import ListByDefault, output_option, server_option
from controller.cli.runs import fetch_status, run_query
from controller.cli.screens import day_and_clock
from controller.cli.terminal import present, say, show, show_json, table
from controller.domain.audit import AuditEntry, AuditRow, ChainReport, verify_chain
from controller.domain.status import RunStatus

PAGE = 1000
VERIFY_SECONDS = 600.0

_canonical = msgspec.json.Encoder(order="sorted")


class Record(Struct, frozen=True, kw_only=True):
    """One row as the API shows it and as a line of an export has it."""

    sequence: int
    hash: str
    previous: str
    entry: dict[str, Any]


class Head(Struct, frozen=True):
    sequence: int
    hash: str


@click.group(cls=ListByDefault)
def audit() -> None:
    """Read, export and verify what happened, by whom and why.

    \b
    Example:
      rampart audit list checkout-v2
    """


@audit.command("list")
@click.argument("run", required=False)
@click.option("--limit", type=click.IntRange(1, PAGE), default=30, show_default=True, help="At most so many rows.")
@server_option
@output_option
def audit_list(run: str | None, limit: int, server: Connection, output: str) -> int:
    """Show the latest rows, newest first; of one RUN or of everything.

    RUN is a run as in checkout-v2#3, or a plan: then its latest run.

    \b
    Example:
      rampart audit list checkout-v2#3
    """
    answer = server.get("audit", run=run and _run_id(server, run), limit=limit, newest_first="true")
    present(answer, output, list[Record], _record_table)
    return Exit.OK


def _run_id(server: Connection, run: str) -> str:
    plan, number = run_query(run)
    return f"{plan}#{number}" if number else fetch_status(server, run).decode(RunStatus).id


def _record_table(records: Iterable[Record]) -> list[str]:
    rows = []
    for record in records:
        entry = msgspec.convert(record.entry, AuditEntry)
        who = f"{entry.actor} ({entry.cause})"
        rows.append(
            [str(record.sequence), day_and_clock(entry.at), who, entry.action, entry.subject, entry.reason]
        )
    return table(("ROW", "AT", "WHO", "ACTION", "SUBJECT", "REASON"), rows)


@audit.command("export")
@click.argument("run", required=False)
@click.option("-o", "file", type=click.Path(dir_okay=False), help="Write there instead of to stdout.")
@click.option("--all", "whole", is_flag=True, help="With RUN: all rows from its first to the end of the log.")
@server_option
def audit_export(run: str | None, file: str | None, whole: bool, server: Connection) -> int:
    """Take the whole log away, or with RUN the proof of one run.

    A proof is one file: plan, policies, evidence and audit rows of a run. rampart verify decides it all again,
    without a server. Rows of others are not in it, so that it can be given away; --all takes them in, and makes of
    all rows one chain that a head noted elsewhere vouches for.

    RUN is a run as in checkout-v2#3, or a plan: then its latest run. Without RUN the log is written as JSON Lines,
    oldest first.

    \b
    Example:
      rampart audit export checkout-v2#3 -o proof.json
      rampart audit export > audit.jsonl
    """
    from controller.cli.proof import write_proof  # noqa: PLC0415 - it loads all that decides, and a kill must not wait

    if run is not None:
        return write_proof(server, _run_id(server, run), whole=whole, file=file)
    if whole:
        raise click.UsageError("--all belongs to a RUN; without RUN the whole log is written anyway")
    rows = 0
    with destination(file) as sink:
        for line in pages(server):
            sink.write(line + b"\n")
            rows += 1
    say(f"{rows} rows; check them: rampart audit verify --file {file or 'FILE'}")
    return Exit.OK


@contextmanager
def destination(file: str | None) -> Iterator[IO[bytes]]:
    try:
        with click.open_file(file or "-", "wb") as sink:
            yield sink
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Failure(f"cannot write {file}: {error.strerror or error}", Exit.USAGE) from error


def pages(server: Connection, *, run: str | None = None, after: int = 0) -> Iterator[bytes]:
    """Each row as JSON, oldest first."""
    while True:
        page = server.get("audit", after=after, limit=PAGE, run=run).decode(list[msgspec.Raw])
        yield from (bytes(row) for row in page)
        if len(page) < PAGE:
            return
        after = msgspec.json.decode(page[-1], type=Record).sequence


@audit.command("verify")
@click.option("--file", "export", type=click.File("rb"), help="An export, checked here without any server.")
@click.option("--head", metavar="ROW:HASH", help="A head noted earlier: this row must still be there, unchanged.")
@server_option
@output_option
def audit_verify(export: BinaryIO | None, head: str | None, server: Connection, output: str) -> int:
    """Recompute the hash chain. Exits with 1 when a row is missing or was changed.

    Rows cut off at the end leave a chain that is whole in itself. So keep the head that this prints somewhere
    else, and give it as --head next time.

    \b
    Example:
      rampart audit verify --file audit.jsonl --head 128:9f3a51
    """
    witness = _parse_head(head) if head else None
    if export:
        report = _verify_export(export, witness)
    else:
        report = server.within(VERIFY_SECONDS).get("audit", "verify").decode(ChainReport)
        if witness and report.problem is None:
            report = msgspec.structs.replace(report, problem=_head_problem(server, witness))
    if output == "json":
        show_json(msgspec.json.encode(report))
    else:
        show(_report_lines(report))
    return Exit.FINDING if report.problem else Exit.OK


def _parse_head(text: str) -> Head:
    number, _, digest = text.partition(":")
    if not number.isdecimal() or int(number) < 1 or not digest:
        raise click.BadParameter(
            f'"{text}" is not ROW:HASH, as `rampart audit verify` prints it', param_hint="--head"
        )
    return Head(int(number), digest.lower())


def _verify_export(export: BinaryIO, witness: Head | None) -> ChainReport:
    found = [False]

    def rows() -> Iterator[AuditRow]:
        for row in _rows(export):
            if witness and row.sequence == witness.sequence:
                found[0] = row.hash.hex().startswith(witness.hash)
            yield row

    report = verify_chain(rows())
    if witness and report.problem is None and not found[0]:
        return msgspec.structs.replace(report, problem=_differs(witness))
    return report


def _rows(export: BinaryIO) -> Iterator[AuditRow]:
    for number, line in enumerate(export, 1):
        if not line.strip():
            continue
        try:
            record = msgspec.json.decode(line, type=Record)
            previous, digest = bytes.fromhex(record.previous), bytes.fromhex(record.hash)
        except ValueError as error:
            raise Failure(f"line {number} of the export is not an audit row: {error}", Exit.FINDING) from error
        yield AuditRow(sequence=record.sequence, previous=previous, hash=digest, body=body_of(record))


def body_of(record: Record) -> str:
    """The text that was hashed."""
    return _canonical.encode(record.entry).decode()


def _head_problem(server: Connection, witness: Head) -> str | None:
    found = server.get("audit", after=witness.sequence - 1, limit=1).decode(list[Record])
    same = found and found[0].sequence == witness.sequence and found[0].hash.startswith(witness.hash)
    return None if same else _differs(witness)


def _differs(witness: Head) -> str:
    return f"row {witness.sequence} is not what it was when its head was noted: it was changed or cut off"


def _report_lines(report: ChainReport) -> list[str]:
    if report.problem:
        return [click.style(f"✖ {report.problem}", fg="red", bold=True), f"  {report.rows} rows before it verify"]
    return [
        f"{click.style('✔', fg='green')} {report.rows} rows verify, none is missing",
        f"  head {report.head_sequence}:{report.head_hash}",
    ]


@click.command("verify")
@click.argument("file", type=click.File("rb"))
@click.option("--head", metavar="ROW:HASH", help="A head noted earlier: the file must hold that row, unchanged.")
@output_option
def verify(file: BinaryIO, head: str | None, output: str) -> int:
    """Check the proof of a run from its file alone. Exits with 1 when anything in it does not fit.

    FILE is what rampart audit export RUN wrote. All hashes are recomputed, every automatic decision is made again
    from what was measured, and the run is led from its start to its end: no server, token or network is needed.
    What the file does not allow to check is said below the checks.

    \b
    Example:
      rampart verify proof.json --head 128:9f3a51
    """
    from controller.cli.proof import read_proof, report_lines  # noqa: PLC0415 - as above
    from controller.domain.proof import ProofHead  # noqa: PLC0415 - as above
    from controller.domain.proof import verify as check  # noqa: PLC0415 - as above

    witness = _parse_head(head) if head else None
    noted = ProofHead(sequence=witness.sequence, hash=witness.hash) if witness else None
    report = check(read_proof(file.read()), noted)
    if output == "json":
        show_json(msgspec.json.encode(report))
    else:
        show(report_lines(report))
    return Exit.OK if report.good else Exit.FINDING
