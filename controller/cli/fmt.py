"""`rampart fmt`: manifests in their usual layout."""

import sys
from collections.abc import Sequence

import click

from controller.cli.exits import Exit
from controller.cli.files import collect, paths_argument
from controller.cli.rewriting import show_changes, write_changes
from controller.cli.terminal import counted, say, show
from controller.manifests.folder import SUFFIXES, TEST_SUFFIXES

Files = Sequence[tuple[str, bytes]]


@click.command()
@paths_argument
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 when a file would change.")
@click.option(
    "--diff", is_flag=True, help="Write nothing; show what would change, and exit with 1 when something would."
)
def fmt(paths: tuple[str, ...], check: bool, diff: bool) -> int:
    """Bring manifests into their usual layout.

    What they say stays the same, comments included: keys in the documented order, two spaces a level, inline maps
    under each other in columns. A file that cannot be read, or cannot be laid out safely, stays as it is and makes
    the exit code 1. Of a folder every manifest is taken; - reads stdin and writes stdout.

    \b
    Examples:
      rampart fmt policies/
      rampart fmt --check policies/
    """
    files = collect(paths, (*SUFFIXES, *TEST_SUFFIXES))
    laid_out, refused = _laid_out(files)
    for why in refused:
        say(why)
    if diff:
        changed = show_changes(files, laid_out)
    elif check:
        names = [name for (name, old), (_, new) in zip(files, laid_out, strict=True) if old != new]
        show(names)
        changed = len(names)
    else:
        return _written(files, laid_out, bool(refused))
    say(f"{counted(changed, 'file')} of {len(files)} would change")
    return Exit.FINDING if changed or refused else Exit.OK


def _laid_out(files: Files) -> tuple[Files, list[str]]:
    # Here and not above: the YAML parser costs more time than a kill may take.
    from controller.manifests.layout import formatted  # noqa: PLC0415
    from controller.manifests.outline import Unformattable  # noqa: PLC0415

    now, refused = [], []
    for name, content in files:
        try:
            now.append((name, formatted(content.decode()).encode()))
        except UnicodeDecodeError:
            now.append((name, content))
            refused.append(f"{name}: left as it is: it is not UTF-8 text")
        except Unformattable as error:
            now.append((name, content))
            refused.append(f"{name}: left as it is: {error}")
    return now, refused


def _written(files: Files, laid_out: Files, refused: bool) -> int:
    on_disk = [(one, other) for one, other in zip(files, laid_out, strict=True) if one[0] != "stdin"]
    changed = write_changes([one for one, _ in on_disk], [other for _, other in on_disk])
    for name, content in laid_out:
        if name == "stdin":
            sys.stdout.buffer.write(content)
    if on_disk:
        say(f"{counted(len(changed), 'file')} changed, {len(on_disk) - len(changed)} left as they were")
    return Exit.FINDING if refused else Exit.OK
