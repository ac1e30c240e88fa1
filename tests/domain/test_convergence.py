"""Desired against observed (I3, I8, I9, I10): the lower wins, unknown never raises."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.convergence import Convergence, converge
from controller.domain.flag import FlagState, Observation, Unknown
from controller.domain.rollout import Run
from tests.support.rollouts import make_plan, make_run, shown

PLAN = make_plan()


def compared(run: Run, observed: Observation, *, since: float = 60.0) -> Convergence:
    return converge(run, PLAN, observed, seconds_since_apply=since, settle_seconds=5.0)


def raising(**changes: Any) -> Run:
    """10 % committed, 1 % confirmed, not read back yet."""
    values: dict[str, Any] = {"confirmed_at": None, "confirmed_exposure": 1_000}
    return make_run(PLAN, stage=1, **(values | changes))


def test_exactly_what_was_committed_is_no_difference() -> None:
    run = make_run(PLAN, stage=1)
    assert compared(run, shown(run, PLAN)).difference == "none"


def test_unknown_is_not_off() -> None:
    assert compared(make_run(PLAN, stage=1), Unknown("timeout")).difference == "unread"


def test_the_state_before_the_change_settles_first_and_is_then_applied_again() -> None:
    run = raising()
    before = shown(run, PLAN, exposure=1_000)
    assert compared(run, before, since=1.0).difference == "settling"
    assert compared(run, before, since=5.0).difference == "apply_again"


def test_a_paused_run_is_never_raised_by_applying_again() -> None:
    run = raising(phase="paused")
    found = compared(run, shown(run, PLAN, exposure=1_000), since=60.0)
    assert (found.difference, found.exposure) == ("too_low", 1_000)


def test_a_lowering_is_applied_again_also_while_paused() -> None:
    run = make_run(PLAN, stage=0, phase="paused", confirmed_at=None, confirmed_exposure=10_000)
    assert compared(run, shown(run, PLAN, exposure=10_000)).difference == "apply_again"


def test_a_raise_is_not_applied_again_from_any_other_state() -> None:
    run = raising()
    found = compared(run, shown(run, PLAN, exposure=500))
    assert (found.difference, found.exposure) == ("too_low", 500)
    off = compared(run, shown(run, PLAN, exposure=1_000, enabled=False))
    assert (off.difference, off.exposure) == ("too_low", 0)


def test_only_a_start_turns_on_and_only_after_weights_and_rules_were_read_back() -> None:
    run = make_run(PLAN, stage=0, confirmed_at=None, confirmed_exposure=None, turned_on=False)
    assert compared(run, shown(run, PLAN, enabled=False)).difference == "turn_on"
    assert compared(run, FlagState(enabled=False, exposure=0)).difference == "apply_again"
    lacking = shown(run, PLAN, enabled=False, audience=())
    assert compared(run, lacking).difference == "apply_again"
    advanced = raising()
    assert compared(advanced, shown(advanced, PLAN, enabled=False)).difference == "too_low"


def test_more_than_was_committed_is_lowered_even_while_settling() -> None:
    run = raising()
    found = compared(run, shown(run, PLAN, exposure=60_000), since=0.0)
    assert (found.difference, found.exposure) == ("too_high", 10_000)


def test_audience_rules_that_came_back_after_a_step_back_are_removed() -> None:
    run = make_run(PLAN, stage=-1, phase="paused", confirmed_exposure=0)
    found = compared(run, FlagState(enabled=True, exposure=0, audience=("staff",)))
    assert (found.difference, found.audience) == ("too_high", False)


def test_zero_percent_without_audience_is_as_good_as_off() -> None:
    run = make_run(PLAN, stage=-1, phase="paused")
    assert compared(run, FlagState(enabled=True, exposure=0)).difference == "none"
    assert compared(run, FlagState(enabled=False, exposure=77_000, audience=("staff",))).difference == "none"


def test_a_plan_that_only_observes_differs_from_nothing() -> None:
    plan = make_plan(mode="observe")
    run = make_run(plan, stage=1)
    found = converge(run, plan, FlagState(enabled=False, exposure=0), seconds_since_apply=60, settle_seconds=5)
    assert found.difference == "none"


states = st.builds(
    FlagState,
    enabled=st.booleans(),
    exposure=st.sampled_from([0, 500, 1_000, 10_000, 50_000, 100_000]),
    audience=st.sampled_from([(), ("staff",)]),
)


@given(
    observed=states,
    stage=st.integers(0, 3),
    confirmed=st.booleans(),
    confirmed_exposure=st.sampled_from([0, 1_000, 10_000, 50_000]),
    phase=st.sampled_from(["progressing", "paused"]),
    since=st.floats(0, 100),
)
def test_what_is_desired_after_a_difference_is_never_more_than_what_was_committed(
    observed: FlagState, stage: int, confirmed: bool, confirmed_exposure: int, phase: Any, since: float
) -> None:
    changes: dict[str, Any] = {} if confirmed else {"confirmed_at": None, "confirmed_exposure": confirmed_exposure}
    run = make_run(PLAN, stage=stage, phase=phase, **changes)
    found = compared(run, observed, since=since)
    if found.difference in ("too_high", "too_low"):
        assert found.exposure <= min(run.exposure, max(observed.effective_exposure, 0))
        assert not (found.audience and not run.audience)
    if found.difference == "apply_again" and run.exposure > observed.effective_exposure:
        assert phase == "progressing"
        assert not confirmed
        assert observed.exposure == confirmed_exposure
    if found.difference == "none":
        assert observed.effective_exposure == run.exposure


@pytest.mark.parametrize("phase", ["progressing", "paused"])
def test_a_confirmed_run_is_never_applied_again(phase: Any) -> None:
    run = make_run(PLAN, stage=1, phase=phase)
    for exposure in (0, 1_000, 10_000, 50_000):
        for enabled in (True, False):
            found = compared(run, shown(run, PLAN, exposure=exposure, enabled=enabled))
            assert found.difference in ("none", "too_high", "too_low")
