"""Which files a command was given."""

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from controller.cli.exits import Exit, Failure
from controller.manifests.folder import SUFFIXES, files_below

MAX_BYTES = 256 * 1024

paths_argument = click.argument(
    "paths", metavar="FILE...", nargs=-1, required=True, type=click.Path(exists=True, allow_dash=True)
)


def collect(paths: Sequence[str], suffixes: tuple[str, ...] = SUFFIXES) -> list[tuple[str, bytes]]:
    """Each file with its name as given; of a folder all below it with these suffixes; `-` is stdin.

    At most one byte more than a manifest may have is read: enough to refuse it.
    """
    files = []
    for path in paths:
        if path == "-":
            files.append(("stdin", sys.stdin.buffer.read(MAX_BYTES + 1)))
            continue
        found = _below(Path(path), suffixes) if Path(path).is_dir() else [Path(path)]
        if not found:
            raise Failure(
                f"{path} holds no manifest", Exit.USAGE, hint=f"their names end in {', '.join(suffixes[::2])}"
            )
        files += [(str(one), _read(one)) for one in found]
    return files


def _below(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    try:
        return files_below(folder, suffixes)
    except OSError as error:
        raise Failure(f"cannot read {error.filename}: {error.strerror}", Exit.USAGE) from error


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise Failure(f"cannot read {path}: {error.strerror}", Exit.USAGE) from error
