"""The little pictures: what is drawn is what was measured."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from controller.recent import Point
from controller.web.curves import HEIGHT, WIDTH, curve
from tests.support.statuses import NOW, make_rule

RULE = make_rule("errors-high", value=0.03, limit=0.01, unit="ratio", outcome="breach")


def points(*values: float | None, limit: float | None = 0.01) -> list[Point]:
    return [
        Point(NOW + timedelta(seconds=15 * n), value, limit, value is not None and value > 0.01)
        for n, value in enumerate(values)
    ]


def test_too_few_values_are_no_curve() -> None:
    assert curve(RULE, points()) is None
    assert curve(RULE, points(0.1, None)) is None


def test_what_broke_the_rule_is_shaded_as_long_as_it_did() -> None:
    drawn = curve(RULE, points(0.0, 0.0, 0.02, 0.03, 0.0))
    assert drawn is not None
    ((x, width),) = drawn.breaches
    assert 0.4 < x / WIDTH < 0.6
    assert 0.4 < width / WIDTH < 0.6


def test_a_missing_value_is_a_gap_and_no_zero() -> None:
    drawn = curve(RULE, points(0.02, 0.02, None, 0.02, 0.02))
    assert drawn is not None
    assert len(drawn.lines) == 2


def test_without_a_limit_none_is_drawn() -> None:
    drawn = curve(RULE, points(0.1, 0.2, limit=None))
    assert drawn is not None
    assert drawn.limit_y is None


@given(st.lists(st.none() | st.floats(-1e9, 1e9), max_size=130), st.none() | st.floats(-1e9, 1e9))
def test_nothing_is_drawn_beside_the_picture(values: list[float | None], limit: float | None) -> None:
    drawn = curve(RULE, points(*values, limit=limit))
    if drawn is None:
        return
    for line in drawn.lines:
        for point in line.split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= WIDTH
            assert 0 <= y <= HEIGHT
