"""How many requests LaunchDarkly's REST API still takes: from the headers of its answers, kept for kills.

Limits hold for windows of a few seconds, for the account and for each route; their size is told to nobody. What
is left of the window is told with each answer, and so is the moment it ends, on LaunchDarkly's clock.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Literal

Purpose = Literal["read", "raise", "lower", "kill"]

THROTTLED = 429
LONGEST_WAIT_SECONDS = 60.0
ENDED_SECONDS = 1.0
"""Waited when the window that is told ended before it was told: one of the clocks is wrong."""
KILL_EVERY_SECONDS = 1.0
"""While nothing is taken, one kill in so many seconds finds out whether it is again."""

GLOBAL = "X-Ratelimit-Global-Remaining"
ROUTE = "X-Ratelimit-Route-Remaining"
RESET = "X-Ratelimit-Reset"


class Budget:
    """`clock` gives monotonic seconds, `now` Unix time in seconds, `chance` a number from 0 to 1.

    While less than `reserve` requests are left of a window, only kills are let through. `window_seconds` is taken
    for the window when an answer does not say when it ends.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        now: Callable[[], float],
        chance: Callable[[], float],
        reserve: int,
        window_seconds: float,
    ) -> None:
        self._clock = clock
        self._now = now
        self._chance = chance
        self._reserve = reserve
        self._window_seconds = window_seconds
        self._refused_until = 0.0
        self._next_kill = 0.0
        self._left: dict[str, tuple[int, float]] = {}
        self._under_way = 0

    def wait(self, purpose: Purpose, route: str) -> float:
        """Seconds until a request makes sense; 0 when it may be sent now."""
        if purpose == "kill":
            return self._wait_of_kill()
        until = max(self._refused_until, self._spent_until("global"), self._spent_until(route))
        return max(0.0, until - self._clock())

    def _wait_of_kill(self) -> float:
        now = self._clock()
        if now >= self._refused_until:
            return 0.0
        if now < self._next_kill:
            return self._next_kill - now
        self._next_kill = now + KILL_EVERY_SECONDS
        return 0.0

    def _spent_until(self, name: str) -> float:
        left, until = self._left.get(name, (self._reserve, 0.0))
        return until if left - self._under_way < self._reserve else 0.0

    @contextmanager
    def sent(self) -> Iterator[None]:
        """A request without an answer yet: what was told to be left does not count it."""
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1

    def heard(self, route: str, status: int, headers: Mapping[str, str]) -> None:
        """An answer came, whatever it says. Nothing of the headers is believed beyond a minute."""
        ends = self._window_ends(headers)
        for name, header in (("global", GLOBAL), (route, ROUTE)):
            if (left := _number(headers, header)) is not None:
                self._left[name] = (int(left), self._clock() + (ends or self._window_seconds))
        if status == THROTTLED:
            # Whoever was refused together should not come back together.
            pause = (ends or self._window_seconds) + self._chance()
            self._refused_until = self._clock() + pause
            self._next_kill = self._clock() + min(pause, KILL_EVERY_SECONDS)
        else:
            self._refused_until = 0.0

    def _window_ends(self, headers: Mapping[str, str]) -> float | None:
        """In so many seconds, by LaunchDarkly's own clock where it tells it."""
        if (retry := _number(headers, "Retry-After")) is not None:
            return min(max(retry, ENDED_SECONDS), LONGEST_WAIT_SECONDS)
        if (reset := _number(headers, RESET)) is None:
            return None
        left = reset / 1000 - self._their_time(headers)
        return min(left, LONGEST_WAIT_SECONDS) if left > 0 else ENDED_SECONDS

    def _their_time(self, headers: Mapping[str, str]) -> float:
        try:
            told = parsedate_to_datetime(headers["Date"]).timestamp()
        except (KeyError, ValueError):
            return self._now()
        # The header tells whole seconds: within one of ours, ours is the better one.
        ours = self._now()
        return ours if abs(ours - told) <= 1 else told


def _number(headers: Mapping[str, str], name: str) -> float | None:
    try:
        return float(headers[name])
    except (KeyError, ValueError):
        return None
