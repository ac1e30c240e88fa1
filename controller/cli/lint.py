"""Manifests on their own, without a server: check them, describe their shape."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from controller import __version__
from controller.cli.exits import Exit, Failure
from controller.cli.files import collect
from controller.cli.options import output_choice
from controller.cli.rewriting import show_changes, write_changes
from controller.cli.terminal import counted, document, say, show, show_json, table
from controller.manifests.folder import SUFFIXES, TEST_SUFFIXES

if TYPE_CHECKING:
    from controller.manifests.problem import Problem

SCHEMA_FOLDER = Path("docs/schema")
SEVERITIES = ("error", "warning", "note")
KINDS_OF_DOCUMENTS = ("RolloutPlan", "GuardrailPolicy", "Flag", "RolloutTest")


@click.command()
@click.argument("paths", metavar="[FILE...]", nargs=-1, type=click.Path(exists=True, allow_dash=True))
@click.option(
    "--fix", is_flag=True, help="Mend what can only have been meant in one way, in the files themselves."
)
@click.option("--diff", is_flag=True, help="With --fix: show what would change, and write nothing.")
@click.option("--strict", is_flag=True, help="Exit with 1 on warnings too.")
@click.option("--explain", metavar="CODE", help="Explain one rule, with a bad and a good example.")
@click.option("--rules", is_flag=True, help="List all rules; with -o markdown as a page.")
@output_choice("text", "concise", "json", "github", "sarif", "junit", "markdown")
def lint(
    paths: tuple[str, ...], fix: bool, diff: bool, strict: bool, explain: str | None, rules: bool, output: str
) -> int:
    """Check manifests without a server.

    Every problem is shown with its place and what to write instead.

    Of a folder every *.rollout.yaml, *.policy.yaml, *.flag.yaml and *.test.yaml is read; - is stdin. Exits with 1
    when there is an error; warnings alone exit with 0. The codes are explained in docs/lint.md.

    \b
    Examples:
      rampart lint policies/
      rampart lint --fix --diff checkout-v2.rollout.yaml
      rampart lint --explain R022
    """
    if explain:
        return _explain(explain)
    if rules:
        return _list_rules(output)
    if output == "markdown":
        raise click.UsageError("-o markdown is for --rules")
    if not paths:
        raise click.UsageError("name files or folders to check, as in: rampart lint policies/")
    if diff and not fix:
        raise click.UsageError("--diff shows what --fix would change; give both")
    if fix and not diff and "-" in paths:
        raise click.UsageError("stdin cannot be fixed in place; add --diff")
    files = collect(paths, (*SUFFIXES, *TEST_SUFFIXES))
    return _fix(files, output, strict, diff) if fix else _report(files, output, strict)


def _report(files: Sequence[tuple[str, bytes]], output: str, strict: bool, settled: str = "") -> int:
    # Here and not above: the YAML and PromQL parsers cost more time than a kill may take.
    from controller.manifests.lint import lint as check  # noqa: PLC0415

    problems = check(files, today=datetime.now(tz=UTC).date())
    _show_problems(problems, [name for name, _ in files], output)
    counts = {severity: sum(one.severity == severity for one in problems) for severity in SEVERITIES}
    told = [counted(counts["error"], "error"), counted(counts["warning"], "warning")]
    told += [counted(counts["note"], "note")] if counts["note"] else []
    fixable = sum(one.fix is not None for one in problems)
    hint = f"; --fix mends {fixable} of them" if fixable else ""
    say(f"{settled}{', '.join(told)} in {counted(len(files), 'file')}{hint}")
    return Exit.FINDING if counts["error"] or (strict and counts["warning"]) else Exit.OK


def _show_problems(problems: Sequence["Problem"], files: Sequence[str], output: str) -> None:
    from controller.manifests import report  # noqa: PLC0415 - as above
    from controller.manifests.problem import render  # noqa: PLC0415 - as above

    match output:
        case "json":
            show_json(msgspec.json.encode(problems))
        case "sarif":
            show_json(msgspec.json.encode(report.sarif(problems, __version__)))
        case "junit":
            click.echo(report.junit(problems, files))
        case "github" | "concise":
            show(report.github(one) if output == "github" else report.concise(one) for one in problems)
        case _:
            show(render(problem) for problem in problems)


def _fix(files: Sequence[tuple[str, bytes]], output: str, strict: bool, diff: bool) -> int:
    from controller.manifests.mend import mend  # noqa: PLC0415 - as above

    mended = mend(files)
    if diff:
        changed = show_changes(files, mended.files)
        say(f"{counted(mended.count, 'problem')} would be fixed in {counted(changed, 'file')}")
        return Exit.FINDING if changed else Exit.OK
    write_changes(files, mended.files)
    return _report(mended.files, output, strict, f"fixed {counted(mended.count, 'problem')}; ")


def _explain(code: str) -> int:
    from controller.manifests.rulebook import RULES  # noqa: PLC0415 - as above
    from controller.manifests.rulebook.handbook import explained  # noqa: PLC0415 - as above

    found = [rule for rule in RULES.values() if code.lower() in (rule.code.lower(), rule.name)]
    if not found:
        raise Failure(f"there is no rule {code}", Exit.USAGE, hint="rampart lint --rules lists them")
    show([explained(found[0])])
    return Exit.OK


def _list_rules(output: str) -> int:
    from controller.manifests.rulebook import RULES  # noqa: PLC0415 - as above
    from controller.manifests.rulebook.handbook import page  # noqa: PLC0415 - as above

    if output == "markdown":
        click.echo(page(), nl=False)
    elif output == "json":
        show_json(msgspec.json.encode(list(RULES.values())))
    else:
        rows = [(one.code, one.severity, one.name, "fix" if one.fix else "", one.what) for one in RULES.values()]
        show(table(("CODE", "SEVERITY", "NAME", "", "FINDS"), rows))
    return Exit.OK


@click.command()
@click.argument("kind", type=click.Choice(KINDS_OF_DOCUMENTS), required=False)
@click.option("--write", is_flag=True, help=f"Write all of them into {SCHEMA_FOLDER}/ here.")
def schema(kind: str | None, write: bool) -> int:
    """Print the JSON Schema of a kind, for editors and CI.

    \b
    Example:
      rampart schema RolloutPlan > rolloutplan.json
    """
    from controller.manifests.loader import KINDS  # noqa: PLC0415 - as above
    from controller.manifests.schema import schema_for  # noqa: PLC0415 - as above

    if write:
        SCHEMA_FOLDER.mkdir(parents=True, exist_ok=True)
        for name in [kind] if kind else KINDS:
            target = SCHEMA_FOLDER / f"{name.lower()}.json"
            target.write_bytes(document(schema_for(name)) + b"\n")
            say(f"wrote {target}")
        return Exit.OK
    if kind is None:
        raise click.UsageError(f"name a kind ({', '.join(KINDS)}), or give --write")
    click.echo(document(schema_for(kind)))
    return Exit.OK
