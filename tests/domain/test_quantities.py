"""Exposure, durations and limits as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.quantities import duration_text, exposure, exposure_text, seconds


@pytest.mark.parametrize(
    ("text", "thousandths"), [("0.1%", 100), ("0.5 %", 500), ("1%", 1000), ("12.345%", 12345), ("100%", 100_000)]
)
def test_an_exposure_is_an_exact_integer(text: str, thousandths: int) -> None:
    assert exposure(text) == thousandths


@pytest.mark.parametrize("text", ["1", "%", "-1%", "101%", "0.0001%", "1e1%", ".5%", "nan%"])
def test_what_is_no_exposure_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"exposure|more than"):
        exposure(text)


@given(st.integers(0, 100_000))
def test_an_exposure_survives_being_written_and_read(thousandths: int) -> None:
    assert exposure(exposure_text(thousandths)) == thousandths


@pytest.mark.parametrize(("text", "expected"), [("250ms", 0.25), ("30s", 30), ("1h30m", 5400), ("2d", 172_800)])
def test_durations_add_their_parts(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["5", "m", "5 m", "-5m", "5m later", ""])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        seconds(text)


@pytest.mark.parametrize(
    ("given_seconds", "text"), [(0.25, "250ms"), (42, "42s"), (5400, "1h 30m"), (90061, "1d 1h"), (59.7, "1m")]
)
def test_durations_are_shown_in_two_parts_at_most(given_seconds: float, text: str) -> None:
    assert duration_text(given_seconds) == text


@pytest.mark.parametrize(
    ("thousandths", "text"),
    [(0, "0 %"), (1, "0.001 %"), (500, "0.5 %"), (1_000, "1 %"), (10_000, "10 %"), (100_000, "100 %")],
)
def test_an_exposure_is_shown_without_idle_zeros(thousandths: int, text: str) -> None:
    assert exposure_text(thousandths) == text


def test_what_is_refused_is_named_with_what_to_write() -> None:
    with pytest.raises(ValueError, match=r'^"5 m" is not a duration; write 30s, 5m, 2h or 1d$'):
        seconds("5 m")
    with pytest.raises(ValueError, match=r'^"half" is not an exposure; write 1%, 0\.5% or 100%$'):
        exposure("half")
    with pytest.raises(ValueError, match=r'^"100\.001%" is more than 100%$'):
        exposure("100.001%")


@pytest.mark.parametrize(
    ("given_seconds", "text"),
    [
        (0.0, "0ms"),
        (0.9994, "999ms"),
        (1.0, "1s"),
        (60.0, "1m"),
        (3600.0, "1h"),
        (86_400.0, "1d"),
        (86_399.0, "23h 59m"),
        (3601.0, "1h 1s"),
    ],
)
def test_each_unit_of_time_begins_where_the_smaller_one_is_full(given_seconds: float, text: str) -> None:
    assert duration_text(given_seconds) == text
