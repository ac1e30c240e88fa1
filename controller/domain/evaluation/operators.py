"""What a clause may ask of one value. All of it is decided when the clause is read, except the value."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from controller.domain.evaluation.timestamps import read_timestamp
from controller.domain.evaluation.versions import read_version

Test = Callable[[Any], bool]
Patterns = Callable[[str], Callable[[str], bool] | None]
"""Reads a regular expression: a function that finds it anywhere in a text, or None when it is not one.

Whoever evaluates brings it, because the standard library's may take for ever with some patterns, and the domain
uses no other library.
"""

SEGMENT_MATCH = "segmentMatch"


def read_test(op: str, values: Sequence[Any], patterns: Patterns) -> Test:
    """Whether a value passes for any of the clause's values. An operator that nobody knows passes nothing."""
    if op == "in":
        return _one_of(values)
    if op == "matches":
        found = [one for one in (patterns(value) for value in values if isinstance(value, str)) if one]
        return lambda value: isinstance(value, str) and any(search(value) for search in found)
    if op in _OF_TEXTS:
        return _text_test(_OF_TEXTS[op], tuple(value for value in values if isinstance(value, str)))
    if op in _OF_ORDERED:
        read, compare = _OF_ORDERED[op]
        return _ordered_test(read, compare, values)
    return _nothing


def _one_of(values: Sequence[Any]) -> Test:
    """Texts and numbers by their hash: lists of both may be long in a flag and, at the same time, in a context."""
    plain = frozenset(value for value in values if _is_plain(value))
    others = [value for value in values if not _is_plain(value)]

    def test(value: Any) -> bool:
        if _is_plain(value):
            return value in plain
        return any(same(value, other) for other in others)

    return test


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def same(one: Any, other: Any) -> bool:
    """Equal as JSON: 1 is 1.0, and neither is true."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(value, other[name]) for name, value in one.items())
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _text_test(passes: Callable[[str, tuple[str, ...]], bool], wanted: tuple[str, ...]) -> Test:
    return lambda value: isinstance(value, str) and passes(value, wanted)


def _ordered_test(read: Callable[[Any], Any], compare: Callable[[Any, Any], bool], values: Sequence[Any]) -> Test:
    limits = [limit for limit in map(read, values) if limit is not None]

    def test(value: Any) -> bool:
        read_value = read(value)
        return read_value is not None and any(compare(read_value, limit) for limit in limits)

    return test


def _read_number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _nothing(value: Any) -> bool:
    return False


_OF_TEXTS: dict[str, Callable[[str, tuple[str, ...]], bool]] = {
    "startsWith": str.startswith,
    "endsWith": str.endswith,
    "contains": lambda value, wanted: any(one in value for one in wanted),
}
_OF_ORDERED: dict[str, tuple[Callable[[Any], Any], Callable[[Any, Any], bool]]] = {
    "lessThan": (_read_number, lambda value, limit: value < limit),
    "lessThanOrEqual": (_read_number, lambda value, limit: value <= limit),
    "greaterThan": (_read_number, lambda value, limit: value > limit),
    "greaterThanOrEqual": (_read_number, lambda value, limit: value >= limit),
    "before": (read_timestamp, lambda value, limit: value < limit),
    "after": (read_timestamp, lambda value, limit: value > limit),
    "semVerEqual": (read_version, lambda value, limit: value == limit),
    "semVerLessThan": (read_version, lambda value, limit: value < limit),
    "semVerGreaterThan": (read_version, lambda value, limit: value > limit),
}
