"""What is left of a tick that raised: nothing is counted, everything is told, and it is tried ever less."""

from datetime import timedelta

import pytest

from controller.domain.flag import FlagState
from controller.domain.quarantine import quarantined
from controller.domain.rollout import Observations, Timer
from tests.support.rollouts import NOW, make_plan, make_run

RUN = make_run(make_plan())


def failures(times: int, *, every_seconds: float = 15.0) -> tuple[Observations, float]:
    observations, put_off = Observations(), 0.0
    for number in range(times):
        at = NOW + timedelta(hours=number)
        observations, put_off = quarantined(
            RUN, observations, "ValueError: no such metric", now=at, every_seconds=every_seconds
        )
    return observations, put_off


@pytest.mark.parametrize(("times", "seconds"), [(1, 15), (2, 30), (3, 60), (6, 480), (7, 600), (2000, 600)])
def test_it_is_tried_after_a_poll_and_then_ever_less_up_to_ten_minutes(times: int, seconds: float) -> None:
    observations, put_off = failures(times)
    assert put_off == seconds
    assert observations.quarantine is not None
    assert observations.quarantine.failures == times
    assert observations.quarantine.since == NOW


def test_even_a_run_that_is_seldom_looked_at_is_tried_every_ten_minutes() -> None:
    assert failures(1, every_seconds=900.0)[1] == 600


def test_the_reason_tells_since_when_what_failed_and_that_kill_rules_are_not_judged() -> None:
    observations, put_off = failures(1)
    assert observations.seen is not None
    (block,) = observations.seen.blocks
    assert block.code == "quarantine"
    assert block.clears_at == NOW + timedelta(seconds=put_off)
    assert block.text == (
        f"quarantined since {NOW:%Y-%m-%d %H:%M:%S} UTC: ValueError: no such metric. Nothing of it is judged, "
        f"kill rules neither: watch the flag yourself, `rampart kill {RUN.plan}` works. The server's log has the "
        "details (tick_failed); it goes on by itself once a tick succeeds"
    )


def test_what_was_accumulated_stays_and_what_was_seen_before_is_shown_no_longer() -> None:
    before = Observations(bake=120.0, requests=400.0, breached={"web/errors": Timer(30.0, running=True)})
    state = FlagState(enabled=True, exposure=1_000)
    after, _ = quarantined(RUN, before, "KeyError: 'p95'", now=NOW, every_seconds=15.0, flag=state)
    assert (after.bake, after.requests, after.breached) == (before.bake, before.requests, before.breached)
    assert after.seen is not None
    assert (after.seen.at, after.seen.flag, after.seen.verdicts) == (NOW, state, ())


def test_a_long_reason_is_one_line_of_bounded_length() -> None:
    after, _ = quarantined(RUN, Observations(), "ValueError: a\n\nb" + "c" * 5_000, now=NOW, every_seconds=15.0)
    assert after.quarantine is not None
    assert after.quarantine.why.startswith("ValueError: a bc")
    assert len(after.quarantine.why) == 300
