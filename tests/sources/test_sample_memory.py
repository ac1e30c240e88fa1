"""What the scrape source remembers, and how much a counter grew by it."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.sources.extrapolation import Stretch, increase
from controller.sources.sample_memory import Identity, SampleMemory

X: Identity = ("x", ())
# One scrape a second; None is a scrape the series was missing from.
HISTORIES = st.lists(st.one_of(st.none(), st.integers(0, 20).map(float)), min_size=1, max_size=40)


def remembered(values: list[float | None], retention_seconds: float = 1000.0) -> SampleMemory:
    memory = SampleMemory("shop:80", every_seconds=1.0, retention_seconds=retention_seconds)
    for second, value in enumerate(values):
        memory.record(float(second), [(("other", ()), 1.0), *([] if value is None else [(X, value)])], room=10)
    return memory


def grown(memory: SampleMemory, start: float, end: float) -> float | None:
    stretch = memory.stretch(memory.series("x")[0], start, end) if memory.series("x") else None
    return None if stretch is None else increase(stretch, start, end)


def by_the_book(values: list[float | None], start: float, end: float) -> float | None:
    """The rule of PromQL's `increase`, read off the plain samples."""
    samples = [(float(at), value) for at, value in enumerate(values) if value is not None and start < at <= end]
    if len(samples) < 2:
        return None
    growth = samples[-1][1] - samples[0][1]
    for (_, earlier), (_, later) in pairwise(samples):
        growth += earlier if later < earlier else 0.0
    sampled = samples[-1][0] - samples[0][0]
    usual = sampled / (len(samples) - 1)
    lead, tail = samples[0][0] - start, end - samples[-1][0]
    lead = usual / 2 if lead >= 1.1 * usual else lead
    tail = usual / 2 if tail >= 1.1 * usual else tail
    if growth > 0:
        lead = min(lead, sampled * samples[0][1] / growth)
    return growth * (sampled + lead + tail) / sampled


@given(values=HISTORIES, window=st.integers(1, 45), late=st.floats(0, 3))
def test_resets_gaps_and_edges_count_as_in_promql(values: list[float | None], window: int, late: float) -> None:
    end = len(values) - 1 + late
    expected = by_the_book(values, end - window, end)
    assert grown(remembered(values), end - window, end) == (expected and pytest.approx(expected))


@given(values=HISTORIES, retention=st.integers(1, 20))
def test_forgetting_changes_no_answer_within_the_retention(values: list[float | None], retention: int) -> None:
    end = float(len(values) - 1)
    memory = remembered(values, retention_seconds=float(retention))
    expected = by_the_book(values, end - retention, end)
    assert grown(memory, end - retention, end) == (expected and pytest.approx(expected))


def test_memory_is_bounded_by_the_retention() -> None:
    memory = remembered([float(value % 7) for value in range(5000)], retention_seconds=50)
    series = memory.series("x")[0]
    assert sum(len(run.values) for run in series.runs) <= 60
    assert len(series.resets) <= 60


def test_a_series_not_seen_for_the_whole_retention_is_forgotten() -> None:
    memory = remembered([1.0] + [None] * 30, retention_seconds=10)
    assert not memory.series("x")
    assert memory.series_count == 1


@pytest.mark.parametrize(
    ("stretch", "expected"),
    [
        # Ten seconds of samples reach to both edges of the window: the growth itself, extended to 12 s.
        (Stretch(first_at=1, last_at=11, count=11, first_value=100, growth=50), 60.0),
        # The first sample is far from the window's start: half an interval more, not all of it.
        (Stretch(first_at=6, last_at=12, count=7, first_value=100, growth=60), 65.0),
        # The counter began at 0 a tenth of a second before its first sample: no growth before that.
        (Stretch(first_at=6, last_at=12, count=7, first_value=1, growth=60), 61.0),
        (Stretch(first_at=1, last_at=11, count=11, first_value=0, growth=0), 0.0),
        (Stretch(first_at=5, last_at=5, count=1, first_value=3, growth=0), None),
    ],
)
def test_known_extrapolations(stretch: Stretch, expected: float | None) -> None:
    assert increase(stretch, 0, 12) == (expected and pytest.approx(expected))


def test_a_value_that_is_not_a_number_spoils_only_what_touches_it() -> None:
    assert math.isnan(grown(remembered([1.0, 2.0, math.nan]), -1, 2) or 0)
    assert grown(remembered([1.0, math.nan, 3.0]), -0.5, 2) == pytest.approx(2.5)


def test_a_series_missing_from_a_scrape_is_stale_at_once_and_fresh_when_it_is_back() -> None:
    assert newest(remembered([1.0, 2.0])) == 1.0
    assert newest(remembered([1.0, 2.0, None])) is None
    assert newest(remembered([1.0, None, 2.0])) == 2.0


def test_a_failed_scrape_makes_every_series_stale() -> None:
    memory = remembered([1.0, 2.0])
    memory.record_failure()
    assert newest(memory) is None
    assert grown(memory, -1, 1) is not None


def newest(memory: SampleMemory) -> float | None:
    return memory.newest_sample_at(memory.series("x")[0])


def test_coverage_is_the_time_between_scrapes_that_are_close_enough() -> None:
    memory = SampleMemory("shop:80", every_seconds=1.0, retention_seconds=100)
    for at in (0.0, 1.0, 2.0, 8.0, 9.0):
        memory.record(at, [], room=0)
    assert memory.covered_seconds(-10, 10, 2.5) == 4.0
    assert memory.covered_seconds(0.5, 9.5, 2.5) == pytest.approx(1.5 + 1.5)
    assert memory.covered_seconds(-10, 10, 6.0) == 10.0
    assert memory.covered_seconds(9.2, 9.7, 2.5) == pytest.approx(0.5)
    assert memory.covered_seconds(20, 30, 2.5) == 0.0


def test_series_beyond_the_limit_are_refused_by_name_and_known_ones_go_on() -> None:
    memory = remembered([1.0])
    memory.record(1.0, [(X, 2.0), (("new", ()), 1.0), (("newer", ()), 1.0)], room=1)
    assert memory.refused == {"newer"}
    assert memory.series_count == 3
    assert newest(memory) == 1.0


def test_a_target_s_own_instance_label_is_kept_under_another_name() -> None:
    memory = SampleMemory("shop:80", every_seconds=1.0, retention_seconds=10)
    memory.record(0.0, [(("x", (("instance", "inner"),)), 1.0)], room=1)
    assert memory.series("x")[0].labels == {"instance": "shop:80", "exported_instance": "inner"}
