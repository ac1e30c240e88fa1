"""One rule of `rampart lint`, as people read about it."""

from typing import Literal

from msgspec import Struct

Severity = Literal["error", "warning", "note"]
"""`apply` refuses errors and shows warnings; notes are for the author's desk alone."""

Topic = Literal["file", "policy", "plan", "flag", "test"]


class Rule(Struct, frozen=True, kw_only=True):
    """`code` is stable and never reused. `severity` is the usual one.

    `bad` and `good` are the keys of `spec` (or of the document) that matter, the rest being sound. A comment in
    the first line is the file's name. `fix` says what --fix writes, and is empty where only a person can tell.
    `server`: only a server knows enough to check it.
    """

    code: str
    name: str
    topic: Topic
    what: str
    why: str
    bad: str
    good: str
    severity: Severity = "error"
    fix: str = ""
    server: bool = False
