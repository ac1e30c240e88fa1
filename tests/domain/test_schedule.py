"""Windows and freezes, in the plan's own zone."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.plan import AllowedWindow, Freeze, Schedule
from controller.domain.schedule import Closed, closed, days_of

BERLIN = ZoneInfo("Europe/Berlin")
OFFICE = AllowedWindow(days="mon-thu", from_="09:00", to="16:00")
BLACK_FRIDAY = Freeze(name="black-friday", from_="2026-11-26T00:00", to="2026-12-01T08:00")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN).astimezone(UTC)


def schedule(*, windows: list[AllowedWindow] | None = None, freezes: list[Freeze] | None = None) -> Schedule:
    return Schedule(timezone="Europe/Berlin", advance_only=windows or [], freezes=freezes or [])


def test_no_schedule_is_always_open() -> None:
    assert closed(Schedule(), at("2026-11-27T03:00")) is None


def test_exposure_may_rise_within_the_window_only() -> None:
    office = schedule(windows=[OFFICE])
    assert closed(office, at("2026-11-19T09:00")) is None  # a Thursday
    assert closed(office, at("2026-11-19T16:00")) is not None
    assert closed(office, at("2026-11-20T10:00")) is not None  # a Friday


def test_a_closed_schedule_says_when_it_opens() -> None:
    shut = closed(schedule(windows=[OFFICE]), at("2026-11-20T10:00"))
    assert shut is not None
    assert shut.opens_at == at("2026-11-23T09:00")
    assert "mon-thu 09:00-16:00 Europe/Berlin" in shut.why


def test_a_freeze_closes_an_open_window_and_names_itself() -> None:
    shut = closed(schedule(windows=[OFFICE], freezes=[BLACK_FRIDAY]), at("2026-11-26T10:00"))
    assert shut is not None
    assert "black-friday" in shut.why
    assert shut.opens_at == at("2026-12-01T09:00"), "the freeze ends at 08:00, an hour before the window"


def test_a_window_over_midnight_belongs_to_the_day_it_starts_on() -> None:
    night = schedule(windows=[AllowedWindow(days="fri", from_="22:00", to="02:00")])
    assert closed(night, at("2026-11-20T23:00")) is None
    assert closed(night, at("2026-11-21T01:59")) is None
    assert closed(night, at("2026-11-22T01:00")) is not None


def test_day_ranges_wrap_around_the_week() -> None:
    assert days_of(AllowedWindow(days="fri-mon", from_="00:00", to="24:00")) == {4, 5, 6, 0}
    assert days_of(AllowedWindow(days="mon,wed", from_="00:00", to="24:00")) == {0, 2}


def test_nine_o_clock_stays_nine_o_clock_across_a_clock_change() -> None:
    sundays = schedule(windows=[AllowedWindow(days="sun", from_="09:00", to="10:00")])
    winter = datetime(2026, 10, 25, 8, 30, tzinfo=UTC)  # clocks went back that night: 09:30 is UTC+1
    assert closed(sundays, winter) is None
    summer = datetime(2026, 10, 18, 7, 30, tzinfo=UTC)
    assert closed(sundays, summer) is None


def test_a_freeze_that_never_ends_within_a_year_promises_no_opening() -> None:
    forever = Freeze(name="forever", from_="2026-01-01", to="2999-01-01")
    shut = closed(schedule(windows=[OFFICE], freezes=[forever]), at("2026-11-20T10:00"))
    assert shut is not None
    assert shut.opens_at is None


@given(st.datetimes(min_value=datetime(2026, 1, 1), max_value=datetime(2027, 12, 31), timezones=st.just(UTC)))  # noqa: DTZ001
def test_the_promised_opening_is_open_and_nothing_before_it_is(now: datetime) -> None:
    both = schedule(windows=[OFFICE], freezes=[BLACK_FRIDAY])
    shut = closed(both, now)
    if shut is None:
        return
    assert shut.opens_at is not None
    assert shut.opens_at > now
    assert closed(both, shut.opens_at) is None
    assert closed(both, shut.opens_at - timedelta(seconds=1)) is not None


def test_why_and_until_when_it_is_closed_is_told_in_full() -> None:
    night = AllowedWindow(days="fri,sun", from_="22:00", to="02:00")
    shut = closed(schedule(windows=[OFFICE, night]), at("2026-11-20T10:00"))
    assert shut == Closed(
        "outside the allowed hours (mon-thu 09:00-16:00; fri,sun 22:00-02:00 Europe/Berlin)",
        at("2026-11-20T22:00"),
    )
    frozen = closed(schedule(freezes=[BLACK_FRIDAY]), at("2026-11-26T10:00"))
    assert frozen == Closed("frozen: black-friday, until 2026-12-01 08:00 Europe/Berlin", at("2026-12-01T08:00"))


@pytest.mark.parametrize(
    ("moment", "is_open"),
    [
        ("2026-11-25T23:59", True),
        ("2026-11-26T00:00", False),
        ("2026-12-01T07:59", False),
        ("2026-12-01T08:00", True),
    ],
)
def test_a_freeze_begins_and_ends_on_the_minute(moment: str, is_open: bool) -> None:
    assert (closed(schedule(freezes=[BLACK_FRIDAY]), at(moment)) is None) == is_open


@pytest.mark.parametrize(
    ("moment", "is_open"),
    [
        ("2026-11-20T21:59", False),
        ("2026-11-20T22:00", True),
        ("2026-11-21T01:59", True),
        ("2026-11-21T02:00", False),
        ("2026-11-21T22:30", False),
        ("2026-11-20T01:00", False),
    ],
)
def test_a_window_over_midnight_begins_and_ends_on_the_minute(moment: str, is_open: bool) -> None:
    night = schedule(windows=[AllowedWindow(days="fri", from_="22:00", to="02:00")])
    assert (closed(night, at(moment)) is None) == is_open


def test_a_window_over_midnight_from_sunday_reaches_into_monday() -> None:
    night = schedule(windows=[AllowedWindow(days="sun", from_="22:00", to="02:00")])
    assert closed(night, at("2026-11-23T01:00")) is None
    assert closed(night, at("2026-11-24T01:00")) is not None


def test_a_window_as_long_as_a_day_is_open_all_day() -> None:
    whole = schedule(windows=[AllowedWindow(days="wed", from_="09:00", to="09:00")])
    assert closed(whole, at("2026-11-18T09:00")) is None
    assert closed(whole, at("2026-11-19T08:59")) is None
    assert closed(whole, at("2026-11-18T08:59")) is not None


def test_single_days_ranges_and_lists_may_be_mixed() -> None:
    assert days_of(AllowedWindow(days="tue", from_="00:00", to="24:00")) == {1}
    assert days_of(AllowedWindow(days="sat-sun,wed", from_="00:00", to="24:00")) == {5, 6, 2}
    assert days_of(AllowedWindow(days="mon-sun", from_="00:00", to="24:00")) == set(range(7))


def test_of_two_freezes_the_opening_is_after_the_one_that_ends_last() -> None:
    longer = Freeze(name="audit", from_="2026-11-30T00:00", to="2026-12-03T12:00")
    shut = closed(schedule(freezes=[longer, BLACK_FRIDAY]), at("2026-11-26T10:00"))
    assert shut is not None
    assert shut.opens_at == at("2026-12-03T12:00")
    later = Freeze(name="new-year", from_="2026-12-30", to="2027-01-02")
    shut = closed(schedule(freezes=[later, BLACK_FRIDAY]), at("2026-11-26T10:00"))
    assert shut is not None
    assert shut.opens_at == at("2026-12-01T08:00")


def test_the_opening_may_be_the_end_of_a_freeze_within_a_window_and_later_today() -> None:
    short = Freeze(name="deploy", from_="2026-11-18T10:00", to="2026-11-18T11:30")
    shut = closed(schedule(windows=[OFFICE], freezes=[short]), at("2026-11-18T10:30"))
    assert shut is not None
    assert shut.opens_at == at("2026-11-18T11:30")
    early = closed(schedule(windows=[OFFICE]), at("2026-11-18T08:00"))
    assert early is not None
    assert early.opens_at == at("2026-11-18T09:00")


def test_of_several_windows_the_next_one_is_promised_whatever_their_order() -> None:
    late = AllowedWindow(days="wed", from_="20:00", to="21:00")
    early = AllowedWindow(days="wed", from_="18:00", to="19:00")
    shut = closed(schedule(windows=[late, early]), at("2026-11-18T17:00"))
    assert shut is not None
    assert shut.opens_at == at("2026-11-18T18:00")


def test_a_window_that_would_begin_at_the_end_of_the_day_never_opens_by_itself() -> None:
    nothing = AllowedWindow(days="wed", from_="24:00", to="02:00")
    shut = closed(schedule(windows=[nothing, OFFICE]), at("2026-11-18T17:00"))
    assert shut is not None
    assert shut.opens_at == at("2026-11-19T09:00")


def test_an_opening_is_looked_for_more_than_a_year_ahead_and_not_for_ever() -> None:
    once = AllowedWindow(days="wed", from_="09:00", to="10:00")
    year = Freeze(name="year", from_="2026-01-01", to="2027-12-20")
    shut = closed(schedule(windows=[once], freezes=[year]), at("2026-11-18T12:00"))
    assert shut is not None
    assert shut.opens_at == at("2027-12-22T09:00"), "399 days ahead"
    longer = Freeze(name="longer", from_="2026-01-01", to="2027-12-23")
    assert closed(schedule(windows=[once], freezes=[longer]), at("2026-11-18T12:00")) == Closed(
        "frozen: longer, until 2027-12-23 Europe/Berlin", None
    )


def test_an_hour_that_spring_skips_means_the_instant_the_clock_jumped_to() -> None:
    skipped = schedule(windows=[AllowedWindow(days="sun", from_="02:30", to="04:00")])
    shut = closed(skipped, datetime(2027, 3, 28, 0, 0, tzinfo=UTC))
    assert shut is not None
    assert shut.opens_at == datetime(2027, 3, 28, 1, 30, tzinfo=UTC)


def test_a_day_is_a_day_of_the_plans_zone_and_not_of_utc() -> None:
    evening = AllowedWindow(days="wed", from_="21:00", to="22:00")
    new_york = Schedule(timezone="America/New_York", advance_only=[evening])
    shut = closed(new_york, datetime(2026, 11, 19, 1, 0, tzinfo=UTC))  # Wednesday, 20:00 there
    assert shut is not None
    assert shut.opens_at == datetime(2026, 11, 19, 2, 0, tzinfo=UTC)
    night = AllowedWindow(days="mon-sun", from_="00:00", to="02:00")
    short = Freeze(name="deploy", from_="2026-11-18T00:05", to="2026-11-18T00:30")
    shut = closed(schedule(windows=[night], freezes=[short]), at("2026-11-18T00:10"))
    assert shut is not None
    assert shut.opens_at == at("2026-11-18T00:30")


def test_the_end_of_a_later_freeze_does_not_hide_a_window_before_it() -> None:
    later = Freeze(name="audit", from_="2026-11-24T10:00", to="2026-11-24T11:00")
    shut = closed(schedule(windows=[OFFICE], freezes=[later]), at("2026-11-18T17:00"))
    assert shut is not None
    assert shut.opens_at == at("2026-11-19T09:00")


def test_an_opening_is_told_in_utc() -> None:
    shut = closed(schedule(windows=[OFFICE]), at("2026-11-20T10:00"))
    assert shut is not None
    assert shut.opens_at is not None
    assert shut.opens_at.tzinfo is UTC
