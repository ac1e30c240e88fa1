"""The condition grammar: what it means, where it stops, and that it reads back what it was written from."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from controller.domain.conditions import (
    EXPONENTS,
    AllOf,
    AnyOf,
    Comparison,
    Condition,
    ConditionError,
    LimitUnit,
    comparisons,
    metrics_of,
    parse,
    parse_limit,
    uses_baseline,
)

names = st.from_regex(r"[a-z][a-z0-9_]{0,11}", fullmatch=True)
units = st.sampled_from(list(EXPONENTS))
written_numbers = st.decimals(min_value=0, max_value=10**9, places=4, allow_nan=False, allow_infinity=False)


@st.composite
def compared(draw: st.DrawFn) -> Comparison:
    unit = draw(units)
    return Comparison(
        metric=draw(names),
        of_baseline=draw(st.booleans()),
        operator=draw(st.sampled_from([">", ">=", "<", "<="])),
        number=float(draw(written_numbers).scaleb(EXPONENTS[unit])),
        unit=unit,
    )


conditions = st.lists(st.lists(compared(), min_size=1, max_size=3), min_size=1, max_size=3).map(
    lambda alternatives: AnyOf(tuple(AllOf(tuple(parts)) for parts in alternatives))
)


def written(condition: Condition) -> str:
    return " or ".join(" and ".join(map(written_comparison, part.parts)) for part in condition.parts)


def written_comparison(one: Comparison) -> str:
    number = Decimal(repr(one.number)).scaleb(-EXPONENTS[one.unit])
    operand = f"baseline({one.metric})" if one.of_baseline else one.metric
    return f"{operand} {one.operator} {number:f}{one.unit}"


def without_offsets(condition: Condition) -> Condition:
    return AnyOf(tuple(AllOf(tuple(replace(one, offset=0) for one in part.parts)) for part in condition.parts))


def error_in(text: str) -> ConditionError | None:
    try:
        parse(text)
    except ConditionError as error:
        return error
    return None


@given(conditions)
def test_a_condition_written_down_is_read_back_the_same(condition: Condition) -> None:
    assert without_offsets(parse(written(condition))) == condition


@given(conditions)
def test_an_offset_points_at_the_metric_it_names(condition: Condition) -> None:
    text = written(condition)
    assert all(text.startswith(one.metric, one.offset) for one in comparisons(parse(text)))


@given(st.text(alphabet="ab_1.%xms <>=()-andor,baseline", max_size=60))
def test_any_text_is_a_condition_or_an_explained_error(text: str) -> None:
    error = error_in(text)
    if error is None:
        assert metrics_of(parse(text))
    else:
        assert 0 <= error.offset <= len(text)
        assert error.length >= 1


@pytest.mark.parametrize(
    ("text", "number", "unit"),
    [
        ("1%", 0.01, "%"),
        ("0.1 %", 0.001, "%"),
        ("20ms", 0.02, "ms"),
        ("1.5s", 1.5, "s"),
        ("2x baseline", 2.0, "x baseline"),
        ("40", 40.0, ""),
    ],
)
def test_limits_are_in_base_units(text: str, number: float, unit: LimitUnit) -> None:
    assert parse_limit(text) == (number, unit)
    assert comparisons(parse(f"m > {text}"))[0].number == number


def test_and_binds_tighter_than_or() -> None:
    condition = parse("a > 1 and b > 2 or c > 3")
    assert [[one.metric for one in part.parts] for part in condition.parts] == [["a", "b"], ["c"]]


def test_both_ways_of_naming_the_baseline_use_it() -> None:
    assert uses_baseline(parse("a > 2x baseline"))
    assert uses_baseline(parse("a > 1% and baseline(a) < 0.1%"))
    assert not uses_baseline(parse("a > 1%"))


@pytest.mark.parametrize(
    ("text", "offset", "length", "message", "help_text"),
    [
        ("", 0, 1, "expected a metric, found the end", "write a metric first"),
        ("errors", 6, 1, "expected one of > >= < <=, found the end", ""),
        ("errors => 3", 7, 2, 'found "=>"', 'write ">="'),
        ("errors == 3", 7, 2, "expected one of > >= < <=", ""),
        ("errors > -1", 9, 2, "expected a number", "never negative"),
        ("errors > nan", 9, 3, "expected a number", "finite"),
        ("errors > inf", 9, 3, "expected a number", "finite"),
        ("errors > 2x", 10, 1, 'expected "baseline"', 'write "2x baseline"'),
        ("errors > 5m", 10, 1, 'unknown unit "m"', "use %, ms, s or x baseline"),
        ("errors > 1 ms", 11, 2, 'found "ms"', "next to the number"),
        ("errors > 1 AND b < 2", 11, 3, 'found "AND"', "lower-case"),
        ("(errors > 1)", 0, 1, 'found "("', "no grouping"),
        ("baseline(errors > 1", 16, 1, 'expected ")"', 'write "baseline(errors)"'),
        ("errors > 1 + 2", 11, 1, 'found "+"', "no arithmetic"),
        ("errors > 1% for 5m", 12, 3, 'found "for"', "for: 5m"),
        ("errors > " + "9" * 400, 9, 400, "too large", ""),
    ],
)
def test_an_error_says_where_and_what_to_write(
    text: str, offset: int, length: int, message: str, help_text: str
) -> None:
    with pytest.raises(ConditionError) as caught:
        parse(text)
    assert (caught.value.offset, caught.value.length) == (offset, length)
    assert message in str(caught.value)
    assert help_text in caught.value.help


def test_a_condition_has_a_greatest_length() -> None:
    with pytest.raises(ConditionError, match="longer than 500 characters"):
        parse("a > 1 and " * 100 + "a > 1")


def told(text: str) -> tuple[str, int, int, str]:
    error = error_in(text)
    assert error is not None
    return str(error), error.offset, error.length, error.help


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "",
            ("expected a metric, found the end", 0, 1, "write a metric first, as in error_rate > 1%"),
        ),
        (
            "(a > 1)",
            ('expected a metric, found "("', 0, 1, 'there is no grouping; "and" binds tighter than "or"'),
        ),
        ("a => 3", ('expected one of > >= < <=, found "=>"', 2, 2, 'write ">="')),
        ("a =< 3", ('expected one of > >= < <=, found "=<"', 2, 2, 'write "<="')),
        ("a != 3", ('expected one of > >= < <=, found "!="', 2, 2, "")),
        ("a > -1", ('expected a number, found "-1"', 4, 2, "a limit is never negative")),
        (
            "a > x",
            ('expected a number, found "x"', 4, 1, "write a finite number, as in 1%, 20ms or 2x baseline"),
        ),
        (
            "a > 2x base",
            ('expected "baseline" after "x"', 5, 1, 'write "2x baseline"; a limit is absolute otherwise'),
        ),
        ("a > 5 min", ('expected "and", "or" or the end of the condition, found "min"', 6, 3, "")),
        ("a > 5min", ('unknown unit "min"', 5, 3, "use %, ms, s or x baseline")),
        ("baseline(a > 1", ('expected ")", found ">"', 11, 1, 'write "baseline(a)"')),
        ("a > " + "9" * 400, ("the number is too large", 4, 400, "")),
        (
            "a > 1 + 2",
            (
                'expected "and", "or" or the end of the condition, found "+"',
                6,
                1,
                "there is no arithmetic; compute it in the metric's PromQL",
            ),
        ),
        (
            "a > 1% for 5m",
            (
                'expected "and", "or" or the end of the condition, found "for"',
                7,
                3,
                "time belongs to the rule's own key, as in for: 5m",
            ),
        ),
        (
            "a > 1 OR b > 1",
            (
                'expected "and", "or" or the end of the condition, found "OR"',
                6,
                2,
                'write "and" or "or" in lower-case letters',
            ),
        ),
        (
            "a > 1 s",
            (
                'expected "and", "or" or the end of the condition, found "s"',
                6,
                1,
                'write the unit next to the number, as in "1s"',
            ),
        ),
        (
            "a" * 501,
            ("the condition is longer than 500 characters", 0, 501, "put it into the metric's PromQL"),
        ),
    ],
)
def test_every_error_is_told_in_full(text: str, expected: tuple[str, int, int, str]) -> None:
    assert told(text) == expected


@pytest.mark.parametrize(
    ("word", "start"),
    [("ms", "write the unit"), ("x", "write the unit"), ("&", 'write "and"'), ("|", 'write "and"')]
    + [(sign, "there is no arithmetic") for sign in "+-*/"]
    + [("and", "write a metric first"), ("or", "write a metric first")],
)
def test_what_people_try_after_a_limit_has_an_answer(word: str, start: str) -> None:
    assert told(f"a > 1 {word}")[3].startswith(start)


def test_a_condition_of_exactly_the_greatest_length_is_read() -> None:
    name = "a" * 496
    assert metrics_of(parse(f"{name} > 1")) == {name}


def test_white_space_may_stand_anywhere_but_within_a_limit() -> None:
    (one,) = comparisons(parse(" \tbaseline ( a )  >=  2x  baseline  "))
    assert one == Comparison(metric="a", of_baseline=True, operator=">=", number=2.0, unit="x baseline", offset=13)


def test_a_metric_may_be_called_baseline() -> None:
    (one,) = comparisons(parse("baseline > 1"))
    assert (one.metric, one.of_baseline, one.offset) == ("baseline", False, 0)


def test_a_limit_alone_says_what_is_too_much() -> None:
    with pytest.raises(ConditionError) as caught:
        parse_limit("20ms 3")
    found = caught.value
    assert (str(found), found.offset, found.length, found.help) == (
        'expected the end of the limit, found "3"',
        5,
        1,
        "write one number with its unit, as in 20ms or 1%",
    )
