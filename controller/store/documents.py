"""Reading many documents at once, so that one that cannot be read hides none of the others.

It happens: a newer version wrote it, a disk or a person damaged it. What was last read in its place goes on being
used where that is better than nothing, as for a token or a flag; never for a run, whose state must be true.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
import structlog

from controller.domain.catalogue import Unreadable, UnreadableKind
from controller.domain.plan import FlagRef

T = TypeVar("T")
Row = Any
Pin = tuple[str, str, int]
"""Kind, name and revision of a manifest."""

_log = structlog.get_logger()

SHOWN_CHARACTERS = 300
MOST_PINS = 20_000


class Documents:
    """Of each kind: the last good ones by name, and those that cannot be read, as of the latest reading of all."""

    def __init__(self) -> None:
        self._good: dict[UnreadableKind, Mapping[str, Any]] = {}
        self._unreadable: dict[UnreadableKind, dict[str, Unreadable]] = {}
        self._pins: dict[Pin, Any] = {}

    def recall(self, kind: UnreadableKind, good: Mapping[str, Any]) -> None:
        """What an earlier process read, before anything was read here."""
        self._good.setdefault(kind, good)

    def unreadable(self) -> Sequence[Unreadable]:
        return [one for kind in self._unreadable.values() for one in kind.values()]

    def read(self, kind: UnreadableKind, rows: Iterable[Row], decode: Callable[[Row], T]) -> list[T]:
        """All of a kind, in the order of the rows. Each has a `name`, and a run's its flag and `active`."""
        last_good, good, unreadable = self._good.get(kind, {}), {}, {}
        for row in rows:
            name = row["name"]
            try:
                good[name] = decode(row)
            except msgspec.DecodeError as error:
                if kind != "run" and name in last_good:
                    good[name] = last_good[name]
                unreadable[name] = Unreadable(
                    kind=kind, name=name, why=str(error)[:SHOWN_CHARACTERS], flag=_flag(kind, row)
                )
        self._tell(kind, unreadable, good)
        self._good[kind], self._unreadable[kind] = good if kind != "run" else {}, unreadable
        return list(good.values())

    def pinned(self, pin: Pin, text: str, decode: Callable[[str], T]) -> T | None:
        """One revision that a run follows. They never change, so that the last good one is as true as ever."""
        try:
            document = decode(text)
        except msgspec.DecodeError as error:
            last_good: T | None = self._pins.get(pin)
            name = f"{pin[0]} {pin[1]} revision {pin[2]}"
            one = Unreadable(kind="revision", name=name, why=str(error)[:SHOWN_CHARACTERS])
            of_kind = self._unreadable.setdefault("revision", {})
            if of_kind.get(name) != one:
                of_kind[name] = one
                used = last_good is not None
                _log.error("unreadable", kind="revision", name=name, error=one.why, last_good_is_used=used)
            return last_good
        if len(self._pins) >= MOST_PINS:
            self._pins.clear()
        self._pins[pin] = document
        return document

    def _tell(
        self, kind: UnreadableKind, unreadable: Mapping[str, Unreadable], good: Mapping[str, object]
    ) -> None:
        """Only what changed: the same row comes back with every reading."""
        before = self._unreadable.get(kind, {})
        for name, one in unreadable.items():
            if before.get(name) != one:
                _log.error("unreadable", kind=kind, name=name, error=one.why, last_good_is_used=name in good)
        for name in before.keys() - unreadable.keys():
            _log.info("readable_again", kind=kind, name=name)


def _flag(kind: UnreadableKind, row: Row) -> FlagRef | None:
    if kind != "run" or not row["active"]:
        return None
    return FlagRef(provider=row["provider"], environment=row["environment"], key=row["key"])
