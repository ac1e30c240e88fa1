"""What Prometheus is shown of the kills in force: on every replica, and for as long as they are in force.

A counter would forget a kill with a restart, and cannot say that nobody has reset it yet.
"""

from collections.abc import Callable, Collection
from datetime import datetime

from msgspec import Struct

from controller.domain.plan import FlagRef
from controller.telemetry.exposition import Family

MAX_KILLED_FLAGS = 5_000

FLAG = ("rollout", "provider", "environment", "flag")
ACCEPTED = Family(
    "kill_accepted_timestamp_seconds", "gauge", "When the oldest kill in force of the flag was accepted.",
    (*FLAG, "cause"),
)  # fmt: skip
CONFIRMED = Family("kill_confirmed", "gauge", "1 when the killed flag was read back as off, else 0.", FLAG)


class KilledFlag(Struct, frozen=True, kw_only=True):
    """`rollout` is empty when it cannot be told; `cause` is of a closed set, and of the oldest kill in force."""

    flag: FlagRef
    rollout: str
    cause: str
    accepted_at: datetime
    confirmed: bool


class KilledFlags:
    """As text, made anew only when something changed. The oldest kills are shown when there are too many."""

    def __init__(self, killed: Callable[[], Collection[KilledFlag]]) -> None:
        """`killed` gives each flag once."""
        self._killed = killed
        self._shown: tuple[KilledFlag, ...] = ()
        self._text = ACCEPTED.head + CONFIRMED.head

    def render(self) -> str:
        shown = tuple(sorted(self._killed(), key=lambda one: (one.accepted_at, one.flag))[:MAX_KILLED_FLAGS])
        if shown != self._shown:
            self._write(shown)
        return self._text

    def _write(self, shown: tuple[KilledFlag, ...]) -> None:
        self._shown = shown
        accepted = [ACCEPTED.line((*_labels(one), one.cause), one.accepted_at.timestamp()) for one in shown]
        confirmed = [CONFIRMED.line(_labels(one), one.confirmed) for one in shown]
        self._text = "".join([ACCEPTED.head, *accepted, CONFIRMED.head, *confirmed])


def _labels(one: KilledFlag) -> tuple[str, str, str, str]:
    return (one.rollout, one.flag.provider, one.flag.environment, one.flag.key)
