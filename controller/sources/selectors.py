"""A plain PromQL vector selector (a metric name and its matchers) as a value, and back to text."""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Literal

import promql_parser
import re2
from msgspec import Struct

from controller.errors import Invalid

Operator = Literal["=", "!=", "=~", "!~"]

# By name, because the parser's enumeration cannot be a key.
OPERATORS: dict[str, Operator] = {
    "MatchOp.Equal": "=",
    "MatchOp.NotEqual": "!=",
    "MatchOp.Re": "=~",
    "MatchOp.NotRe": "!~",
}
CLASSIC_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
CLASSIC_METRIC = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
REGEX_SPECIAL = re.compile(r"[\\.+*?()|\[\]{}^$]")
# PromQL reads these escapes as bytes of UTF-8, the parser used here as code points.
BYTE_ESCAPE = re.compile(r"(?<!\\)(?:\\\\)*\\(?:x[89a-fA-F]|[23][0-7][0-7])")
MATCHERS_KEPT = 4096
SELECTORS_KEPT = 32_768


class Matcher(Struct, frozen=True, order=True, cache_hash=True, gc=False):
    label: str
    operator: Operator
    value: str


class Selector(Struct, frozen=True, cache_hash=True, gc=False):
    """Matchers are sorted, so that two spellings of one selector are equal."""

    metric: str
    matchers: tuple[Matcher, ...]


@lru_cache(maxsize=SELECTORS_KEPT)
def parse(text: str) -> Selector:
    """Raises Invalid for everything but one metric name with matchers."""
    if BYTE_ESCAPE.search(text):
        raise Invalid(f"selector {text!r}: write the character itself instead of its bytes")
    try:
        tree = promql_parser.parse(text)
    except ValueError as error:
        raise Invalid(f"selector {text!r}: {error}") from error
    if not isinstance(tree, promql_parser.VectorSelector):
        raise Invalid(f'selector {text!r} is an expression; write only a metric name and labels, or use "query"')
    if tree.offset is not None or tree.at is not None:
        raise Invalid(f"selector {text!r}: offset and @ are not allowed, the window is the policy's")
    if tree.matchers.or_matchers:
        raise Invalid(f'selector {text!r}: "or" between matchers is not supported')
    matchers = [Matcher(found.name, OPERATORS[str(found.op)], found.value) for found in tree.matchers.matchers]
    names = [found for found in matchers if found.label == "__name__"]
    metric = tree.name or (names[0].value if len(names) == 1 and names[0].operator == "=" else None)
    if not metric or (tree.name and names):
        raise Invalid(f"selector {text!r} must name exactly one metric")
    return Selector(metric, tuple(sorted(set(matchers) - set(names))))


def render(selector: Selector) -> str:
    """PromQL text that `parse` reads back as the same value."""
    matchers = [f"{label_text(found.label)}{found.operator}{_quoted(found.value)}" for found in selector.matchers]
    if CLASSIC_METRIC.fullmatch(selector.metric):
        return f"{selector.metric}{{{','.join(matchers)}}}" if matchers else selector.metric
    return f"{{{','.join([_quoted(selector.metric), *matchers])}}}"


def label_text(name: str) -> str:
    return name if CLASSIC_LABEL.fullmatch(name) else _quoted(name)


def alternation(values: tuple[str, ...]) -> str:
    """A regular expression that matches exactly these values (PromQL anchors it by itself)."""
    return "|".join(REGEX_SPECIAL.sub(r"\\\g<0>", value) for value in values)


def predicate(matchers: tuple[Matcher, ...]) -> Callable[[Mapping[str, str]], bool]:
    """Whether labels satisfy all matchers; an absent label is an empty one, as in PromQL.

    Raises Invalid for a regular expression Prometheus would not take.
    """
    tests = [(found.label, _value_test(found)) for found in matchers]
    return lambda labels: all(test(labels.get(label, "")) for label, test in tests)


@lru_cache(maxsize=MATCHERS_KEPT)
def _value_test(matcher: Matcher) -> Callable[[str], bool]:
    wanted = matcher.value
    if matcher.operator == "=":
        return lambda value: value == wanted
    if matcher.operator == "!=":
        return lambda value: value != wanted
    # The same engine as Prometheus: the same language, and no pattern can take exponential time.
    options = re2.Options()
    options.dot_nl = True
    options.log_errors = False
    try:
        pattern = re2.compile(wanted, options)
    except re2.error as error:
        raise Invalid(f"regular expression {wanted!r} is not RE2 syntax") from error
    positive = matcher.operator == "=~"
    return lambda value: (pattern.fullmatch(value) is not None) is positive


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return '"' + "".join(_escaped_control(char) for char in escaped) + '"'


def _escaped_control(char: str) -> str:
    return f"\\x{ord(char):02x}" if char < " " or char == "\x7f" else char
