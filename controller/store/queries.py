"""Reads queries.sql: `-- name: x`, a line that says what it is for, then one statement."""

from pathlib import Path

HEADER = "-- name: "


def load(path: Path) -> dict[str, str]:
    """Statement by name. Raises ValueError on a name used twice and on a statement without a description."""
    queries: dict[str, str] = {}
    _, *blocks = f"\n{path.read_text()}".split(f"\n{HEADER}")
    for block in blocks:
        name, description, statement = block.split("\n", 2)
        if name in queries or not description.startswith("-- "):
            raise ValueError(f"{path}: {name} is there twice or has no description")
        queries[name] = statement.strip()
    return queries


SQL = load(Path(__file__).with_suffix(".sql"))
