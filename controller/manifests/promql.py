"""What a policy's PromQL looks like once its placeholders are filled: is it right, and what does it select?"""

import re

import promql_parser
from msgspec import Struct

from controller.domain.binding import placeholders, substitute

MAX_LENGTH = 4000
MAX_NESTING = 50
MAX_OPERATORS = 100
_OPERATOR = re.compile(r"[-+*/%^<>!]|\b(?:and|or|unless|atan2)\b", re.IGNORECASE)
_DUMMY = "rampart"


class Selector(Struct, frozen=True):
    """A plain vector selector: the metric's name and the names of the labels it matches."""

    name: str
    labels: frozenset[str]


class PromqlError(Exception):
    """`str(error)` says what is wrong, `help` what to write."""

    def __init__(self, message: str, help: str = "") -> None:  # noqa: A002
        super().__init__(message)
        self.help = help


def selector(text: str) -> Selector:
    """Raises PromqlError unless the text is a plain selector of instant vectors."""
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
    return Selector(name, frozenset(matcher.name for matcher in matchers))


def query(text: str) -> None:
    """Raises PromqlError unless the text is PromQL that gives numbers."""
    expression = _parsed(text)
    if isinstance(
        expression, promql_parser.MatrixSelector | promql_parser.StringLiteral | promql_parser.SubqueryExpr
    ):
        raise PromqlError("the query must give one number", "wrap it, as in max(max_over_time(...))")


def _parsed(text: str) -> promql_parser.Expr:
    # The parser recurses, and its time grows with the square of the operators: both are bounded before it starts.
    if len(text) > MAX_LENGTH:
        raise PromqlError(f"longer than {MAX_LENGTH} characters", "use a recording rule")
    if _nesting(text) > MAX_NESTING:
        raise PromqlError(f"nested deeper than {MAX_NESTING} levels", "use a recording rule")
    if len(_OPERATOR.findall(text)) > MAX_OPERATORS:
        raise PromqlError(f"more than {MAX_OPERATORS} operators", "use a recording rule")
    values = dict.fromkeys((name for name, _, _ in placeholders(text)), _DUMMY)
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
