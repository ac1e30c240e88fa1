"""The rate limit of LaunchDarkly's REST API, as its answers tell it."""

from email.utils import formatdate

import pytest

from controller.providers.launchdarkly.budget import Budget

UNIX = 1_800_000_000.0
ROUTE = "GET flags"


class Time:
    """Monotonic seconds, and Unix time that runs beside it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def unix(self) -> float:
        return UNIX + self.now - 1000.0


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def budget(time: Time) -> Budget:
    return Budget(clock=lambda: time.now, now=time.unix, chance=lambda: 0.5, reserve=5, window_seconds=10.0)


def headers(*, left: int, route_left: int | None = None, ends_in: float = 8.0, **more: str) -> dict[str, str]:
    found = {"X-Ratelimit-Global-Remaining": str(left), "X-Ratelimit-Reset": str(int((UNIX + ends_in) * 1000))}
    if route_left is not None:
        found["X-Ratelimit-Route-Remaining"] = str(route_left)
    return found | more


def test_nothing_waits_before_anything_was_heard(budget: Budget) -> None:
    assert [budget.wait(one, ROUTE) for one in ("read", "raise", "lower", "kill")] == [0, 0, 0, 0]


def test_reads_and_raises_stop_at_the_reserve_and_kills_go_on(budget: Budget, time: Time) -> None:
    budget.heard(ROUTE, 200, headers(left=5))
    assert budget.wait("read", ROUTE) == 0
    budget.heard(ROUTE, 200, headers(left=4))
    assert budget.wait("read", ROUTE) == budget.wait("raise", "PATCH flags") == pytest.approx(8.0)
    assert budget.wait("kill", "PATCH flags") == 0
    time.now += 8.1
    assert budget.wait("read", ROUTE) == 0, "the window is over"


def test_what_is_left_of_one_route_is_no_other_routes_business(budget: Budget) -> None:
    budget.heard(ROUTE, 200, headers(left=100, route_left=0))
    assert budget.wait("read", ROUTE) > 0
    assert budget.wait("raise", "PATCH flags") == 0


def test_a_refusal_with_headers_is_waited_out_with_a_spread(budget: Budget, time: Time) -> None:
    budget.heard(ROUTE, 429, headers(left=0, ends_in=3.0))
    assert budget.wait("read", ROUTE) == pytest.approx(3.5)
    time.now += 3.6
    assert budget.wait("read", ROUTE) == 0


def test_a_refusal_without_headers_lasts_a_window(budget: Budget) -> None:
    budget.heard(ROUTE, 429, {})
    assert budget.wait("raise", ROUTE) == pytest.approx(10.5)


def test_a_window_that_ended_before_it_was_told_is_waited_for_a_second(budget: Budget) -> None:
    budget.heard(ROUTE, 429, headers(left=0, ends_in=-30.0))
    assert budget.wait("read", ROUTE) == pytest.approx(1.5)


def test_no_header_makes_anybody_wait_for_more_than_a_minute(budget: Budget) -> None:
    budget.heard(ROUTE, 429, headers(left=0, ends_in=86_400.0))
    assert budget.wait("read", ROUTE) == pytest.approx(60.5)
    budget.heard(ROUTE, 429, {"Retry-After": "7200"})
    assert budget.wait("read", ROUTE) == pytest.approx(60.5)


def test_the_window_ends_on_the_clock_of_launchdarkly(budget: Budget) -> None:
    """Ours is an hour behind."""
    theirs = UNIX + 3600
    told = headers(left=0, ends_in=3605.0, Date=formatdate(theirs, usegmt=True))
    budget.heard(ROUTE, 429, told)
    assert budget.wait("read", ROUTE) == pytest.approx(5.5)


def test_headers_that_are_no_numbers_are_as_if_they_were_not_there(budget: Budget) -> None:
    budget.heard(ROUTE, 429, {"X-Ratelimit-Reset": "soon", "X-Ratelimit-Global-Remaining": "", "Date": "today"})
    assert budget.wait("read", ROUTE) == pytest.approx(10.5)


def test_while_nothing_is_taken_one_kill_a_second_finds_out_whether_it_is_again(
    budget: Budget, time: Time
) -> None:
    budget.heard(ROUTE, 429, {})
    assert budget.wait("kill", ROUTE) == pytest.approx(1.0)
    time.now += 1.01
    assert budget.wait("kill", ROUTE) == 0
    assert budget.wait("kill", ROUTE) == pytest.approx(1.0), "the next one waits for it"
    budget.heard(ROUTE, 200, headers(left=50))
    assert budget.wait("kill", ROUTE) == 0
    assert budget.wait("read", ROUTE) == 0, "an answer ends the pause for everybody"
