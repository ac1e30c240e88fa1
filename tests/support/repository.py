"""The repository itself as test data: its tracked files, its Markdown, its configuration."""

import re
import subprocess
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@cache
def tracked() -> list[Path]:
    """All files that git knows, and those it would add."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, check=True, text=True, timeout=30).stdout
    return [path for name in names.splitlines() if (path := ROOT / name).is_file()]


def python_files(*folders: str) -> list[Path]:
    roots = [ROOT / folder for folder in folders]
    return [path for path in tracked() if path.suffix == ".py" and any(r in path.parents for r in roots)]


def markdown() -> list[Path]:
    return [path for path in tracked() if path.suffix == ".md"]


def blocks(page: Path, *languages: str) -> list[str]:
    """The fenced blocks of a page in one of these languages."""
    return [text for language, text in _FENCE.findall(page.read_text()) if language in languages]


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))
