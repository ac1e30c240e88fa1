"""What people write: compare it with the server, hand it over."""

from collections.abc import Iterable, Sequence
from typing import Any

import click
import msgspec

from controller.cli.comparison import applied_lines, comparison, written
from controller.cli.connection import Connection, Finding, ServerRefusal, Unreachable
from controller.cli.exits import Exit, Failure
from controller.cli.files import MAX_BYTES, collect, paths_argument
from controller.cli.options import ListByDefault, note_option, output_option, server_option
from controller.cli.terminal import counted, document, present, say, table
from controller.domain.catalogue import FlagConfig
from controller.domain.plan import API_VERSION
from controller.domain.status import ApplyResult


@click.command()
@paths_argument
@server_option
@output_option
def diff(paths: tuple[str, ...], server: Connection, output: str) -> int:
    """Show what apply would change, and what that means.

    Three ways: against the server's latest revisions; for each run under way, which keeps to the revisions it
    began with, what apply --adopt would do to it; and what the provider shows of the flag now. Changes nothing,
    and needs no more than the scope read. Exits with 1 when the files differ from the server's latest revisions.

    \b
    Example:
      rampart diff checkout-v2.rollout.yaml
    """
    result = _handed_over(server, collect(paths), output, "compare")
    if output == "text":
        say(counted(len(result.changes), "change") if result.changes else "no difference")
    return Exit.FINDING if result.changes else Exit.OK


@click.command()
@paths_argument
@click.option("--adopt", is_flag=True, help="Also move runs under way to what is applied.")
@click.option("--dry-run", is_flag=True, help="Check everything, change nothing.")
@note_option
@server_option
@output_option
def apply(paths: tuple[str, ...], adopt: bool, dry_run: bool, note: str, server: Connection, output: str) -> int:
    """Hand manifests over to the server, all or none. Starts nothing.

    A run under way stays on the revisions it began with. With --adopt it is moved: its bake starts anew, and what
    changes rules or approvals takes a second person. When a run cannot be moved nothing is applied. Exits with 1
    when the manifests have problems, 4 when a provider cannot represent them or a run cannot be moved.

    \b
    Example:
      rampart apply web-service.policy.yaml checkout-v2.rollout.yaml
    """
    files = collect(paths)
    result = _handed_over(server, files, output, dry_run=dry_run, adopt=adopt, note=note)
    if output == "text":
        _tell(applied_lines(result, dry_run=dry_run))
    return Exit.OK


def _tell(lines: Iterable[str]) -> None:
    for line in lines:
        say(line)


def _handed_over(
    server: Connection, files: Sequence[tuple[str, bytes]], output: str, *path: str, **how: object
) -> ApplyResult:
    texts = [{"name": name, "text": _text(name, content)} for name, content in files]
    try:
        answer = server.post("manifests", *path, body={"files": texts, **how})
    except ServerRefusal as refusal:
        raise _with_carets(refusal, {str(one["name"]): str(one["text"]) for one in texts}) from refusal
    except Unreachable as failure:
        if failure.sent:
            failure.hint = "whether it was applied is unknown; compare: rampart diff FILE..."
        raise
    result = present(answer, output, ApplyResult, comparison)
    for warning in result.warnings:
        say(f"warning: {warning}")
    return result


def _text(name: str, content: bytes) -> str:
    if len(content) > MAX_BYTES:
        raise Failure(f"{name} is larger than a manifest may be (256 KiB)", Exit.FINDING)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise Failure(f"{name} is not UTF-8: byte {error.start} is wrong", Exit.FINDING) from error


def _with_carets(refusal: ServerRefusal, texts: dict[str, str]) -> Failure:
    """The server's findings as lint shows them; the source line is ours when the server sent none."""
    findings = [finding for finding in refusal.problem.problems if finding.file]
    if not findings:
        return refusal
    from controller.manifests.problem import Problem, render  # noqa: PLC0415 - only when there is something to show

    for finding in findings:
        fields = {name: value for name, value in msgspec.structs.asdict(finding).items() if name != "path"}
        say(render(Problem(**(fields | {"source_line": finding.source_line or _line(finding, texts)}))))
    return Failure(refusal.problem.detail, refusal.code)


def _line(finding: Finding, texts: dict[str, str]) -> str:
    lines = texts.get(finding.file, "").splitlines()
    return lines[finding.line - 1] if 0 < finding.line <= len(lines) else ""


# — flags —


@click.group(cls=ListByDefault)
def flag() -> None:
    """Flags of the built-in provider.

    \b
    Example:
      rampart flag create checkout-v2 --environment production
    """


@flag.command("list")
@server_option
@output_option
def flag_list(server: Connection, output: str) -> int:
    """List the built-in flags.

    \b
    Example:
      rampart flag list
    """
    present(server.get("flags"), output, list[FlagConfig], _flag_table)
    return Exit.OK


def _flag_table(flags: Sequence[FlagConfig]) -> list[str]:
    rows = [
        [one.environment, one.key, ", ".join(f"{name}={written(value)}" for name, value in one.variations.items())]
        for one in flags
    ]
    return table(("ENVIRONMENT", "FLAG", "VARIATIONS"), rows)


@flag.command("create")
@click.argument("key")
@click.option("--environment", metavar="NAME", required=True, help="The environment it lives in.")
@click.option(
    "--variation",
    "variations",
    metavar="NAME=VALUE",
    multiple=True,
    help="A variation and its JSON value; may be repeated. Default: on=true off=false.",
)
@click.option("--off", metavar="NAME", help="The variation an off flag serves. Default: off, else the last one.")
@click.option("--client-side", is_flag=True, help="Browsers and apps may see it, too.")
@note_option
@server_option
@output_option
def flag_create(
    key: str,
    environment: str,
    variations: tuple[str, ...],
    off: str | None,
    client_side: bool,
    note: str,
    server: Connection,
    output: str,
) -> int:
    """Create a built-in flag in one environment. It begins off.

    \b
    Example:
      rampart flag create checkout-v2 --environment production --variation on=true --variation off=false
    """
    manifest = flag_manifest(key, environment, dict(_variation(text) for text in variations), off)
    if client_side:
        manifest["spec"]["clientSide"] = True
    files = [(f"{key}.flag.yaml", document(manifest))]
    result = _handed_over(server, files, output, dry_run=False, note=note)
    if output == "text":
        _tell(applied_lines(result, dry_run=False))
    return Exit.OK


def _variation(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise click.BadParameter(f'"{text}" is not NAME=VALUE, as in on=true', param_hint="--variation")
    try:
        return name, msgspec.json.decode(value)
    except msgspec.DecodeError:
        return name, value


def flag_manifest(key: str, environment: str, variations: dict[str, Any], off: str | None) -> dict[str, Any]:
    """The document that `rampart apply` would take; a plain word as a value is a string."""
    spec: dict[str, Any] = {"environment": environment, "key": key}
    if variations:
        spec["variations"] = variations
        spec["off"] = off or ("off" if "off" in variations else list(variations)[-1])
    elif off:
        spec["off"] = off
    name = key.lower().strip("._-")[:100].rstrip("._-")
    return {"apiVersion": API_VERSION, "kind": "Flag", "metadata": {"name": name}, "spec": spec}
