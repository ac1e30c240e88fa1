"""Which flags an order to kill several means."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controller.domain.plan import FlagRef
from controller.domain.selection import Raised, Selection

NOW = datetime(2026, 11, 21, 23, 0, tzinfo=UTC)
FLAG = FlagRef(provider="main", environment="production", key="checkout-v2")
LABELS = [{"tier": "1", "team": "checkout"}]
HALF_AN_HOUR_AGO = NOW - timedelta(minutes=30)


def raised(minutes_ago: float) -> Raised:
    at = NOW - timedelta(minutes=minutes_ago)
    return Raised(flag=FLAG, plan="checkout-v2", run="checkout-v2#1", action="advance", at=at)


@pytest.mark.parametrize(
    ("wanted", "minutes_ago", "selected"),
    [
        ({"labels": {"tier": "1"}}, None, True),
        ({"labels": {"tier": "1", "team": "search"}}, None, False),
        ({"raised_since": HALF_AN_HOUR_AGO}, 29, True),
        ({"raised_since": HALF_AN_HOUR_AGO}, 30, True),
        ({"raised_since": HALF_AN_HOUR_AGO}, 31, False),
        ({"raised_since": HALF_AN_HOUR_AGO}, None, False),
        ({"raised_since": HALF_AN_HOUR_AGO, "labels": {"tier": "2"}}, 1, False),
        ({"raised_since": HALF_AN_HOUR_AGO, "labels": {"tier": "1"}}, 1, True),
        ({"labels": {"tier": "1"}, "environment": "staging"}, None, False),
        ({"labels": {"tier": "1"}, "environment": "production", "provider": "main"}, None, True),
        ({"labels": {"tier": "1"}, "provider": "ld"}, None, False),
    ],
)
def test_all_that_is_given_must_fit(wanted: dict[str, Any], minutes_ago: float | None, selected: bool) -> None:
    rose = raised(minutes_ago) if minutes_ago is not None else None
    assert Selection(**wanted).selects(FLAG, LABELS, rose) is selected


def test_nothing_given_selects_nothing() -> None:
    assert not Selection().selects(FLAG, LABELS, raised(0))
    assert not Selection(environment="production").selects(FLAG, LABELS, raised(0))


def test_one_fitting_plan_of_a_flag_is_enough() -> None:
    assert Selection(labels={"tier": "2"}).selects(FLAG, [*LABELS, {"tier": "2"}], None)
