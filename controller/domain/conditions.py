"""The one-line condition grammar: `error_rate > 1% and baseline(error_rate) < 0.1%`.

    condition  = conjunct { "or" conjunct }
    conjunct   = comparison { "and" comparison }
    comparison = operand ( ">" | ">=" | "<" | "<=" ) limit
    operand    = metric | "baseline" "(" metric ")"
    limit      = number [ "%" | "ms" | "s" | "x" "baseline" ]

Closed on purpose: anything cleverer belongs in PromQL, time belongs to `for:`.
"""

from typing import Literal

from msgspec import Struct

Operator = Literal[">", ">=", "<", "<="]
LimitUnit = Literal["", "%", "ms", "s", "x baseline"]


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
