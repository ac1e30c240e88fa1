"""Desired against observed (I3, I8, I9, I10): the lower wins, unknown never raises."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from controller.domain.convergence import Convergence, converge
from controller.domain.flag import FlagState, Observation, Unknown
from controller.domain.rollout import Accepted, Run
from tests.support.rollouts import NOW, make_plan, make_run, shown

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


@pytest.mark.parametrize(
    ("observed", "difference", "text"),
    [
        (FlagState(enabled=False, exposure=50_000), "awaited", "people serve it to 0 %"),
        (FlagState(enabled=True, exposure=9_999), "awaited", "people serve it to 9.999 %"),
        (FlagState(enabled=True, exposure=10_000), "none", "people serve it to 10 %"),
        (FlagState(enabled=True, exposure=80_000, foreign=("x",)), "none", "people serve it to 80 %"),
        (Unknown("timeout"), "unread", "the provider could not be read: timeout"),
    ],
)
def test_a_plan_that_only_observes_waits_for_people_to_serve_as_many(
    observed: Observation, difference: Any, text: str
) -> None:
    plan = make_plan(mode="observe")
    run = make_run(plan, stage=1, accepted=ACCEPTED)
    found = converge(run, plan, observed, seconds_since_apply=60, settle_seconds=5)
    assert found == Convergence(difference=difference, text=text)


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


# — what exactly is found, in words and numbers —


def unconfirmed_start(**changes: Any) -> Run:
    values: dict[str, Any] = {"confirmed_at": None, "confirmed_exposure": None, "turned_on": False}
    return make_run(PLAN, stage=0, **(values | changes))


def test_every_difference_is_told_in_one_sentence() -> None:
    run, start = raising(), unconfirmed_start()
    before = shown(run, PLAN, exposure=1_000)
    settling = Convergence(difference="settling", text="waiting for the provider to show the change")
    assert compared(run, Unknown("timeout")) == Convergence(
        difference="unread", text="the provider could not be read: timeout"
    )
    assert compared(run, shown(run, PLAN)) == Convergence(
        difference="none", text="the provider shows what was committed"
    )
    assert compared(run, before, since=4.9) == settling
    assert compared(run, before, since=5.0) == Convergence(
        difference="apply_again", text="the provider still shows the state before the change"
    )
    assert compared(start, shown(start, PLAN, enabled=False)) == Convergence(
        difference="turn_on", text="weights and rules were read back; the flag is still off"
    )
    assert compared(run, shown(run, PLAN, exposure=5_000), since=4.9) == settling


@pytest.mark.parametrize(
    ("shows", "difference", "text", "exposure", "audience"),
    [
        ({"exposure": 80_000}, "too_high", "80 % with the audience rules staff", 10_000, True),
        ({"exposure": 5_000}, "too_low", "5 % with the audience rules staff", 5_000, True),
        ({"enabled": False}, "too_low", "off with the audience rules staff", 0, False),
        ({"audience": ()}, "too_low", "10 %", 10_000, False),
        (
            {"audience": ("staff", "beta")},
            "too_high",
            "10 % with the audience rules staff, beta",
            10_000,
            True,
        ),
        ({"enabled": False, "audience": ("beta",)}, "too_low", "off with the audience rules beta", 0, False),
    ],
)
def test_drift_says_what_is_shown_and_what_was_committed_and_keeps_the_lower(
    shows: dict[str, Any], difference: Any, text: str, exposure: int, audience: bool
) -> None:
    run = make_run(PLAN, stage=1)
    assert compared(run, shown(run, PLAN, **shows)) == Convergence(
        difference=difference,
        text=f"the provider shows {text}; committed is 10 %",
        exposure=exposure,
        audience=audience,
    )


def test_drift_never_brings_an_audience_back_that_was_committed_away() -> None:
    run = make_run(PLAN, stage=1, audience=False)
    found = compared(run, shown(run, PLAN, exposure=5_000))
    assert (found.difference, found.exposure, found.audience) == ("too_low", 5_000, False)


def test_while_settling_only_what_is_not_above_both_steps_is_waited_for() -> None:
    lowering = make_run(PLAN, stage=0, confirmed_at=None, confirmed_exposure=10_000)
    between = shown(lowering, PLAN, exposure=5_000)
    assert compared(lowering, between, since=0.0).difference == "settling"
    assert (
        compared(lowering, shown(lowering, PLAN, exposure=10_000, audience=()), since=0.0).difference == "settling"
    )
    assert compared(lowering, shown(lowering, PLAN, exposure=10_001), since=0.0).difference == "too_high"
    assert compared(lowering, between, since=5.0).difference == "too_high"
    first = unconfirmed_start(turned_on=True)
    assert compared(first, shown(first, PLAN, exposure=1_001), since=0.0).difference == "too_high"
    assert compared(first, shown(first, PLAN, exposure=1, audience=()), since=0.0).difference == "settling"


def test_before_its_first_turn_on_a_flag_that_serves_nobody_is_as_before() -> None:
    run = unconfirmed_start()
    for nobody in (FlagState(enabled=False, exposure=500), FlagState(enabled=True, exposure=0)):
        assert compared(run, nobody).difference == "apply_again"
    ours_at_zero = FlagState(enabled=True, exposure=0, audience=("staff",))
    assert compared(run, ours_at_zero).difference == "too_low"
    somebody = FlagState(enabled=True, exposure=1)
    assert compared(run, somebody).difference == "too_low"


def test_the_state_before_a_change_includes_the_audience_that_was_confirmed() -> None:
    run = raising(confirmed_audience=False)
    assert compared(run, shown(run, PLAN, exposure=1_000, audience=())).difference == "apply_again"
    assert compared(run, shown(run, PLAN, exposure=1_000)).difference == "too_low"
    off = shown(run, PLAN, exposure=1_000, audience=(), enabled=False)
    assert compared(run, off).difference == "too_low"


def test_a_step_whose_exposure_was_never_confirmed_counts_from_zero() -> None:
    run = raising(confirmed_exposure=None)
    assert compared(run, shown(run, PLAN, exposure=0)).difference == "apply_again"
    assert compared(run, shown(run, PLAN, exposure=1)).difference == "too_low"


def test_a_paused_run_is_neither_turned_on_nor_given_its_audience_again() -> None:
    start = unconfirmed_start(phase="paused")
    assert compared(start, shown(start, PLAN, enabled=False)).difference == "too_low"
    only_audience = make_run(
        PLAN, stage=0, phase="paused", confirmed_at=None, confirmed_exposure=1_000, confirmed_audience=False
    )
    assert compared(only_audience, shown(only_audience, PLAN, audience=())).difference == "too_low"
    with_audience = make_run(PLAN, stage=0, phase="paused", confirmed_at=None, confirmed_exposure=10_000)
    assert compared(with_audience, shown(with_audience, PLAN, exposure=10_000)).difference == "apply_again"


def test_a_run_that_was_turned_on_before_is_not_turned_on_again() -> None:
    run = make_run(PLAN, stage=0, confirmed_at=None, confirmed_exposure=0)
    assert compared(run, shown(run, PLAN, enabled=False)).difference == "too_low"


def test_before_its_start_a_run_has_nothing_that_could_settle() -> None:
    pending = make_run(PLAN)
    assert compared(pending, FlagState(enabled=True, exposure=500), since=0.0).difference == "too_high"


def test_with_the_audience_in_zero_percent_must_be_served_to_it() -> None:
    run = make_run(PLAN, stage=0, exposure=0, confirmed_exposure=0)
    assert compared(run, FlagState(enabled=True, exposure=0, audience=("staff",))).difference == "none"
    assert compared(run, FlagState(enabled=True, exposure=0)).difference == "too_low"
    without = make_run(PLAN, stage=0, audience=False)
    assert compared(without, FlagState(enabled=True, exposure=1_000)).difference == "none"
    assert compared(without, FlagState(enabled=False, exposure=1_000)).difference == "too_low"


def test_an_audience_that_was_committed_away_is_taken_away_again_also_while_paused() -> None:
    run = make_run(PLAN, stage=0, phase="paused", audience=False, confirmed_at=None, confirmed_exposure=1_000)
    assert compared(run, shown(run, PLAN, audience=("staff",))).difference == "apply_again"


def test_the_least_exposure_beside_a_step_to_nobody_is_too_much_at_once() -> None:
    nobody = make_run(PLAN, stage=0, exposure=0, audience=False, confirmed_at=None, confirmed_exposure=0)
    assert compared(nobody, shown(nobody, PLAN, enabled=True, exposure=1), since=0.0).difference == "too_high"


# — what is not ours —

ACCEPTED = Accepted(foreign=("rule legal-hold",), off_serves="off", bucketing="off,on by key", ours=True)


def ours_beside(**changes: Any) -> Run:
    return make_run(PLAN, stage=1, **({"accepted": ACCEPTED} | changes))


def beside(run: Run, **changes: Any) -> FlagState:
    found: dict[str, Any] = {
        "foreign": ACCEPTED.foreign, "off_serves": "off", "bucketing": ACCEPTED.bucketing
    }  # fmt: skip
    return replace(shown(run, PLAN), **(found | changes))


def test_what_was_accepted_is_no_difference() -> None:
    run = ours_beside()
    assert compared(run, beside(run)) == Convergence(
        difference="none", text="the provider shows what was committed"
    )


@pytest.mark.parametrize(
    ("changes", "altered"),
    [
        ({"foreign": ("rule legal-hold", "strategy 2")}, "strategy 2 appeared"),
        ({"foreign": ("strategy 2",)}, "strategy 2 appeared; rule legal-hold is gone"),
        ({"foreign": ()}, "rule legal-hold is gone"),
        ({"off_serves": "on"}, 'when off it serves "on" now'),
        (
            {"bucketing": "on,off by key"},
            "it is decided otherwise now who is in the share (order of variations, salt, seed or attribute)",
        ),
        (
            {"foreign": (), "changed_by": "dana", "changed_at": NOW},
            "rule legal-hold is gone, last changed by dana at 2026-11-18 12:00:00 UTC",
        ),
        ({"foreign": (), "changed_by": "dana"}, "rule legal-hold is gone, last changed by dana"),
    ],
)
def test_what_was_not_accepted_is_told_beside_the_difference(changes: dict[str, Any], altered: str) -> None:
    run = ours_beside()
    found = compared(run, beside(run, **changes))
    assert (found.difference, found.altered) == ("none", altered)
    drifted = compared(run, beside(run, exposure=80_000, **changes))
    assert (drifted.difference, drifted.altered) == ("too_high", altered)


def test_what_a_provider_does_not_tell_was_not_altered() -> None:
    run = ours_beside()
    assert compared(run, beside(run, bucketing="", off_serves=None)).altered == ""
    unread = compared(run, Unknown("timeout"))
    assert (unread.difference, unread.altered) == ("unread", "")


def test_an_off_variation_that_becomes_the_fallback_harms_nobody() -> None:
    run = ours_beside(accepted=replace(ACCEPTED, off_serves="third"))
    assert compared(run, beside(run)).altered == ""
    assert compared(run, beside(run, off_serves="third")).altered == ""


def test_a_run_that_accepted_nothing_is_compared_with_nothing() -> None:
    run = ours_beside(accepted=None)
    assert compared(run, beside(run, foreign=("strategy 2",))).altered == ""


def test_our_own_write_may_replace_what_was_there_and_decide_who_is_in_the_share() -> None:
    found = FlagState(
        enabled=False, exposure=0, foreign=("rule a", "variation third for 5 %"), bucketing="by email"
    )
    accepted = Accepted().found(found)
    assert accepted == Accepted(foreign=found.foreign, bucketing="by email")
    written = accepted.written()
    run = ours_beside(accepted=written, confirmed_at=None)
    replaced = replace(shown(run, PLAN), foreign=("rule a",), bucketing="by key")
    assert compared(run, replaced).altered == ""
    settled = written.confirmed(replaced)
    assert settled == Accepted(foreign=("rule a",), bucketing="by key", ours=True)
    assert settled.written() == settled, "from then on every change of it is somebody else's"
    assert compared(ours_beside(accepted=settled), replace(replaced, bucketing="by email")).altered


def test_a_person_who_accepts_another_way_of_bucketing_lets_our_next_write_change_it_back() -> None:
    run = ours_beside()
    swapped = beside(run, bucketing="on,off by key")
    assert ACCEPTED.found(beside(run)) == ACCEPTED
    assert ACCEPTED.found(swapped) == replace(ACCEPTED, bucketing="on,off by key", ours=False)
    assert ACCEPTED.found(swapped).written() == replace(ACCEPTED, bucketing="")


def test_drift_says_who_changed_the_flag_and_when() -> None:
    run = ours_beside()
    found = compared(run, beside(run, exposure=80_000, changed_by="dana", changed_at=NOW))
    assert found.text == (
        "the provider shows 80 % with the audience rules staff; committed is 10 %, "
        "last changed by dana at 2026-11-18 12:00:00 UTC"
    )


def test_a_confirmation_accepts_nothing_that_came_meanwhile() -> None:
    accepted = Accepted(foreign=("rule a", "rule b"), bucketing="by key", ours=True)
    seen = FlagState(enabled=True, exposure=1_000, foreign=("rule b", "rule c"), bucketing="by email")
    assert accepted.confirmed(seen) == replace(accepted, foreign=("rule b",))
