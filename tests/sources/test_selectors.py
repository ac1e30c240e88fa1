"""Selectors are read and written as PromQL does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.errors import Invalid
from controller.sources.selectors import Matcher, Operator, Selector, alternation, parse, predicate, render

NAMES = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,8}", fullmatch=True).filter(
    lambda name: name.lower() not in {"inf", "nan", "or", "and", "__name__"}
)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=12)
OPERATORS: st.SearchStrategy[Operator] = st.sampled_from(["=", "!="])


@given(metric=NAMES, matchers=st.lists(st.tuples(NAMES, OPERATORS, TEXTS), max_size=5))
def test_what_is_rendered_parses_to_the_same_selector(
    metric: str, matchers: list[tuple[str, Operator, str]]
) -> None:
    selector = Selector(metric, tuple(sorted({Matcher(*matcher) for matcher in matchers})))
    assert parse(render(selector)) == selector


@given(values=st.lists(TEXTS, min_size=1, max_size=4), other=TEXTS)
def test_an_alternation_matches_its_values_and_nothing_else(values: list[str], other: str) -> None:
    matches = predicate((Matcher("x", "=~", alternation(tuple(values))),))
    assert all(matches({"x": value}) for value in values)
    assert matches({"x": other}) is (other in values)


def test_two_spellings_of_one_selector_are_equal() -> None:
    assert parse('x{b="2",a=~"1"}') == parse("""{ __name__ = 'x', a=~`1`, b="2", } # why""")


def test_string_escapes_are_those_of_go() -> None:
    selector = parse(r'x{a="\x41\u00e9\101\t\\\"\n"}')
    assert selector.matchers == (Matcher("a", "=", 'AéA\t\\"\n'),)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("sum(x)", "is an expression"),
        ("x[5m]", "is an expression"),
        ("x offset 5m", "offset and @ are not allowed"),
        ("x @ 12", "offset and @ are not allowed"),
        ('{a="1"}', "must name exactly one metric"),
        ('{__name__=~"x|y"}', "must name exactly one metric"),
        ('x{a="1" or b="2"}', '"or" between matchers'),
        (r'x{a="\xc3\xa9"}', "write the character itself"),
        ('x{a="1"', "x{a="),
        ('x{a=~"("}', "illegal regex"),
        ("", "no expression"),
    ],
)
def test_anything_but_a_plain_selector_is_refused_in_words(text: str, complaint: str) -> None:
    with pytest.raises(Invalid, match=complaint.replace("(", r"\(").replace("{", r"\{")):
        parse(text)


def test_a_backslash_before_x_is_not_a_byte_escape() -> None:
    assert parse(r'x{a="C:\\x99"}').matchers[0].value == r"C:\x99"


def test_an_absent_label_is_an_empty_one() -> None:
    assert predicate((Matcher("a", "=", ""),))({})
    assert predicate((Matcher("a", "!=", "x"),))({})
    assert not predicate((Matcher("a", "=~", ".+"),))({})


def test_a_pattern_that_would_backtrack_for_ever_is_decided_at_once() -> None:
    matches = predicate((Matcher("a", "=~", "(x+x+)+y"),))
    assert not matches({"a": "x" * 5000})


def test_a_regular_expression_of_another_dialect_is_refused() -> None:
    with pytest.raises(Invalid, match="not RE2"):
        predicate((Matcher("a", "=~", "(?<=x)y"),))
