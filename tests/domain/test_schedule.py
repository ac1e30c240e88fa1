"""Windows and freezes, in the plan's own zone."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from controller.domain.plan import AllowedWindow, Freeze, Schedule
from controller.domain.schedule import closed, days_of

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
