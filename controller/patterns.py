"""Regular expressions of clauses, found in linear time: no pattern and no text can hold up the loop."""

from collections.abc import Callable

import re2

MAX_MEMORY = 1 << 20
"""Bytes for one pattern; one that needs more is taken for no pattern."""


def read_pattern(pattern: str) -> Callable[[str], bool] | None:
    """The syntax is RE2's, as in LaunchDarkly's Go SDK and servers: nothing looks around or refers back."""
    options = re2.Options()
    options.log_errors = False
    options.max_mem = MAX_MEMORY
    try:
        found = re2.compile(pattern, options)
    except (re2.error, UnicodeError):
        return None
    return lambda text: _found(found, text)


def _found(pattern: "re2._Regexp", text: str) -> bool:
    try:
        return pattern.search(text) is not None
    except UnicodeError:  # half of a surrogate pair, which no UTF-8 stands for
        return False
