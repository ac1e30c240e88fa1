"""The quantile of a classic histogram, by the rules of PromQL's `histogram_quantile`."""

import math
from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate


def quantile(q: float, buckets: Iterable[tuple[float, float]]) -> float:
    """`buckets` are (upper bound, cumulative count) in any order; equal bounds are added up.

    NaN without a +Inf bucket, without a finite one, without observations, or when a count is NaN. Within a
    bucket the observations are taken to be evenly spread, from 0 in the lowest bucket if its bound is positive.
    A quantile in the +Inf bucket is the highest finite bound. Counts that fall towards higher bounds are lifted
    to the highest before.
    """
    if math.isnan(q):
        return math.nan
    if not 0 <= q <= 1:
        return math.copysign(math.inf, q)
    bounds, counts = _cumulative(buckets)
    if len(bounds) < 2 or bounds[-1] != math.inf or counts[-1] == 0 or any(map(math.isnan, counts)):
        return math.nan
    rank = q * counts[-1]
    index = bisect_left(counts, rank, 0, len(counts) - 1)
    if index == len(bounds) - 1:
        return bounds[-2]
    if index == 0 and bounds[0] <= 0:
        return bounds[0]
    start, below = (bounds[index - 1], counts[index - 1]) if index else (0.0, 0.0)
    within = counts[index] - below
    # Only a rank of 0 in an empty lowest bucket divides by zero; IEEE arithmetic says NaN.
    return start + (bounds[index] - start) * ((rank - below) / within) if within else math.nan


def total(buckets: Iterable[tuple[float, float]]) -> float | None:
    """Observations in all buckets: the count of the +Inf one; None when there is none."""
    counts = [count for bound, count in buckets if bound == math.inf]
    return sum(counts) if counts else None


def bound(le: str) -> float | None:
    """The upper bound an `le` label means; None when it means none."""
    try:
        value = float(le)
    except ValueError:
        return None
    return None if math.isnan(value) else value


def _cumulative(buckets: Iterable[tuple[float, float]]) -> tuple[list[float], list[float]]:
    merged: dict[float, float] = {}
    for upper, count in buckets:
        merged[upper] = merged.get(upper, 0.0) + count
    bounds = sorted(merged)
    return bounds, list(accumulate((merged[upper] for upper in bounds), _higher))


def _higher(one: float, other: float) -> float:
    # max() would drop a NaN or keep it by its position; here it stays.
    return one + other if math.isnan(one) or math.isnan(other) else max(one, other)
