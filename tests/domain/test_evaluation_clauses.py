"""Clauses, one operator at a time: what they match, and what they never match."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.evaluation.contexts import parse_context
from controller.domain.evaluation.operators import read_test, same
from controller.domain.evaluation.references import look_up, read_reference
from controller.domain.evaluation.timestamps import read_timestamp
from controller.domain.evaluation.versions import read_version
from controller.patterns import read_pattern

texts = st.text()
numbers = st.one_of(st.integers(), st.floats(allow_nan=False))
anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), texts),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(texts, inner)),
    max_leaves=8,
)


def passes(op: str, value: Any, *values: Any) -> bool:
    return read_test(op, values, read_pattern)(value)


@pytest.mark.parametrize(
    ("op", "value", "values"),
    [
        ("in", "a", ["b", "a"]),
        ("in", 1, [1.0]),
        ("in", 1.5, [1.5]),
        ("in", True, [True]),
        ("in", {"a": [1, "x"]}, [{"a": [1.0, "x"]}]),
        ("startsWith", "alpha", ["be", "al"]),
        ("endsWith", "alpha", ["ha"]),
        ("endsWith", "alpha", [""]),
        ("contains", "alpha", ["lph"]),
        ("matches", "alpha", ["^b", "l.h"]),
        ("matches", "ALPHA", ["(?i)alpha"]),
        ("lessThan", 1, [2]),
        ("lessThan", 1.5, [0, 1.6]),
        ("lessThanOrEqual", 2, [2]),
        ("greaterThan", 3, [2.5]),
        ("greaterThanOrEqual", 2, [2.0]),
        ("before", "2023-11-14T22:13:19Z", [1_700_000_000_000]),
        ("before", 1, [2]),
        ("after", "2023-11-14T22:13:20.5Z", ["2023-11-14T23:13:20+01:00"]),
        ("semVerEqual", "2", ["2.0.0"]),
        ("semVerLessThan", "2.0.0-rc.2", ["2.0.0-rc.10"]),
        ("semVerGreaterThan", "1.10", ["1.9.9"]),
    ],
)
def test_an_operator_passes(op: str, value: Any, values: list[Any]) -> None:
    assert passes(op, value, *values)


@pytest.mark.parametrize(
    ("op", "value", "values"),
    [
        ("in", "a", []),
        ("in", "1", [1]),
        ("in", 1, [True]),
        ("in", True, [1]),
        ("in", [1], [[True]]),
        ("in", {"a": 1}, [{"a": 1, "b": 2}]),
        ("startsWith", "alpha", ["lp"]),
        ("startsWith", 11, [1]),
        ("endsWith", "alpha", [1]),
        ("contains", "alpha", ["x"]),
        ("contains", 12, ["1"]),
        ("matches", "alpha", ["^l"]),
        ("matches", "alpha\n", ["alpha$"]),
        ("matches", 1, ["1"]),
        ("matches", "a", [1]),
        ("matches", "(", ["("]),
        ("lessThan", 2, [2]),
        ("lessThan", "1", [2]),
        ("lessThan", False, [2]),
        ("lessThan", 1, [True]),
        ("lessThanOrEqual", 3, [2]),
        ("greaterThan", 2, [2]),
        ("greaterThanOrEqual", 1, [2]),
        ("before", "2023-11-14T22:13:20Z", [1_700_000_000_000]),
        ("before", True, [2]),
        ("before", "2023-11-14", [1_700_000_000_000]),
        ("after", "2023-11-14T22:13:20Z", [1_700_000_000_000]),
        ("after", 5, ["yesterday"]),
        ("semVerEqual", "2.0.0-rc.1", ["2.0.0"]),
        ("semVerEqual", 2, ["2.0.0"]),
        ("semVerLessThan", "2.0.0", ["2.0.0-rc.1"]),
        ("semVerGreaterThan", "v3", ["2.0.0"]),
        ("soundsLike", "alpha", ["alpha"]),
        ("segmentMatch", "alpha", ["alpha"]),
    ],
)
def test_an_operator_does_not_pass(op: str, value: Any, values: list[Any]) -> None:
    assert not passes(op, value, *values)


@given(
    st.sampled_from(["in", "matches", "contains", "lessThan", "before", "semVerEqual", "x"]), anything, anything
)
def test_every_operator_answers_to_anything(op: str, value: Any, wanted: Any) -> None:
    assert passes(op, value, wanted) in (True, False)


@given(anything)
def test_everything_is_the_same_as_itself(value: Any) -> None:
    assert same(value, value) or "nan" in repr(value)


@given(numbers, numbers)
def test_numbers_are_in_one_order_only(one: float, other: float) -> None:
    answers = [passes(op, one, other) for op in ("lessThan", "in", "greaterThan")]
    assert answers.count(True) == 1


def test_long_lists_of_numbers_are_not_compared_one_by_one() -> None:
    """Each by each would be ten billion comparisons."""
    test = read_test("in", list(range(100_000)), read_pattern)
    assert not any(map(test, range(-100_000, 0)))


def test_a_pattern_takes_time_by_the_length_of_the_text_only() -> None:
    assert not passes("matches", "a" * 50_000 + "!", "^(a+)+$")


def test_a_pattern_that_needs_too_much_memory_matches_nothing() -> None:
    assert not passes("matches", "a" * 1000, "((a{1000}){1000})")


def test_half_of_a_surrogate_pair_is_found_by_no_pattern_and_is_none() -> None:
    assert not passes("matches", "\ud800a", "a")
    assert not passes("matches", "a", "\ud800")


# — versions and times —


@pytest.mark.parametrize(
    "ascending",
    [
        [
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0",
        ],
        ["0.9", "1", "1.0.1", "1.1", "2-rc", "2", "10"],
        ["1.0.0-1", "1.0.0-2", "1.0.0-10", "1.0.0-a"],
    ],
)
def test_versions_are_ordered_as_semver_says(ascending: list[str]) -> None:
    versions = [read_version(text) for text in ascending]
    assert None not in versions
    assert versions == sorted(versions)  # type: ignore[type-var]
    assert len(set(versions)) == len(versions)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "v1",
        "1.",
        ".1",
        "01",
        "1.02",
        "1.0.0.0",
        "1.0.0-",
        "1.0.0-01",
        "1.0.0+",
        "1.0.0-é",
        " 1",
        "1" * 257,
        1,
        None,
    ],
)
def test_what_is_no_version_is_not_read(text: Any) -> None:
    assert read_version(text) is None


def test_what_a_version_was_built_from_does_not_count() -> None:
    assert read_version("1.0.0+a") == read_version("1.0.0+b") == read_version("1")


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01t00:00:01.5z", 1500),
        ("1970-01-01T00:00:00.001000999Z", 1),
        ("1970-01-01T00:00:00.000002Z", 0.002),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1969-12-31T23:59:59-00:30", 1_799_000),
        (1.5, 1.5),
        (-3, -3),
    ],
)
def test_times_are_milliseconds_since_1970(text: Any, milliseconds: float) -> None:
    assert read_timestamp(text) == milliseconds


@pytest.mark.parametrize(
    "text",
    [
        "1970-01-01", "1970-01-01T00:00:00", "1970-01-01 00:00:00Z", "1970-02-30T00:00:00Z",
        "1970-01-01T25:00:00Z", "1970-01-01T00:00:00+25:00", "0000-01-01T00:00:00Z", "", "1970", True, None, [],
    ],
)  # fmt: skip
def test_what_is_no_time_is_not_read(text: Any) -> None:
    assert read_timestamp(text) is None


# — references —


@pytest.mark.parametrize(
    ("text", "literal", "names"),
    [
        ("email", False, ("email",)),
        ("a/b", False, ("a/b",)),
        ("a~2", False, ("a~2",)),
        ("/email", False, ("email",)),
        ("/address/city", False, ("address", "city")),
        ("/a~1b/m~0n", False, ("a/b", "m~n")),
        ("/~01", False, ("~1",)),
        ("/address/city", True, ("/address/city",)),
        ("/", True, ("/",)),
        ("", False, None),
        ("", True, None),
        ("/", False, None),
        ("//", False, None),
        ("/a//b", False, None),
        ("/a/", False, None),
        ("/a~2", False, None),
        ("/a~", False, None),
    ],
)
def test_a_reference_is_a_name_or_a_path(text: str, literal: bool, names: tuple[str, ...] | None) -> None:
    assert read_reference(text, literal=literal) == names


def test_a_path_leads_through_objects_and_through_nothing_else() -> None:
    (part,) = parse_context(
        {"kind": "user", "key": "dana", "a": {"b": {"c": 1}}, "list": [{"b": 1}]}
    ).parts.values()
    assert look_up(("a", "b", "c"), part) == 1
    assert look_up(("a", "b"), part) == {"c": 1}
    for path in (("a", "x"), ("a", "b", "c", "d"), ("list", "0"), ("list", "b"), ("key", "length"), ("x",)):
        assert look_up(path, part) is None
