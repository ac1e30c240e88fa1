"""Manifests on their own, without a server: check them, describe their shape."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from controller.cli.exits import Exit
from controller.cli.files import collect, paths_argument
from controller.cli.options import output_choice
from controller.cli.terminal import counted, document, say, show, show_json
from controller.manifests.folder import SUFFIXES, TEST_SUFFIXES

if TYPE_CHECKING:
    from controller.manifests.problem import Problem

SCHEMA_FOLDER = Path("docs/schema")
KINDS_OF_DOCUMENTS = ("RolloutPlan", "GuardrailPolicy", "Flag", "RolloutTest")


@click.command()
@paths_argument
@output_choice("text", "json", "concise")
def lint(paths: tuple[str, ...], output: str) -> int:
    """Check manifests without a server.

    Every problem is shown with its place and what to write instead.

    Of a folder every *.rollout.yaml, *.policy.yaml, *.flag.yaml and *.test.yaml is read; - is stdin. Exits with 1
    when there is an error; warnings alone exit with 0. The codes are explained in docs/lint.md.

    \b
    Example:
      rampart lint policies/
    """
    # Here and not above: the YAML and PromQL parsers cost more time than a kill may take.
    from controller.manifests.lint import lint as check  # noqa: PLC0415

    files = collect(paths, (*SUFFIXES, *TEST_SUFFIXES))
    problems = check(files)
    _show_problems(problems, output)
    errors = sum(problem.severity == "error" for problem in problems)
    warnings = len(problems) - errors
    say(f"{counted(errors, 'error')}, {counted(warnings, 'warning')} in {counted(len(files), 'file')}")
    return Exit.FINDING if errors else Exit.OK


def _show_problems(problems: Sequence["Problem"], output: str) -> None:
    from controller.manifests.problem import render  # noqa: PLC0415 - as above

    if output == "json":
        show_json(msgspec.json.encode(problems))
    elif output == "concise":
        show(f"{one.file}:{one.line}:{one.column}: {one.code} {one.message}" for one in problems)
    else:
        show(render(problem) for problem in problems)


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
