"""Which share of everybody a context belongs to: a number in [0, 1] from a hash, the same in every SDK."""

import hashlib
from typing import Any

FULL_WEIGHT = 100_000
_SCALE = float(0xFFF_FFFF_FFFF_FFFF)
"""The hash counts with its first 60 bits."""


def bucket(key: str, salt: str, value: Any, seed: int | None = None) -> float:
    """The bucket of one attribute's value under a flag or segment; with a seed neither key nor salt matters.

    0 for what is neither a text nor a whole number.
    """
    return hashed(prefix_of(key, salt, seed), value)


def prefix_of(key: str, salt: str, seed: int | None) -> bytes:
    text = f"{key}.{salt}." if seed is None else f"{seed}."
    return _encoded(text)


def hashed(prefix: bytes, value: Any) -> float:
    text = _text_of(value)
    if text is None:
        return 0.0
    digest = hashlib.sha1(prefix + _encoded(text), usedforsecurity=False).digest()
    return (int.from_bytes(digest[:8]) >> 4) / _SCALE


def _text_of(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return str(value)
    # JSON does not tell 5 from 5.0.
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return None


def _encoded(text: str) -> bytes:
    # JSON can hold half of a surrogate pair, which has no UTF-8 of its own.
    return text.encode("utf-8", "surrogatepass")
