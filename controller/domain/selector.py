"""Which plans are meant: all labels that are named must be there, with that value."""

from collections.abc import Mapping

MOST_LABELS = 20


def selector(text: str) -> dict[str, str]:
    """`tier=1,team=checkout` → labels. Raises ValueError saying what is wrong."""
    wanted: dict[str, str] = {}
    for part in text.split(","):
        label, equals, value = (piece.strip() for piece in part.partition("="))
        if not label or not equals or not value:
            raise ValueError(f'"{part.strip()}" is no label=value; write tier=1,team=checkout')
        if wanted.setdefault(label, value) != value:
            raise ValueError(f'"{label}" cannot be {wanted[label]} and {value} at the same time')
    return wanted


def fits(wanted: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Nothing wanted fits everything."""
    return all(labels.get(label) == value for label, value in wanted.items())


def selector_text(wanted: Mapping[str, str]) -> str:
    return ",".join(f"{label}={value}" for label, value in sorted(wanted.items()))
