"""Numbered places where a crash test ends this process, or its database, with SIGKILL.

Inert unless RAMPART_FAULT names a point, its how-manieth passing, and the victim's pid file or `self`:
`commit.after:2:self`, `apply.before:1:/path/to/postmaster.pid`.
"""

import os
import signal
from pathlib import Path

POINTS = (
    "journal.before",
    "journal.after",
    "commit.before",
    "commit.after",
    "apply.before",
    "apply.after",
    "observe.before",
    "observe.after",
)

_passed: dict[str, int] = {}


def reach(point: str) -> None:
    order = os.environ.get("RAMPART_FAULT")
    if order is None:
        return
    name, number, victim = order.split(":", 2)
    if name != point:
        return
    _passed[point] = _passed.get(point, 0) + 1
    if _passed[point] == int(number):
        pid = os.getpid() if victim == "self" else int(Path(victim).read_text().split("\n", 1)[0])
        os.kill(pid, signal.SIGKILL)
