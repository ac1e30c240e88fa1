"""Exposure, durations and limits: how people write them and what they mean.

Exposure is an int in thousandths of a percent (0…100000), so that 0.1 % is 100 and never a float.
"""

import re
from functools import lru_cache
from typing import Annotated

from msgspec import Meta

FULL_EXPOSURE = 100_000

TEXTS_KEPT = 4096
"""Every tick reads the same few durations and shares again."""

DURATION_PATTERN = r"^(\d+(\.\d+)?(ms|s|m|h|d))+$"
EXPOSURE_PATTERN = r"^\d{1,3}(\.\d{1,3})?\s?%$"
NAME_PATTERN = r"^[a-z0-9]([a-z0-9._-]{0,98}[a-z0-9])?$"
KEY_PATTERN = r"^[A-Za-z0-9._-]{1,200}$"

Duration = Annotated[str, Meta(pattern=DURATION_PATTERN, description="a duration, as in 30s, 5m, 1h30m, 2d")]
ExposureText = Annotated[
    str, Meta(pattern=EXPOSURE_PATTERN, description="a share of contexts, as in 0.1%, 1%, 50%")
]
Name = Annotated[str, Meta(pattern=NAME_PATTERN, description="lower-case letters, digits, '-', '_' and '.'")]
Key = Annotated[str, Meta(pattern=KEY_PATTERN, description="letters, digits, '-', '_' and '.'")]

_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@lru_cache(maxsize=TEXTS_KEPT)
def seconds(duration: str) -> float:
    """`1h30m` → 5400.0. Raises ValueError on anything but a Duration."""
    if not re.match(DURATION_PATTERN, duration):
        raise ValueError(f'"{duration}" is not a duration; write 30s, 5m, 2h or 1d')
    return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in _DURATION_PART.findall(duration))


@lru_cache(maxsize=TEXTS_KEPT)
def exposure(text: str) -> int:
    """`0.5%` → 500 thousandths of a percent. Raises ValueError outside 0…100 %."""
    if not re.match(EXPOSURE_PATTERN, text):
        raise ValueError(f'"{text}" is not an exposure; write 1%, 0.5% or 100%')
    whole, _, fraction = text.rstrip("% ").partition(".")
    thousandths = int(whole) * 1000 + int(fraction.ljust(3, "0") or 0)
    if thousandths > FULL_EXPOSURE:
        raise ValueError(f'"{text}" is more than 100%')
    return thousandths


def exposure_text(thousandths: int) -> str:
    """500 → `0.5 %`."""
    whole, fraction = divmod(thousandths, 1000)
    return f"{whole}.{fraction:03d}".rstrip("0").rstrip(".") + " %"


def duration_text(total_seconds: float) -> str:
    """5400 → `1h 30m`; below a minute `42s`, below a second `250ms`."""
    if total_seconds < 1:
        return f"{round(total_seconds * 1000)}ms"
    rest = round(total_seconds)
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2])
