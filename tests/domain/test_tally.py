"""What is kept of events: whom they happened to, their values, and that two counts make one."""

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.tally import (
    BUCKETS_PER_DOUBLING,
    EXACT_CONTEXTS,
    HIGHEST_BUCKET,
    LOWEST_BUCKET,
    OVERFLOW,
    Cell,
    Delivery,
    Sketch,
    Tally,
    bucket_of,
    contexts_of,
    cumulative,
    merged,
    packed,
    unpacked,
    upper_bound,
)

CELL = Cell("production", "checkout", "error", "on", "share", 10_000)
HASHES = st.integers(min_value=0, max_value=2**64 - 1)


def drawn(count: int, seed: int = 1) -> list[int]:
    chance = Random(seed)
    return [chance.getrandbits(64) for _ in range(count)]


@given(st.lists(HASHES, max_size=EXACT_CONTEXTS))
def test_up_to_a_number_contexts_are_counted_exactly_however_often_they_come(hashes: list[int]) -> None:
    assert Sketch([*hashes, *hashes]).estimate() == len(set(hashes))


@pytest.mark.parametrize("count", [EXACT_CONTEXTS, EXACT_CONTEXTS + 1, 2_000, 50_000, 200_000])
def test_more_contexts_are_estimated_within_a_few_percent(count: int) -> None:
    assert Sketch(drawn(count)).estimate() == pytest.approx(count, rel=4 / math.sqrt(EXACT_CONTEXTS - 1))


def test_estimates_err_as_much_as_is_said_and_to_both_sides() -> None:
    errors = [Sketch(drawn(5_000, seed)).estimate() / 5_000 - 1 for seed in range(200)]
    spread = math.sqrt(sum(error**2 for error in errors) / len(errors))
    assert spread == pytest.approx(1 / math.sqrt(EXACT_CONTEXTS - 2), rel=0.25)
    assert abs(sum(errors) / len(errors)) < 3 * spread / math.sqrt(len(errors))


def test_a_sketch_of_many_keeps_the_smallest_and_tells_their_number_by_how_far_they_reach() -> None:
    evenly = [2**64 // 4096 * number for number in range(4096)]
    sketch = Sketch(evenly)
    assert sketch.estimate() == 4096
    assert sorted(sketch) == evenly[: EXACT_CONTEXTS + 1]
    assert Sketch(evenly[:EXACT_CONTEXTS]).estimate() == EXACT_CONTEXTS


@given(st.lists(st.lists(HASHES, max_size=40), max_size=5), st.integers(0, 2**32))
def test_sketches_of_parts_make_the_sketch_of_the_whole(parts: list[list[int]], seed: int) -> None:
    many = drawn(3 * EXACT_CONTEXTS, seed)
    parts = [*parts, many[: 2 * EXACT_CONTEXTS], many[EXACT_CONTEXTS:]]
    whole = Sketch(one for part in parts for one in part)
    stored = Sketch(one for part in parts for one in unpacked(packed(Sketch(part))))
    assert stored.estimate() == whole.estimate()


def test_only_what_a_sketch_lacks_is_new_to_it() -> None:
    known = Sketch(drawn(10_000))
    assert len(Sketch(drawn(10_000)).new_to(known)) == 0
    assert set(Sketch([1, 2]).new_to(Sketch([2, 3]))) == {1}


@given(st.floats(min_value=upper_bound(LOWEST_BUCKET), max_value=upper_bound(HIGHEST_BUCKET)))
def test_a_value_is_in_the_bucket_whose_bounds_enclose_it(value: float) -> None:
    bucket = bucket_of(value)
    assert value <= upper_bound(bucket)
    assert bucket == LOWEST_BUCKET or value > upper_bound(bucket - 1)


@pytest.mark.parametrize("bucket", range(LOWEST_BUCKET, HIGHEST_BUCKET + 1, 7))
def test_a_bound_belongs_to_its_bucket(bucket: int) -> None:
    assert bucket_of(upper_bound(bucket)) == bucket


@pytest.mark.parametrize(
    ("value", "bucket"),
    [
        (0.0, LOWEST_BUCKET),
        (-3.0, LOWEST_BUCKET),
        (5e-324, LOWEST_BUCKET),
        (1.8e308, OVERFLOW),
        (math.inf, OVERFLOW),
    ],
)
def test_values_that_no_bucket_was_made_for_are_in_the_outermost(value: float, bucket: int) -> None:
    assert bucket_of(value) == bucket


def test_a_bucket_is_nine_percent_wide() -> None:
    assert upper_bound(8) / upper_bound(7) == pytest.approx(1.0905, abs=1e-4)
    assert upper_bound(BUCKETS_PER_DOUBLING) == 2.0


def test_a_histogram_says_where_each_bucket_begins() -> None:
    assert cumulative([(8, 3), (16, 1), (8, 2)]) == [
        (upper_bound(7), 0),
        (2.0, 5),
        (upper_bound(15), 5),
        (4.0, 6),
        (math.inf, 6),
    ]


def test_what_is_above_all_buckets_has_no_bound() -> None:
    assert upper_bound(OVERFLOW) == upper_bound(OVERFLOW + 1) == math.inf
    assert upper_bound(HIGHEST_BUCKET) == 2.0**40
    assert bucket_of(2.0**40) == HIGHEST_BUCKET
    assert cumulative([(LOWEST_BUCKET, 2)]) == [(upper_bound(LOWEST_BUCKET), 2), (math.inf, 2)]


def test_deliveries_add_up() -> None:
    one, other = Tally(), Tally()
    one.count, other.count = 2, 3
    one.buckets, other.buckets = {1: 1}, {1: 1, 4: 2}
    one.contexts.add(7)
    other.contexts.add_all([7, 8])
    total = merged([Delivery(b"1", {CELL: one}), Delivery(b"2", {CELL: other})])[CELL]
    assert (total.count, total.buckets, set(total.contexts)) == (5, {1: 2, 4: 2}, {7, 8})
    assert (one.count, one.buckets) == (2, {1: 1}), "what was added is still what it was"


def test_those_who_had_an_event_are_asked_for_apart_from_the_event() -> None:
    assert contexts_of("error") == "error:contexts"
    assert contexts_of("contexts") == "contexts"
