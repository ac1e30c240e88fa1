"""Every error Rampart raises on purpose.

RampartError
├── Refused                 the request is understood and not allowed now (gate, authority, provider limits)
│   ├── Forbidden           the token lacks the scope
│   └── Undeliverable       a receiver will never take this message
├── Unauthenticated         no token, or one we do not know
├── NotFound                no such plan, run, flag, token
├── Invalid                 the input is wrong; carries the fields
├── Conflict                somebody else changed it first
│   ├── StaleLease          this replica no longer holds the run
│   ├── KillInForce         a kill covers the flag
│   └── RaisesBlocked       nothing may rise: a replica is absent, or history was lost
│       └── FreezeBegan     a freeze holds that was not known when it was decided
├── Unavailable             a dependency did not answer
│   ├── StoreUnavailable
│   ├── SourceUnavailable
│   ├── ProviderUnavailable
│   └── NotAsked            it failed so often, or is so busy, that we did not even ask
└── SettingsError           rampart.toml or RAMPART_* is wrong
"""

from collections.abc import Sequence


class RampartError(Exception):
    """Something Rampart can explain. `str(error)` is one sentence a user can act on."""


class Refused(RampartError):
    def __init__(self, message: str, *, blocks: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.blocks = tuple(blocks)


class Forbidden(Refused):
    pass


class Undeliverable(Refused):
    """Trying again is of no use: the message goes to the dead letters, and what waits behind it goes on."""


class Unauthenticated(RampartError):
    pass


class NotFound(RampartError):
    pass


class Invalid(RampartError):
    """`problems` are (path, message) pairs, the path in the caller's own spelling."""

    def __init__(self, message: str, *, problems: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


class Conflict(RampartError):
    pass


class StaleLease(Conflict):
    pass


class KillInForce(Conflict):
    pass


class RaisesBlocked(Conflict):
    pass


class FreezeBegan(RaisesBlocked):
    pass


class Unavailable(RampartError):
    """`again_in`: seconds after which asking may make sense, where the other side said so."""

    def __init__(self, message: str = "", *, again_in: float | None = None) -> None:
        super().__init__(message)
        self.again_in = again_in


class StoreUnavailable(Unavailable):
    pass


class SourceUnavailable(Unavailable):
    pass


class ProviderUnavailable(Unavailable):
    """The provider did not answer as agreed. Whether a write arrived is unknown unless `not_applied`."""

    def __init__(self, message: str, *, not_applied: bool = False) -> None:
        super().__init__(message)
        self.not_applied = not_applied


class NotAsked(Unavailable):
    """Nothing was sent."""

    again_in: float

    def __init__(self, message: str, *, again_in: float) -> None:
        super().__init__(message, again_in=again_in)


class SettingsError(RampartError):
    pass
