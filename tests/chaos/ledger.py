"""What people were told, which is what must be true: kills that were answered, and not yet asked to be reset."""

import threading
import time
from collections import Counter

from msgspec import Struct
from msgspec.structs import replace


class Promise(Struct, frozen=True, kw_only=True):
    """An answered kill. `through` is the number of the replica that answered; times are monotonic seconds.

    `confirmed`: the answer said that it was read back as off everywhere.
    """

    kill_id: str
    flag: str
    through: int
    answered_at: float
    durable: bool
    confirmed: bool
    reset_asked_at: float | None = None


class Ledger:
    """For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._promises: dict[str, Promise] = {}
        self.answers: Counter[str] = Counter()
        self.broken: list[str] = []

    def count(self, verb: str, status: int | None) -> None:
        with self._lock:
            self.answers[f"{verb} {status if status is not None else 'unanswered'}"] += 1

    def killed(self, promise: Promise) -> None:
        with self._lock:
            self._promises.setdefault(promise.kill_id, promise)

    def asks_reset(self, kill_ids: list[str]) -> None:
        """From here on nothing is claimed of them: whether the reset arrived is not known before its answer."""
        with self._lock:
            for kill_id in kill_ids:
                if kill_id in self._promises:
                    self._promises[kill_id] = replace(self._promises[kill_id], reset_asked_at=time.monotonic())

    def in_force(self) -> list[Promise]:
        with self._lock:
            return [one for one in self._promises.values() if one.reset_asked_at is None]

    def still_in_force(self, promise: Promise) -> bool:
        with self._lock:
            return self._promises[promise.kill_id].reset_asked_at is None

    def total(self) -> int:
        with self._lock:
            return len(self._promises)

    def breaks(self, what: str) -> None:
        """A promise that was seen broken."""
        with self._lock:
            if what not in self.broken:
                self.broken.append(what)
