"""The one-line condition grammar: `error_rate > 1% and baseline(error_rate) < 0.1%`.

    condition  = conjunct { "or" conjunct }
    conjunct   = comparison { "and" comparison }
    comparison = operand ( ">" | ">=" | "<" | "<=" ) limit
    operand    = metric | "baseline" "(" metric ")"
    limit      = number [ "%" | "ms" | "s" | "x" "baseline" ]

Closed on purpose: anything cleverer belongs in PromQL, time belongs to `for:`.
"""

import math
import re
from decimal import Decimal
from typing import Literal, cast

from msgspec import Struct

from controller.errors import Invalid

Operator = Literal[">", ">=", "<", "<="]
LimitUnit = Literal["", "%", "ms", "s", "x baseline"]

MAX_LENGTH = 500
OPERATORS = (">", ">=", "<", "<=")
# How far the decimal point moves from the written number to the base unit.
EXPONENTS: dict[LimitUnit, int] = {"": 0, "%": -2, "ms": -3, "s": 0, "x baseline": 0}

_SPACE = re.compile(r"[ \t]*")
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_SYMBOL = re.compile(r"[<>=!~]+")
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_SUFFIX = re.compile(r"[ \t]*%|[A-Za-z]+")
_TOKEN = re.compile(r"[A-Za-z0-9._-]+|[<>=!~]+|.", re.DOTALL)


class Comparison(Struct, frozen=True, kw_only=True, tag="comparison"):
    """`number` is in base units: `1%` is 0.01, `20ms` is 0.02, `2x baseline` is 2.0."""

    metric: str
    of_baseline: bool = False
    operator: Operator
    number: float
    unit: LimitUnit
    offset: int = 0  # column in the text


class AllOf(Struct, frozen=True, tag="all"):
    parts: tuple[Comparison, ...]


class AnyOf(Struct, frozen=True, tag="any"):
    parts: tuple[AllOf, ...]


Condition = AnyOf


class ConditionError(Invalid):
    """Where the text stops being a condition (0-based `offset`, `length` in characters), and what to write."""

    def __init__(self, message: str, offset: int, length: int, help: str = "") -> None:  # noqa: A002
        super().__init__(message)
        self.offset = offset
        self.length = length
        self.help = help


def parse(text: str) -> Condition:
    """Raises ConditionError."""
    if len(text) > MAX_LENGTH:
        raise ConditionError(
            f"the condition is longer than {MAX_LENGTH} characters",
            0,
            len(text),
            "put it into the metric's PromQL",
        )
    scanner = _Scanner(text)
    alternatives = [_conjunct(scanner)]
    while scanner.take_keyword("or"):
        alternatives.append(_conjunct(scanner))
    if not scanner.at_end():
        raise scanner.unexpected('"and", "or" or the end of the condition', _after_limit_help(scanner))
    return AnyOf(tuple(alternatives))


def parse_limit(text: str) -> tuple[float, LimitUnit]:
    """`20ms` → (0.02, "ms"). Raises ConditionError."""
    scanner = _Scanner(text)
    number, unit = _limit(scanner)
    if not scanner.at_end():
        raise scanner.unexpected("the end of the limit", "write one number with its unit, as in 20ms or 1%")
    return number, unit


def comparisons(condition: Condition) -> list[Comparison]:
    return [comparison for conjunct in condition.parts for comparison in conjunct.parts]


def metrics_of(condition: Condition) -> set[str]:
    return {comparison.metric for comparison in comparisons(condition)}


def uses_baseline(condition: Condition) -> bool:
    return any(one.of_baseline or one.unit == "x baseline" for one in comparisons(condition))


class _Scanner:
    """A cursor over the text that stands before the next thing that is not a space."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.skip_space()

    def skip_space(self) -> None:
        self.position = cast("re.Match[str]", _SPACE.match(self.text, self.position)).end()

    def at_end(self) -> bool:
        return self.position == len(self.text)

    def peek(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self.text, self.position)
        return found.group() if found else ""

    def advance(self, length: int, *, over_space: bool = True) -> None:
        self.position += length
        if over_space:
            self.skip_space()

    def take_keyword(self, keyword: str) -> bool:
        if self.peek(_WORD) != keyword:
            return False
        self.advance(len(keyword))
        return True

    def take_symbol(self, symbol: str) -> bool:
        if not self.text.startswith(symbol, self.position):
            return False
        self.advance(len(symbol))
        return True

    def unexpected(self, expected: str, help_text: str) -> ConditionError:
        token = self.peek(_TOKEN)
        found = f'"{token}"' if token else "the end"
        return ConditionError(f"expected {expected}, found {found}", self.position, max(len(token), 1), help_text)


def _conjunct(scanner: _Scanner) -> AllOf:
    parts = [_comparison(scanner)]
    while scanner.take_keyword("and"):
        parts.append(_comparison(scanner))
    return AllOf(tuple(parts))


def _comparison(scanner: _Scanner) -> Comparison:
    of_baseline, metric, offset = _operand(scanner)
    operator = _operator(scanner)
    number, unit = _limit(scanner)
    return Comparison(
        metric=metric, of_baseline=of_baseline, operator=operator, number=number, unit=unit, offset=offset
    )


def _operand(scanner: _Scanner) -> tuple[bool, str, int]:
    metric, offset = _metric(scanner)
    if metric != "baseline" or not scanner.take_symbol("("):
        return False, metric, offset
    metric, offset = _metric(scanner)
    if not scanner.take_symbol(")"):
        raise scanner.unexpected('")"', f'write "baseline({metric})"')
    return True, metric, offset


def _metric(scanner: _Scanner) -> tuple[str, int]:
    word, offset = scanner.peek(_WORD), scanner.position
    if not word:
        grouping = 'there is no grouping; "and" binds tighter than "or"' if scanner.peek(_TOKEN) == "(" else ""
        raise scanner.unexpected("a metric", grouping or "write a metric first, as in error_rate > 1%")
    scanner.advance(len(word))
    return word, offset


def _operator(scanner: _Scanner) -> Operator:
    symbol = scanner.peek(_SYMBOL)
    if symbol not in OPERATORS:
        written = {"=>": ">=", "=<": "<="}.get(symbol)
        raise scanner.unexpected("one of > >= < <=", f'write "{written}"' if written else "")
    scanner.advance(len(symbol))
    return cast("Operator", symbol)


def _limit(scanner: _Scanner) -> tuple[float, LimitUnit]:
    digits, start = scanner.peek(_NUMBER), scanner.position
    if not digits:
        negative = "a limit is never negative" if scanner.peek(_TOKEN).startswith("-") else ""
        raise scanner.unexpected("a number", negative or "write a finite number, as in 1%, 20ms or 2x baseline")
    scanner.advance(len(digits), over_space=False)
    unit = _unit(scanner, digits)
    number = float(Decimal(digits).scaleb(EXPONENTS[unit]))
    if not math.isfinite(number):
        raise ConditionError("the number is too large", start, len(digits))
    return number, unit


def _unit(scanner: _Scanner, digits: str) -> LimitUnit:
    suffix, start = scanner.peek(_SUFFIX), scanner.position
    scanner.advance(len(suffix))
    match suffix.strip():
        case "":
            return ""
        case "%" | "ms" | "s" as unit:
            return cast("LimitUnit", unit)
        case "x":
            if scanner.take_keyword("baseline"):
                return "x baseline"
            raise ConditionError(
                'expected "baseline" after "x"',
                start,
                1,
                f'write "{digits}x baseline"; a limit is absolute otherwise',
            )
        case other:
            raise ConditionError(f'unknown unit "{other}"', start, len(other), "use %, ms, s or x baseline")


def _after_limit_help(scanner: _Scanner) -> str:
    match scanner.peek(_TOKEN).lower():
        case "ms" | "s" | "x" as unit:
            return f'write the unit next to the number, as in "1{unit}"'
        case "and" | "or" | "&" | "|":
            return 'write "and" or "or" in lower-case letters'
        case "+" | "-" | "*" | "/":
            return "there is no arithmetic; compute it in the metric's PromQL"
        case "for":
            return "time belongs to the rule's own key, as in for: 5m"
        case _:
            return ""
