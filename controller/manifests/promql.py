"""What a policy's PromQL looks like once its placeholders are filled: is it right, and what does it select?"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar, cast

import promql_parser
from msgspec import Struct

from controller.domain.binding import placeholders, substitute

MAX_LENGTH = 4000
MAX_NESTING = 50
MAX_OPERATORS = 100
_OPERATOR = re.compile(r"[-+*/%^<>!]|\b(?:and|or|unless|atan2)\b", re.IGNORECASE)
Found = TypeVar("Found", "Selector", "Query")

_DUMMY = "rampart_"
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'|`[^`]*`')
_RANGE = re.compile(r"\[([^\]]*)\]")
_COUNTED = re.compile(r"\b(?:rate|increase|irate)\s*\(")
_OPERATORS = {"MatchOp.Equal": "=", "MatchOp.NotEqual": "!=", "MatchOp.Re": "=~", "MatchOp.NotRe": "!~"}
_SEVERAL = frozenset({"topk", "bottomk", "count_values", "limitk", "limit_ratio"})
_ONE = frozenset({"scalar", "vector", "time", "absent", "absent_over_time", "pi"})


class Matcher(Struct, frozen=True):
    """`operator` is one of = != =~ !~. `placeholder` is the one that is the whole value, if there is one."""

    label: str
    operator: str
    value: str
    placeholder: str = ""

    def fits(self, value: str) -> bool:
        if self.operator in ("=", "!="):
            return (self.value == value) == (self.operator == "=")
        try:
            return bool(re.fullmatch(self.value, value)) == (self.operator == "=~")
        except re.error:
            return False


class Selector(Struct, frozen=True):
    """A plain vector selector: the metric's name and what it matches."""

    name: str
    matchers: tuple[Matcher, ...]

    @property
    def labels(self) -> frozenset[str]:
        return frozenset(matcher.label for matcher in self.matchers)


class Query(Struct, frozen=True):
    """What can be said of raw PromQL. `single`: it answers with one series whatever is there.

    `estimates` is "share" or "quantile" when that is what it computes; `ranges` are (offset, length) in the text
    of the ranges that are not `$window`.
    """

    single: bool
    estimates: str
    ranges: tuple[tuple[int, int], ...]


class PromqlError(Exception):
    """`str(error)` says what is wrong, `help` what to write."""

    def __init__(self, message: str, help: str = "") -> None:  # noqa: A002
        super().__init__(message)
        self.help = help


def selector(text: str) -> Selector:
    """Raises PromqlError unless the text is a plain selector of instant vectors."""
    return _known(_read_selector, text)


def query(text: str) -> Query:
    """Raises PromqlError unless the text is PromQL that gives numbers."""
    return _known(_read_query, text)


def _known(read: Callable[[str], Found], text: str) -> Found:
    """Many checks ask about the same few texts, and a hostile one takes its time each time."""
    found = _read_once(read, text)
    if isinstance(found, PromqlError):
        raise PromqlError(str(found), found.help)
    return cast("Found", found)


@lru_cache(maxsize=64)
def _read_once(read: Callable[[str], object], text: str) -> object:
    try:
        return read(text)
    except PromqlError as error:
        return error


def _read_selector(text: str) -> Selector:
    expression = _parsed(text)
    if not isinstance(expression, promql_parser.VectorSelector):
        if isinstance(expression, promql_parser.MatrixSelector):
            raise PromqlError(
                "a range is not allowed here", "leave out [..]: Rampart adds rate() and the window itself"
            )
        raise PromqlError(
            "this must be a plain selector, as in http_requests_total{...}",
            "leave out functions and arithmetic, or use query: for raw PromQL",
        )
    if expression.offset is not None or expression.at is not None:
        raise PromqlError("offset and @ are not allowed here", "leave them out: Rampart chooses the time itself")
    matchers = list(expression.matchers.matchers)
    if expression.matchers.or_matchers:
        raise PromqlError(
            '"or" between matchers is not allowed here', 'use one regular expression, as in code=~"a|b"'
        )
    named = [matcher.value for matcher in matchers if matcher.name == "__name__"]
    name = expression.name or (named[0] if named else "")
    if not name:
        raise PromqlError("the selector names no metric", "write the metric's name before the {")
    return Selector(name, tuple(_matcher(matcher) for matcher in matchers))


def _matcher(matcher: promql_parser.Matcher) -> Matcher:
    placeholder = matcher.value.removeprefix(_DUMMY) if matcher.value.startswith(_DUMMY) else ""
    return Matcher(matcher.name, _OPERATORS[str(matcher.op)], matcher.value, placeholder)


def _read_query(text: str) -> Query:
    expression = _parsed(text)
    if isinstance(
        expression, promql_parser.MatrixSelector | promql_parser.StringLiteral | promql_parser.SubqueryExpr
    ):
        raise PromqlError("the query must give one number", "wrap it, as in max(max_over_time(...))")
    plain = _STRING.sub(lambda found: "_" * len(found.group()), text)
    return Query(
        single=_single(expression),
        estimates=_estimated(expression, plain),
        ranges=tuple(
            (found.start(1), len(found[1])) for found in _RANGE.finditer(plain) if not _follows_window(found[1])
        ),
    )


def _follows_window(written: str) -> bool:
    return any(name == "window" for name, _, _ in placeholders(written))


def _single(expression: promql_parser.Expr) -> bool:
    match expression:
        case promql_parser.NumberLiteral():
            return True
        case promql_parser.ParenExpr() | promql_parser.UnaryExpr():
            return _single(expression.expr)
        case promql_parser.AggregateExpr():
            modifier = expression.modifier
            one_group = modifier is None or (
                modifier.type == promql_parser.AggModifierType.By and not modifier.labels
            )
            return one_group and str(expression.op) not in _SEVERAL
        case promql_parser.BinaryExpr():
            return _single(expression.lhs) and _single(expression.rhs)
        case promql_parser.Call():
            if expression.func.name in _ONE:
                return True
            return all(_single(argument) for argument in _vectors(expression))
        case _:
            return False


def _vectors(call: promql_parser.Call) -> list[promql_parser.Expr]:
    """The arguments that decide how many series a function answers with."""
    arguments = [one for one in call.args if not isinstance(one, promql_parser.StringLiteral)]
    if call.func.name != "histogram_quantile":
        return arguments
    # Quantiles need the buckets, so one group by le is one series.
    inner = arguments[-1]
    by_le = (
        isinstance(inner, promql_parser.AggregateExpr)
        and inner.modifier is not None
        and inner.modifier.type == promql_parser.AggModifierType.By
        and list(inner.modifier.labels) == ["le"]
    )
    return [] if by_le else arguments


def _estimated(expression: promql_parser.Expr, plain: str) -> str:
    while isinstance(expression, promql_parser.ParenExpr):
        expression = expression.expr
    if isinstance(expression, promql_parser.Call) and expression.func.name == "histogram_quantile":
        return "quantile"
    divided = isinstance(expression, promql_parser.BinaryExpr) and str(expression.op) == "/"
    return "share" if divided and len(_COUNTED.findall(plain)) >= 2 else ""


def _parsed(text: str) -> promql_parser.Expr:
    # The parser recurses, and its time grows with the square of the operators: both are bounded before it starts.
    if len(text) > MAX_LENGTH:
        raise PromqlError(f"longer than {MAX_LENGTH} characters", "use a recording rule")
    if _nesting(text) > MAX_NESTING:
        raise PromqlError(f"nested deeper than {MAX_NESTING} levels", "use a recording rule")
    if len(_OPERATOR.findall(text)) > MAX_OPERATORS:
        raise PromqlError(f"more than {MAX_OPERATORS} operators", "use a recording rule")
    values = {name: _DUMMY + (name if name.isidentifier() else "") for name, _, _ in placeholders(text)}
    try:
        return promql_parser.parse(substitute(text, {**values, "window": "300s"}))
    except ValueError as error:
        reason = re.sub(r"\s+", " ", str(error)).strip()
        raise PromqlError(
            f"not PromQL: {reason[:200]}", "try the expression in Prometheus' own console"
        ) from error


def _nesting(text: str) -> int:
    depth = deepest = 0
    for char in text:
        if char in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in ")]}":
            depth -= 1
    return deepest
