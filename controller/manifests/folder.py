"""The files of a folder that hold documents, found the same way by commands and by the server."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

SUFFIXES = tuple(f".{kind}.{end}" for kind in ("rollout", "policy", "flag") for end in ("yaml", "yml"))
"""Of what can be applied."""
TEST_SUFFIXES = (".test.yaml", ".test.yml")


def files_below(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """All files whose names end so, sorted. Links are followed, each folder once. Raises OSError.

    What is hidden is left out: Kubernetes keeps every generation of a mounted ConfigMap in a hidden folder, beside
    links to the present one, and git its own things.
    """
    return sorted(_walk(folder, suffixes, set()))


def _walk(folder: Path, suffixes: tuple[str, ...], seen: set[tuple[int, int]]) -> Iterator[Path]:
    here = folder.stat()
    if (here.st_dev, here.st_ino) in seen:
        return
    seen.add((here.st_dev, here.st_ino))
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
    for path in (folder / name for name in names):
        if path.is_dir():
            yield from _walk(path, suffixes, seen)
        elif path.name.endswith(suffixes) and _may_be_read(path):
            yield path


def _may_be_read(path: Path) -> bool:
    """False for pipes and devices, which nobody should wait for; a link to nowhere is for the reader to tell."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return True
