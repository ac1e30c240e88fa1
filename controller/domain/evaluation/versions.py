"""Versions in clauses and attributes, compared as semver.org orders them."""

import re
from typing import Any

_IDENTIFIER = r"(?:0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)"
_NUMBER = r"(0|[1-9]\d*)"
_VERSION = re.compile(
    rf"{_NUMBER}(?:\.{_NUMBER})?(?:\.{_NUMBER})?"
    rf"(?:-({_IDENTIFIER}(?:\.{_IDENTIFIER})*))?(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?",
    re.ASCII,
)
MAX_LENGTH = 256

Identifier = tuple[int, int, str]
"""Orders numbers before words: (0, number, "") or (1, 0, word)."""

Version = tuple[int, int, int, bool, tuple[Identifier, ...]]
"""Compares as versions do. The flag says that this is a release, which comes after its pre-releases."""


def read_version(value: Any) -> Version | None:
    """None for what is no version. "2" and "2.1" are taken for "2.0.0" and "2.1.0"; what was built is ignored."""
    if not isinstance(value, str) or len(value) > MAX_LENGTH or not (found := _VERSION.fullmatch(value)):
        return None
    major, minor, patch, before = found.groups()
    parts = tuple(_identifier(part) for part in before.split(".")) if before else ()
    return int(major), int(minor or 0), int(patch or 0), not parts, parts


def _identifier(part: str) -> Identifier:
    return (0, int(part), "") if part.isdigit() else (1, 0, part)
