"""How a command ends: the exit codes, and the one exception that carries an explained failure to the top."""

from collections.abc import Sequence
from enum import IntEnum


class Exit(IntEnum):
    OK = 0
    FINDING = 1
    USAGE = 2
    UNREACHABLE = 3
    REFUSED = 4
    CONFLICT = 5
    PAUSED = 10
    KILLED = 11
    INTERRUPTED = 130


MEANINGS: dict[Exit, str] = {
    Exit.OK: "done; nothing to report",
    Exit.FINDING: "a finding: a lint error, a difference, a failed check, a broken audit chain, an answer of no",
    Exit.USAGE: "wrong usage: an unknown option or name, a value the server cannot read, wrong settings",
    Exit.UNREACHABLE: "unreachable: the server, or something it needs, did not answer in time",
    Exit.REFUSED: "refused: a gate is closed, or the token may not do this",
    Exit.CONFLICT: "conflict: a kill is in force, somebody was first, or the run is in another phase",
    Exit.PAUSED: "the rollout that was waited for is paused",
    Exit.KILLED: "the rollout that was waited for was killed",
    Exit.INTERRUPTED: "interrupted by Ctrl-C",
}


class Failure(Exception):
    """`points` are shown as bullets under the message, `hint` says what to try."""

    def __init__(self, message: str, code: Exit, *, points: Sequence[str] = (), hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.points = tuple(points)
        self.hint = hint
