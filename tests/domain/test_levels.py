"""Levels of a metric over time, from one line of text."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.levels import Kind, Levels, NotationError, Piece, constant, parse_levels, parse_samples


def levels(text: str, kind: Kind = "ratio") -> Levels:
    return parse_levels(text, kind, interval=15)


def seen(text: str, *moments: float, kind: Kind = "ratio") -> list[float | None]:
    found = levels(text, kind)
    return [found.at(moment) for moment in moments]


def test_one_level_holds_always() -> None:
    assert seen("0.2%", -3600, 0, 1e6) == [0.002, 0.002, 0.002]


def test_levels_follow_one_another_and_the_last_one_stays() -> None:
    assert seen("0.2% for 20m then 12% for 5m", -1, 1199, 1200, 1499, 1500, 9999) == [
        0.002, 0.002, 0.12, 0.12, 0.12, 0.12,
    ]  # fmt: skip


def test_a_slope_is_a_straight_line_and_stays_where_it_ends() -> None:
    assert seen("100ms to 300ms over 10m", 0, 300, 600, 900, kind="seconds") == [0.1, 0.2, 0.3, 0.3]


def test_none_is_silence_and_not_zero() -> None:
    assert seen("1% for 1m then none for 1m then 2%", 30, 90, 150) == [0.01, None, 0.02]


def test_steps_last_one_interval_each_and_n_repeats_make_n_plus_one() -> None:
    assert seen("1%x2 3%", 0, 44, 45, 600) == [0.01, 0.01, 0.03, 0.03]
    assert seen("1%+1%x2", 0, 15, 30, 45) == [0.01, 0.02, 0.03, 0.03]
    assert seen("1%+1x1", 0, 15) == seen("1%+1%x1", 0, 15)
    assert seen("3%+-1%x1", 0, 15) == [0.03, pytest.approx(0.02)]
    assert seen("1% _x2 2%", 14, 15, 44, 45) == [0.01, None, None, 0.02]


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("12.5%", "ratio", 0.125), ("180ms", "seconds", 0.18), ("2s", "seconds", 2.0), ("30/m", "rate", 0.5),
        ("36/h", "rate", 0.01), ("-4", "number", -4.0), ("1e3", "number", 1000.0),
    ],
)  # fmt: skip
def test_a_level_is_in_base_units(text: str, kind: Kind, value: float) -> None:
    assert levels(text, kind).at(0) == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0+10x3", (0, 10, 20, 30)),
        ("-2+4x3", (-2, 2, 6, 10)),
        ("1-2x4", (1, -1, -3, -5, -7)),
        ("1x4", (1, 1, 1, 1, 1)),
        ("1 _x3 stale 2", (1, None, None, None, None, 2)),
        ("_ 5", (None, 5)),
    ],
)
def test_samples_are_those_of_prometheus_rule_tests(text: str, values: tuple[float | None, ...]) -> None:
    assert parse_samples(text) == values


LEVELS = "write 0.2% for 20m then 12%, or 0.2% to 5% over 30m"
STEPS = "write Prometheus' notation: 0+10x40 _x4 3x5 stale"
ALL = "a share is at most 100%"
LONG = "y" * 50


@pytest.mark.parametrize(
    ("text", "kind", "says", "place", "help_"),
    [
        ("3", "ratio", '"3" is not a share', (0, 1), "write 3%"),
        ("5ms", "ratio", '"5ms" is not a share', (0, 3), "write 0.2%"),
        ("200", "seconds", '"200" is not a duration', (0, 3), "write 200ms"),
        ("5", "rate", '"5" is not a rate of requests', (0, 1), "write 5/s"),
        ("3%", "number", '"3%" is not a bare number', (0, 2), "write 200"),
        ("1e999", "number", '"1e999" is not a finite number', (0, 5), ""),
        ("120%", "ratio", '"120%" is more than all', (0, 4), ALL),
        ("50%+20%x5", "ratio", '"50%+20%x5" is more than all', (0, 9), ALL),
        ("1% 3%+1sx2", "ratio", '"1s" is not a share', (3, 7), "write 0.2%"),
        ("3%-2%x5", "ratio", '"3%-2%x5" is less than nothing', (0, 7), ""),
        ("-1s", "seconds", '"-1s" is less than nothing', (0, 3), ""),
        ("0.2% for 20m then 12", "ratio", '"12" is not a share', (18, 2), "write 12%"),
        ("0.2% for 20m 12%", "ratio", 'expected "then", not "12%"', (13, 3), LEVELS),
        ("0.2% for 20m " + LONG, "ratio", f'expected "then", not "{LONG[:40]}"', (13, 50), LEVELS),
        ("0.2% then 12%", "ratio", 'expected "for" or the end, not "then"', (5, 4), LEVELS),
        ("0.2% for", "ratio", "expected a duration after it", (5, 3), LEVELS),
        ("0.2% for 5m then", "ratio", "expected a value after it", (12, 4), LEVELS),
        ("0.2% for soon", "ratio", '"soon" is not a duration; write 30s, 5m, 2h or 1d', (9, 4), ""),
        ("0.2% for 0s then 1%", "ratio", '"0s" is no time at all', (9, 2), "write 30s, 5m or 2h"),
        ("0.2% to", "ratio", "expected a value after it", (5, 2), LEVELS),
        ("0.2% to 5%", "ratio", 'expected "over" and a duration after it', (8, 2), LEVELS),
        ("0.2% to 5% for 3m", "ratio", 'expected "over" and a duration, not "for"', (11, 3), LEVELS),
        ("0.2% to none over 5m", "ratio", 'expected a value to rise or fall to, not "none"', (8, 4), LEVELS),
        ("1% for 5m then " + LONG, "ratio", f'"{LONG[:40]}" is no value', (15, 50), "write 0.2% or none"),
        (LONG, "ratio", f'"{LONG[:40]}" is no value', (0, 50), STEPS),
        ("50%x999999", "ratio", "more than 100000 values", (0, 10), "use a longer interval"),
        ("1%x60000 1%x60000", "ratio", "more than 100000 values", (9, 8), "use a longer interval"),
        ("", "ratio", "there is no value", (0, 1), LEVELS),
        ("1%" * 1001, "ratio", "the text is longer than 2000 characters", (0, 2002), "use a+bxn"),
        ("{{schema:1}}x3", "number", "native histograms are not supported", (0, 14), "write its _bucket series"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place_and_what_to_write(
    text: str, kind: Kind, says: str, place: tuple[int, int], help_: str
) -> None:
    with pytest.raises(NotationError) as told:
        levels(text, kind)
    error = told.value
    assert (str(error), (error.offset, error.length), error.help) == (says, place, help_)


def test_the_longest_series_and_the_longest_text_are_still_read() -> None:
    assert len(parse_samples("1x99998 1")) == 100_000
    assert levels(" " * 1998 + "1%").at(0) == 0.01


def test_steps_become_as_few_pieces_as_there_are_levels() -> None:
    assert levels("1%x2 3% 3% _").pieces == (
        Piece(begin=0.0, end=45.0, first=0.01, last=0.01),
        Piece(begin=45.0, end=75.0, first=0.03, last=0.03),
        Piece(begin=75.0, end=math.inf, first=None, last=None),
    )
    assert constant(0.5).pieces == (Piece(begin=0.0, end=math.inf, first=0.5, last=0.5),)


def test_a_slope_that_begins_late_is_measured_from_its_own_begin() -> None:
    found = levels("1% for 10m then 2% to 4% over 20m then none")
    assert [found.at(moment) for moment in (600, 1200, 1799.9999, 1800)] == pytest.approx(
        [0.02, 0.03, 0.04, None], abs=1e-6
    )
    assert (found.unchanged_since(600), found.unchanged_until(600)) == (600, 600)
    assert (found.unchanged_since(0.5), found.unchanged_until(1800)) == (-math.inf, math.inf)
    assert (found.unchanged_since(0), found.at(0.5)) == (-math.inf, 0.01)
    rising = levels("2% to 4% over 20m")
    assert [rising.at(0), rising.at(0.5)] == pytest.approx([0.02, 0.02 + 0.02 / 2400])
    assert [rising.unchanged_since(0), rising.unchanged_since(0.5)] == [-math.inf, 0.5]
    assert (rising.unchanged_since(1200), rising.unchanged_since(1300), rising.unchanged_until(1200)) == (
        1200, 1200, math.inf,
    )  # fmt: skip


def test_what_does_not_change_is_known_not_to() -> None:
    found = levels("1% for 10m then 1% to 5% over 10m then 5%")
    assert (found.unchanged_since(300), found.unchanged_until(300)) == (-math.inf, 600)
    assert (found.unchanged_since(700), found.unchanged_until(700)) == (700, 700)
    assert (found.unchanged_since(5000), found.unchanged_until(5000)) == (1200, math.inf)
    assert found.last_change == 1200
    assert constant(0.5).last_change == 0


@given(
    levels=st.lists(st.tuples(st.integers(0, 100), st.integers(1, 500)), min_size=1, max_size=6),
    moment=st.floats(0, 3000),
)
def test_what_is_said_not_to_change_does_not(levels: list[tuple[int, int]], moment: float) -> None:
    found = parse_levels(" then ".join(f"{level}% for {lasts}s" for level, lasts in levels), "ratio", interval=1)
    since, until = max(found.unchanged_since(moment), -10.0), min(found.unchanged_until(moment), 9999.0)
    assert since <= moment <= until
    between = [since, (since + moment) / 2, moment, (moment + until) / 2, until - 1e-6]
    assert {found.at(one) for one in between} == {found.at(moment)}


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    for read in (lambda: levels(text), lambda: levels(text, "number"), lambda: parse_samples(text)):
        offset = 0
        try:
            read()
        except NotationError as error:
            offset = error.offset
        assert 0 <= offset <= len(text)
