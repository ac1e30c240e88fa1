"""A guard before one dependency: so many requests at once, and pauses while nobody gets an answer.

    closed ──failures in a row, nobody answered──▶ open ──the wait is over──▶ one probe ──answered──▶ closed
                                                    ▲                           │
                                                    └──────── failed ───────────┘

A pause never hits whoever was answered last time or asks for the first time: one whose questions are at fault
cannot take the dependency away from the others. It is never in the way of a kill, which does not ask here.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Hashable
from contextlib import asynccontextmanager

import structlog
from msgspec import Struct

from controller.errors import NotAsked

log = structlog.get_logger()

SHOWN_CHARACTERS = 200
REMEMBERED_TURNS = 2.5
"""Whoever has not asked for so many of its intervals is gone: that it was answered proves nothing any more."""
TIDY_SECONDS = 60.0


class Limits(Struct, frozen=True, kw_only=True):
    """The wait doubles from `first_wait_seconds` with every failed probe and is drawn anew below that each time.

    `at_once` requests may be under way and `in_line` wait for their turn.
    """

    opens_after: int = 5
    first_wait_seconds: float = 1.0
    longest_wait_seconds: float = 15.0
    at_once: int = 32
    in_line: int = 2000


class Pause(Struct, kw_only=True):
    """The circuit is open. `probe` is the one request that is under way to find out."""

    began: float
    ends: float
    probe: "Ask | None" = None


class Ask:
    """One request under way. Whoever makes it says what came of it; one that was given up says nothing."""

    def __init__(self, breaker: "Breaker", askers: Collection[Hashable], every: float) -> None:
        self._breaker = breaker
        self.askers = askers
        self.every = every

    def heard(self, answered: Collection[Hashable], why: str = "") -> None:
        """Who of the askers got an answer, if only a refusal; and, when nobody did, why."""
        self._breaker.take_in(self, answered, why)


class Breaker:
    """`clock` gives monotonic seconds, `chance` a number from 0 to 1. `opened` is told of every change."""

    def __init__(
        self,
        name: str,
        *,
        clock: Callable[[], float],
        chance: Callable[[], float],
        opened: Callable[[bool], None],
        limits: Limits | None = None,
    ) -> None:
        self._name = name
        self._clock = clock
        self._chance = chance
        self._opened = opened
        self._limits = limits or Limits()
        self._pause: Pause | None = None
        self._failures = 0
        self._failed_probes = 0
        self._why = ""
        self._under_way: set[Ask] = set()
        self._line: deque[tuple[asyncio.Future[None], Ask]] = deque()
        self._answered_until: dict[Hashable, float] = {}
        self._silent: set[Hashable] = set()
        self._tidied = clock()
        opened(False)

    @property
    def open(self) -> bool:
        return self._pause is not None

    @asynccontextmanager
    async def asking(
        self, askers: Collection[Hashable], *, within: float, every: float, insist: bool = False
    ) -> AsyncIterator[Ask]:
        """Wait at most `within` seconds for a turn. Raises NotAsked, and nothing was sent.

        `every` is how often these askers ask: no pause is longer than that for them. `insist` asks in any case:
        for what lowers, and for a person who waits for the answer.
        """
        ask = Ask(self, askers, every)
        if not insist:
            await self._turn(ask, within)
        try:
            yield ask
        finally:
            self._end(ask)

    async def _turn(self, ask: Ask, within: float) -> None:
        if self._pause is not None and self._known_silent(ask):
            left = min(self._pause.ends, self._pause.began + ask.every) - self._clock()
            if left > 0:
                raise self._refusal(left)
        if not self._line and self._has_room():
            self._begin(ask)
            return
        if len(self._line) >= self._limits.in_line:
            raise NotAsked(f"not asked: {len(self._line)} requests to it are waiting already", again_in=ask.every)
        await self._stand_in_line(ask, within)

    async def _stand_in_line(self, ask: Ask, within: float) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        place = (turn, ask)
        self._line.append(place)
        try:
            async with asyncio.timeout(within):
                await turn
        except BaseException as error:
            if place in self._line:
                self._line.remove(place)
            self._end(ask)  # its turn may have come just when nobody was there any more
            if isinstance(error, TimeoutError):
                waited = f"not asked: others were still asking after {within:g} s"
                raise NotAsked(waited, again_in=ask.every) from error
            raise

    def _known_silent(self, ask: Ask) -> bool:
        return self._silent.issuperset(ask.askers)

    def _refusal(self, left: float) -> NotAsked:
        when = "now" if left < 1 else f"in {left:.0f} s"
        return NotAsked(
            f"not asked: {self._failures} failures in a row, next try {when}; last: {self._why}", again_in=left
        )

    def _has_room(self) -> bool:
        if self._pause is not None:
            return self._pause.probe is None
        return len(self._under_way) < self._limits.at_once

    def _begin(self, ask: Ask) -> None:
        self._under_way.add(ask)
        if self._pause is not None:
            self._pause.probe = ask

    def _end(self, ask: Ask) -> None:
        self._under_way.discard(ask)
        if self._pause is not None and self._pause.probe is ask:
            self._pause.probe = None  # given up without a word: the next one finds out
        self._call_up()

    def _call_up(self) -> None:
        while self._line and self._has_room():
            turn, ask = self._line.popleft()
            if not turn.done():
                self._begin(ask)
                turn.set_result(None)

    # — what came of it —

    def take_in(self, ask: Ask, answered: Collection[Hashable], why: str) -> None:
        now = self._clock()
        self._note(ask, frozenset(answered), now)
        if answered:
            self._close()
            return
        self._failures += 1
        self._why = " ".join((why or "no answer").split())[:SHOWN_CHARACTERS]
        if self._pause is None:
            if self._failures >= self._limits.opens_after and not self._anybody_answered(now):
                log.warning("circuit_opened", dependency=self._name, failures=self._failures, last=self._why)
                self._opened(True)
                self._wait(now)
        elif self._pause.probe is ask:
            self._failed_probes += 1
            self._wait(now)

    def _note(self, ask: Ask, answered: frozenset[Hashable], now: float) -> None:
        silent = frozenset(ask.askers) - answered
        self._silent |= silent
        for asker in silent:
            self._answered_until.pop(asker, None)
        self._answered_until.update(dict.fromkeys(answered, now + REMEMBERED_TURNS * ask.every))
        if now - self._tidied > TIDY_SECONDS:
            self._anybody_answered(now)

    def _anybody_answered(self, now: float) -> bool:
        """The last time they asked, of those who still do."""
        self._answered_until = {asker: until for asker, until in self._answered_until.items() if until > now}
        self._tidied = now
        return bool(self._answered_until)

    def _wait(self, now: float) -> None:
        """Pause, and send home who waited for what has just failed. Who never failed itself stays in line."""
        limits = self._limits
        at_most = min(limits.longest_wait_seconds, limits.first_wait_seconds * 2.0 ** min(self._failed_probes, 30))
        self._pause = Pause(began=now, ends=now + at_most * self._chance())
        refusal = self._refusal(self._pause.ends - now)
        line, self._line = self._line, deque()
        for turn, ask in line:
            if not self._known_silent(ask):
                self._line.append((turn, ask))
            elif not turn.done():
                turn.set_exception(refusal)

    def _close(self) -> None:
        self._failures = self._failed_probes = 0
        self._silent.clear()
        if self._pause is not None:
            self._pause = None
            log.info("circuit_closed", dependency=self._name)
            self._opened(False)
            self._call_up()
