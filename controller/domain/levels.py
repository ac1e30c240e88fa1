"""What a metric does in a test, written in one line, and the same line as a function of time.

    levels = spans | steps
    spans  = span { "then" span }
    span   = level [ "for" duration ] | level "to" level "over" duration | "none" [ "for" duration ]
    steps  = step { step }
    step   = level [ "x" count ] | level ("+"|"-") number "x" count | "_" [ "x" count ] | "stale"
    level  = number [ unit ]

Steps are Prometheus' own notation for the series of a rule test, one value per interval: `a+bxn` is n + 1 values,
a, a+b, … a+b·n; `axn` is n + 1 times a; `_xn` is n values that are missing. The first value holds before the start
too, the last one to the end.
"""

import math
import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import Literal

from msgspec import Struct

from controller.domain.quantities import seconds
from controller.errors import Invalid

Kind = Literal["ratio", "seconds", "rate", "number"]
MAX_LENGTH = 2000
MOST_VALUES = 100_000

# Base units: a share of 1, seconds, requests per second.
UNITS: dict[Kind, dict[str, float]] = {
    "ratio": {"%": 0.01},
    "seconds": {"ms": 0.001, "s": 1.0},
    "rate": {"/s": 1.0, "/m": 1 / 60, "/h": 1 / 3600},
    "number": {"": 1.0},
}
WORDS: dict[Kind, str] = {
    "ratio": "a share",
    "seconds": "a duration",
    "rate": "a rate of requests",
    "number": "a bare number",
}
EXAMPLES: dict[Kind, str] = {"ratio": "0.2%", "seconds": "180ms", "rate": "50/s", "number": "200"}

_NUMBER = r"-?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
_UNIT = r"%|ms|s|/s|/m|/h|"
_LEVEL = re.compile(rf"(?P<number>{_NUMBER})(?P<unit>{_UNIT})\Z")
_STEP = re.compile(
    rf"(?:(?P<number>{_NUMBER})(?P<unit>{_UNIT})(?:(?P<sign>[+-])(?P<change>{_NUMBER})(?P<unit_of_change>{_UNIT}))?"
    r"|(?P<missing>_))(?:x(?P<count>\d{1,9}))?\Z"
)
_SPAN_WORDS = frozenset({"for", "to", "over", "then", "none"})
HELP_SPANS = "write 0.2% for 20m then 12%, or 0.2% to 5% over 30m"
HELP_STEPS = "write Prometheus' notation: 0+10x40 _x4 3x5 stale"


class NotationError(Invalid):
    """Where the text stops making sense (0-based `offset`, `length` in characters), and what to write."""

    def __init__(self, message: str, offset: int, length: int, help: str = "") -> None:  # noqa: A002
        super().__init__(message)
        self.offset = offset
        self.length = length
        self.help = help


class Piece(Struct, frozen=True, kw_only=True):
    """From `begin` (seconds) on: from `first` in a straight line to `last` at `end`. None is silence."""

    begin: float
    end: float
    first: float | None
    last: float | None

    def at(self, moment: float) -> float | None:
        if self.first is None or self.last is None or self.first == self.last:
            return self.first
        return self.first + (self.last - self.first) * (moment - self.begin) / (self.end - self.begin)


class Levels(Struct, frozen=True):
    """`pieces` without gaps, the first from 0; before it its first value holds, after the last one its last."""

    pieces: tuple[Piece, ...]

    def at(self, moment: float) -> float | None:
        if moment <= 0:
            return self.pieces[0].first
        piece = self._piece(moment)
        return piece.at(moment) if moment < piece.end else piece.last

    def unchanged_since(self, moment: float) -> float:
        """How long the level of `moment` has been the same: the time it began, or `moment` while it moves."""
        if moment <= 0:
            return -math.inf
        index = self._index(moment)
        piece = self.pieces[index]
        if piece.first != piece.last:
            return piece.end if moment >= piece.end else moment
        return piece.begin if index else -math.inf

    def unchanged_until(self, moment: float) -> float:
        """The begin of the next piece; `moment` itself on a slope."""
        index = self._index(moment)
        if self.pieces[index].first != self.pieces[index].last and moment < self.pieces[index].end:
            return moment
        return self.pieces[index + 1].begin if index + 1 < len(self.pieces) else math.inf

    @property
    def values(self) -> frozenset[float]:
        """All the levels it rests at, and the ends of slopes."""
        ends = [level for piece in self.pieces for level in (piece.first, piece.last)]
        return frozenset(level for level in ends if level is not None)

    @property
    def last_change(self) -> float:
        last = self.pieces[-1]
        return last.begin if last.first == last.last else last.end

    def _index(self, moment: float) -> int:
        return max(bisect_right(self.pieces, moment, key=lambda piece: piece.begin) - 1, 0)

    def _piece(self, moment: float) -> Piece:
        return self.pieces[self._index(moment)]


def constant(level: float | None) -> Levels:
    return Levels((Piece(begin=0.0, end=math.inf, first=level, last=level),))


def parse_levels(text: str, kind: Kind, *, interval: float) -> Levels:
    """`interval` in seconds is how long one step lasts. Raises NotationError."""
    words = _words(text)
    if any(word in _SPAN_WORDS for word, _ in words):
        return Levels(tuple(_Spans(words, kind).pieces()))
    return Levels(tuple(_merged(_stepped(words, kind), interval)))


def parse_samples(text: str) -> tuple[float | None, ...]:
    """The values of a raw series, None for those that are missing or stale. Raises NotationError."""
    return tuple(_stepped(_words(text), "number"))


def _words(text: str) -> list[tuple[str, int]]:
    if len(text) > MAX_LENGTH:
        raise NotationError(f"the text is longer than {MAX_LENGTH} characters", 0, len(text), "use a+bxn")
    words = [(found.group(), found.start()) for found in re.finditer(r"\S+", text)]
    if not words:
        raise NotationError("there is no value", 0, 1, HELP_SPANS)
    return words


def _merged(levels: list[float | None], interval: float) -> Iterator[Piece]:
    begin = 0
    for index in range(1, len(levels) + 1):
        if index < len(levels) and levels[index] == levels[begin]:
            continue
        end = math.inf if index == len(levels) else index * interval
        yield Piece(begin=begin * interval, end=end, first=levels[begin], last=levels[begin])
        begin = index


# — steps —


def _stepped(words: list[tuple[str, int]], kind: Kind) -> list[float | None]:
    values: list[float | None] = []
    for word, offset in words:
        values += _step(word, offset, kind, room=MOST_VALUES - len(values))
    return values


def _step(word: str, offset: int, kind: Kind, *, room: int) -> list[float | None]:
    if word == "stale":
        return [None]
    if "{" in word:
        raise NotationError("native histograms are not supported", offset, len(word), "write its _bucket series")
    found = _STEP.match(word)
    if found is None:
        raise NotationError(f'"{word[:40]}" is no value', offset, len(word), HELP_STEPS)
    count = int(found["count"] or 0)
    if count >= room:
        raise NotationError(f"more than {MOST_VALUES} values", offset, len(word), "use a longer interval")
    if found["missing"]:
        return [None] * max(count, 1)
    first = _number(found["number"], found["unit"], kind, offset, len(word))
    if found["change"] is None:
        return [first] * (count + 1)
    unit = found["unit_of_change"] or found["unit"]
    change = _number(found["change"], unit, kind, offset, len(word), bounded=False)
    change = -change if found["sign"] == "-" else change
    _require_bounded(first + change * count, kind, word, offset)
    return [first + change * number for number in range(count + 1)]


def _number(text: str, unit: str, kind: Kind, offset: int, length: int, *, bounded: bool = True) -> float:
    units = UNITS[kind]
    if unit not in units:
        wanted = f"{text}{next(iter(units))}" if not unit else EXAMPLES[kind]
        raise NotationError(f'"{text}{unit}" is not {WORDS[kind]}', offset, length, f"write {wanted}")
    value = float(text) * units[unit]
    if not math.isfinite(value):
        raise NotationError(f'"{text}" is not a finite number', offset, length)
    if bounded:
        _require_bounded(value, kind, f"{text}{unit}", offset)
    return value


def _require_bounded(value: float, kind: Kind, text: str, offset: int) -> None:
    if kind != "number" and value < 0:
        raise NotationError(f'"{text}" is less than nothing', offset, len(text))
    if kind == "ratio" and value > 1:
        raise NotationError(f'"{text}" is more than all', offset, len(text), "a share is at most 100%")


# — spans —


class _Spans:
    """A cursor over words."""

    def __init__(self, words: list[tuple[str, int]], kind: Kind) -> None:
        self._words = words
        self._kind = kind
        self._next = 0

    def pieces(self) -> Iterator[Piece]:
        begin = 0.0
        while True:
            first = last = self._level()
            lasts = math.inf
            if first is not None and self._take("to"):
                if self._peek() == "none":
                    raise self._wrong("a value to rise or fall to")
                last, lasts = self._level(), self._duration("over")
            elif self._peek() == "for":
                lasts = self._duration("for")
            ends = self._next == len(self._words)
            yield Piece(begin=begin, end=begin + lasts, first=first, last=last)
            if ends:
                return
            if self._peek() != "then" or lasts == math.inf:
                raise self._wrong('"then"' if lasts < math.inf else '"for" or the end')
            self._next += 1
            begin += lasts

    def _level(self) -> float | None:
        word, offset = self._word("a value")
        self._next += 1
        if word == "none":
            return None
        found = _LEVEL.match(word)
        if found is None:
            raise NotationError(
                f'"{word[:40]}" is no value', offset, len(word), f"write {EXAMPLES[self._kind]} or none"
            )
        return _number(found["number"], found["unit"], self._kind, offset, len(word))

    def _duration(self, keyword: str) -> float:
        if not self._take(keyword):
            raise self._wrong(f'"{keyword}" and a duration')
        word, offset = self._word("a duration")
        self._next += 1
        try:
            lasts = seconds(word)
        except ValueError as error:
            raise NotationError(str(error), offset, len(word)) from None
        if lasts <= 0:
            raise NotationError(f'"{word}" is no time at all', offset, len(word), "write 30s, 5m or 2h")
        return lasts

    def _peek(self) -> str:
        return self._words[self._next][0] if self._next < len(self._words) else ""

    def _take(self, word: str) -> bool:
        if self._peek() != word:
            return False
        self._next += 1
        return True

    def _word(self, wanted: str) -> tuple[str, int]:
        if self._next >= len(self._words):
            raise self._wrong(wanted)
        return self._words[self._next]

    def _wrong(self, wanted: str) -> NotationError:
        if self._next < len(self._words):
            word, offset = self._words[self._next]
            return NotationError(f'expected {wanted}, not "{word[:40]}"', offset, len(word), HELP_SPANS)
        word, offset = self._words[-1]
        return NotationError(f"expected {wanted} after it", offset, len(word), HELP_SPANS)
