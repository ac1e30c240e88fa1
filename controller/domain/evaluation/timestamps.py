"""Times in clauses and attributes: milliseconds since 1970, or RFC 3339."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(?:\.(\d+))?(?:[Zz]|([+-]\d\d:\d\d))", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def read_timestamp(value: Any) -> float | None:
    """Milliseconds since 1970, or None for what is no time. Finer than a microsecond is cut off."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value
    if not isinstance(value, str) or not (found := _RFC3339.fullmatch(value)):
        return None
    day, time, fraction, offset = found.groups()
    try:
        at = datetime.fromisoformat(f"{day}T{time}.{(fraction or '0')[:6]:0<6}{offset or '+00:00'}")
        return (at - _EPOCH) / _MILLISECOND
    except ValueError:  # a day, hour or offset that there is not
        return None
