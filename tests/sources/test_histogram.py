"""The quantile is the one Prometheus computes."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from controller.sources.histogram import bound, quantile, total

INF = math.inf
CLASSIC = [(0.1, 10.0), (0.2, 30.0), (0.5, 90.0), (INF, 100.0)]
COUNTS = st.lists(st.integers(0, 1000), min_size=2, max_size=8)


@pytest.mark.parametrize(
    ("q", "expected"),
    [
        (0.05, 0.05),
        (0.1, 0.1),
        (0.2, 0.15),
        (0.6, 0.35),
        (0.9, 0.5),
        (0.95, 0.5),
        (1.0, 0.5),
        (0.0, 0.0),
        (-0.1, -INF),
        (1.1, INF),
    ],
)
def test_known_quantiles(q: float, expected: float) -> None:
    assert quantile(q, CLASSIC) == pytest.approx(expected)


@pytest.mark.parametrize(
    "buckets",
    [
        [],
        [(INF, 5.0)],
        [(0.1, 1.0), (0.2, 2.0)],
        [(0.1, 0.0), (INF, 0.0)],
        [(0.1, 1.0), (INF, math.nan)],
        [(0.1, math.nan), (INF, 3.0)],
    ],
)
def test_a_histogram_that_cannot_tell_gives_no_number(buckets: list[tuple[float, float]]) -> None:
    assert math.isnan(quantile(0.5, buckets))


def test_a_quantile_that_is_not_a_number_gives_none() -> None:
    assert math.isnan(quantile(math.nan, CLASSIC))


def test_a_lowest_bucket_at_or_below_zero_is_its_own_bound() -> None:
    assert quantile(0.1, [(-1.0, 50.0), (1.0, 100.0), (INF, 100.0)]) == -1.0
    assert quantile(0.75, [(-1.0, 50.0), (1.0, 100.0), (INF, 100.0)]) == 0.0


def test_counts_that_fall_are_lifted() -> None:
    falling = [(0.1, 10.0), (0.2, 8.0), (0.5, 90.0), (INF, 89.0)]
    lifted = [(0.1, 10.0), (0.2, 10.0), (0.5, 90.0), (INF, 90.0)]
    assert quantile(0.5, falling) == quantile(0.5, lifted)


def test_the_same_bound_written_twice_is_one_bucket() -> None:
    assert quantile(0.5, [(0.5, 10.0), (0.5, 30.0), (INF, 80.0)]) == quantile(0.5, [(0.5, 40.0), (INF, 80.0)])


@given(counts=COUNTS, low=st.floats(0.01, 0.99), high=st.floats(0.01, 0.99))
def test_a_higher_quantile_is_never_lower(counts: list[int], low: float, high: float) -> None:
    buckets = cumulative(counts)
    assume(buckets[-1][1] > 0)
    low, high = sorted((low, high))
    assert quantile(low, buckets) <= quantile(high, buckets) + 1e-12


@given(counts=COUNTS, q=st.floats(0.01, 0.99), data=st.data())
def test_the_order_of_buckets_does_not_matter_and_the_answer_is_within_the_bounds(
    counts: list[int], q: float, data: st.DataObject
) -> None:
    buckets = cumulative(counts)
    assume(buckets[-1][1] > 0)
    value = quantile(q, data.draw(st.permutations(buckets)))
    assert value == quantile(q, buckets)
    assert 0 <= value <= buckets[-2][0]
    below = sum(1 for upper, _ in buckets if upper < value)
    assert buckets[below][1] >= q * buckets[-1][1] - 1e-6 or value == buckets[-2][0]


def cumulative(counts: list[int]) -> list[tuple[float, float]]:
    bounds = [*(float(number + 1) for number in range(len(counts) - 1)), INF]
    return [(upper, float(sum(counts[: rank + 1]))) for rank, upper in enumerate(bounds)]


def test_the_total_is_the_infinite_bucket() -> None:
    assert total(CLASSIC) == 100.0
    assert total([(0.1, 5.0)]) is None


def test_le_labels_are_read_as_numbers() -> None:
    assert [bound(le) for le in ("+Inf", "0.5", "1e3", "NaN", "much")] == [INF, 0.5, 1000.0, None, None]
