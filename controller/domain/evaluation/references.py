"""Attribute references: `email`, or `/address/city` into an object."""

import re
from collections.abc import Mapping
from typing import Any

from controller.domain.evaluation.contexts import Attributes

Reference = tuple[str, ...]
"""The names to follow, outermost first."""

_WRONG_ESCAPE = re.compile("~(?![01])")


def read_reference(text: str, *, literal: bool) -> Reference | None:
    """None when it refers to nothing. `literal`: flags from before there were kinds name attributes plainly.

    In a path "~1" stands for "/" and "~0" for "~".
    """
    if not text or (text == "/" and not literal):
        return None
    if literal or not text.startswith("/"):
        return (text,)
    names = text[1:].split("/")
    if not all(names) or _WRONG_ESCAPE.search(text):
        return None
    return tuple(name.replace("~1", "/").replace("~0", "~") for name in names)


def look_up(reference: Reference, attributes: Attributes) -> Any:
    """The value, or None when there is none: nothing is ever looked up in a list or in a text."""
    value: Any = attributes
    for name in reference:
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value
