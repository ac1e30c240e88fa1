"""Files that a command writes anew: shown as a diff, or replaced as a whole."""

import difflib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from controller.cli.exits import Exit, Failure
from controller.cli.terminal import show

Files = Sequence[tuple[str, bytes]]


def show_changes(before: Files, after: Files) -> int:
    """A unified diff of all that differs; how many files that is."""
    changed = [(name, old, new) for (name, old), (_, new) in zip(before, after, strict=True) if old != new]
    for name, old, new in changed:
        lines = difflib.unified_diff(
            old.decode(errors="replace").splitlines(),
            new.decode(errors="replace").splitlines(),
            name,
            name,
            lineterm="",
        )
        show(_coloured(line) for line in lines)
    return len(changed)


def _coloured(line: str) -> str:
    colour = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1])
    return click.style(line, fg=colour) if colour else line


def write_changes(before: Files, after: Files) -> list[str]:
    """Replaces every file that differs, each at once; their names."""
    changed = [(name, new) for (name, old), (_, new) in zip(before, after, strict=True) if old != new]
    for name, content in changed:
        _replace(Path(name), content)
    return [name for name, _ in changed]


def _replace(path: Path, content: bytes) -> None:
    """Nobody who reads the file meanwhile, nor a full disk, leaves half of it. Links stay links."""
    target = path.resolve()
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            Path(temporary).chmod(target.stat().st_mode & 0o7777)
            Path(temporary).replace(target)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise Failure(f"cannot write {path}: {error.strerror}", Exit.USAGE) from error
