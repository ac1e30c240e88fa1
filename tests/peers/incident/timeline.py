"""What happened when and where, told by everybody who took part."""

import time
from collections.abc import Iterable
from datetime import datetime

from msgspec import Struct


class Happening(Struct, frozen=True, order=True):
    """`at` is wall time in seconds: all of them run on one machine."""

    at: float
    where: str
    what: str


class Timeline:
    def __init__(self) -> None:
        self.rows: list[Happening] = []

    def add(self, where: str, what: str, at: float | None = None) -> None:
        self.rows.append(Happening(time.time() if at is None else at, where, " ".join(what.split())))

    def of(self, where: str, *parts: str) -> list[Happening]:
        """In their order: what happened there and says all of these, in capitals or not."""

        def fits(row: Happening) -> bool:
            return row.where == where and all(part.lower() in row.what.lower() for part in parts)

        return sorted(filter(fits, self.rows))

    def table(self, began: float) -> str:
        """Markdown. Seconds since `began`."""
        rows = sorted(row for row in self.rows if row.at >= began - 1)
        lines = [f"| {row.at - began:.2f} | {row.where} | {row.what.replace('|', '/')} |" for row in rows]
        return "\n".join(["| seconds | where | what |", "|---:|---|---|", *lines])


def seconds(text: str) -> float:
    """Of an RFC 3339 time; its nanoseconds are cut."""
    head, _, rest = text.replace("Z", "+00:00").partition(".")
    if not rest:
        return datetime.fromisoformat(head).timestamp()
    digits = "".join(char for char in rest.split("+")[0] if char.isdigit())[:6]
    return datetime.fromisoformat(f"{head}.{digits.ljust(6, '0')}+00:00").timestamp()


def changes(samples: Iterable[tuple[float, str]]) -> list[tuple[float, str]]:
    """Those that differ from the one before."""
    found: list[tuple[float, str]] = []
    for at, state in samples:
        if not found or found[-1][1] != state:
            found.append((at, state))
    return found
