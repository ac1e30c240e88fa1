"""`python -m tests.mutants`: plants each known bug in a copy of the product and shows what notices it."""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.mutants.planted import PLANTED, RACES, WORLDS, Bug

ROOT = Path(__file__).parents[2]
COPIED = ("controller", "tests", "migrations", "policies", "docs", "pyproject.toml", "README.md")
SEEDS = 2000
LIMIT_SECONDS = 600


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("words", nargs="*", help="only bugs whose name has all these words")
    parser.add_argument("--first", type=int, default=0, help="leave out so many at the beginning")
    arguments = parser.parse_args()
    chosen = [bug for bug in PLANTED[arguments.first :] if all(word in bug.name for word in arguments.words)]
    missed = 0
    print(f"{'planted bug':<68} {'s':>5}  caught by")
    for bug in chosen:
        began = time.monotonic()
        caught = notice(bug)
        missed += caught is None
        print(f"{bug.name:<68} {time.monotonic() - began:>5.0f}  {caught or 'NOBODY'}", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} caught")
    return 1 if missed else 0


def notice(bug: Bug) -> str | None:
    """Which seed or test fails with the bug planted, and how; None when nothing does."""
    with tempfile.TemporaryDirectory(prefix="rampart-mutant-") as folder:
        root = Path(folder)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, root / name)
        file = root / bug.file
        text = file.read_text()
        if text.count(bug.old) != 1:
            raise SystemExit(f"{bug.name}: its text is found {text.count(bug.old)} times in {bug.file}")
        file.write_text(text.replace(bug.old, bug.new))
        return _simulated(root, bug) if bug.caught_by in (WORLDS, RACES) else _tested(root, bug)


def _simulated(root: Path, bug: Bug) -> str | None:
    kind = ["--races"] if bug.caught_by == RACES else []
    ended = _run(root, "-m", "tests.simulation", "--until-broken", "--seeds", str(SEEDS), *kind)
    found = re.search(r"^seed (\d+): (.{0,60})", ended.stdout, re.MULTILINE)
    return f"{bug.caught_by}, seed {found[1]}: {found[2]}" if found else None


def _tested(root: Path, bug: Bug) -> str | None:
    ended = _run(root, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *bug.caught_by.split())
    found = re.search(r"^FAILED (\S+)", ended.stdout, re.MULTILINE)
    return found[1] if found else None


def _run(root: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = ["timeout", str(LIMIT_SECONDS), sys.executable, *arguments]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)


if __name__ == "__main__":
    sys.exit(main())
