"""Accumulators: time counts only while it proves something (I1, I12, I13)."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.accumulators import (
    accumulate,
    after_confirmation,
    after_exposure_change,
    all_pass,
    countable,
)
from controller.domain.evidence import Outcome, Verdict
from controller.domain.rollout import ApprovalRequest, Observations, Run, Timer
from tests.support.rollouts import NOW, baked, breached, make_guardrails, make_plan, make_run

PLAN = make_plan()
GUARDRAILS = make_guardrails(PLAN)


def verdict(outcome: Outcome, *, rule: str = "errors-high", then: str = "pause", **more: Any) -> Verdict:
    values: dict[str, Any] = {
        "policy": "web",
        "rule": rule,
        "then": then,
        "enforced": True,
        "outcome": outcome,
        "detail": "",
        "condition": "",
        "metric": "error_rate",
    }
    return Verdict(**(values | more))


def after(
    *verdicts: Verdict, before: Observations | None = None, elapsed: float = 15.0, **run: Any
) -> Observations:
    return accumulate(
        before or baked(bake=0.0),
        run=make_run(PLAN, stage=1, **run),
        guardrails=GUARDRAILS,
        verdicts=verdicts,
        elapsed=elapsed,
        schedule_open=True,
    )


@pytest.mark.parametrize(("elapsed", "counted"), [(15.0, 15.0), (3600.0, 30.0), (-3600.0, 0.0), (0.0, 0.0)])
def test_a_tick_counts_at_most_two_polls_and_never_backwards(elapsed: float, counted: float) -> None:
    assert countable(elapsed, 15.0) == counted


def test_bake_grows_only_while_every_required_rule_passes() -> None:
    assert after(verdict("pass")).bake == 15.0
    for outcome in ("breach", "too_few", "no_data", "error", "inconclusive"):
        assert after(verdict("pass"), verdict(outcome, rule="other")).bake == 0.0


def test_nothing_judged_is_not_a_pass() -> None:
    assert not all_pass([])
    assert not all_pass([verdict("not_applicable")])
    assert not all_pass([verdict("pass", enforced=False)])
    assert after().bake == 0.0


def test_bake_begins_one_window_after_the_confirmation() -> None:
    early = Observations(since_confirmed=299.0)
    late = Observations(since_confirmed=300.0)
    assert after(verdict("pass"), before=early).bake == 0.0
    assert after(verdict("pass"), before=late).bake == 15.0


def test_an_unconfirmed_step_neither_bakes_nor_settles() -> None:
    grown = after(verdict("pass"), before=Observations(), confirmed_at=None)
    assert (grown.bake, grown.since_confirmed) == (0.0, 0.0)


def test_a_paused_run_does_not_bake() -> None:
    assert after(verdict("pass"), phase="paused").bake == 0.0


def test_a_breach_timer_starts_at_zero_with_the_first_breached_tick() -> None:
    first = after(verdict("breach"))
    second = after(verdict("breach"), before=first)
    assert first.breached["web/errors-high"] == Timer(0.0, running=True)
    assert second.breached["web/errors-high"] == Timer(15.0, running=True)


@pytest.mark.parametrize("outcome", ["no_data", "error", "too_few"])
def test_unknown_suspends_a_breach_timer_and_only_a_pass_clears_it(outcome: Outcome) -> None:
    suspended = after(verdict(outcome), before=baked(breached=breached(errors_high=60)))
    assert suspended.breached["web/errors-high"] == Timer(60.0, running=False)
    resumed = after(verdict("breach"), before=suspended)
    assert resumed.breached["web/errors-high"] == Timer(60.0, running=True), "the unknown time is not counted"
    assert after(verdict("pass"), before=suspended).breached == {}


def test_after_a_change_of_exposure_only_kill_timers_go_on() -> None:
    changed = after_exposure_change(baked(breached=breached(errors_high=60, p95_3x=60)))
    assert (changed.bake, changed.since_confirmed, changed.requests) == (0.0, 0.0, 0.0)
    grown = after(
        verdict("breach"), verdict("breach", rule="p95-3x", then="kill"), before=changed, confirmed_at=None
    )
    assert "web/errors-high" not in grown.breached
    assert grown.breached["web/p95-3x"] == Timer(75.0, running=True)


def test_pause_timers_restart_one_window_after_the_confirmation() -> None:
    assert after(verdict("breach"), before=Observations(since_confirmed=299.0)).breached == {}
    assert "web/errors-high" in after(verdict("breach"), before=Observations(since_confirmed=300.0)).breached


def test_silence_accumulates_failure_suspends_it_and_a_pass_clears_it() -> None:
    silent = after(verdict("no_data"), before=baked(silent={"web": Timer(60, running=True)}))
    assert silent.silent["web"] == Timer(75.0, running=True)
    failing = after(verdict("error"), before=silent)
    assert failing.silent["web"] == Timer(75.0, running=False)
    assert failing.failing["web"] == Timer(0.0, running=True)
    assert after(verdict("pass"), before=failing).silent == {}


def test_requests_are_counted_from_the_smallest_sample_and_not_before_the_window_has_passed() -> None:
    both = (verdict("pass", sample=3000.0), verdict("pass", rule="other", sample=600.0))
    assert after(*both, before=baked(requests=0.0)).requests == 600.0 / 300.0 * 15.0
    assert after(*both, before=Observations(since_confirmed=100.0)).requests == 0.0


def test_an_approval_waits_only_within_the_allowed_hours() -> None:
    request = ApprovalRequest(id="r", stage=2, plan_revision=1, requested_at=NOW)
    run: Run = make_run(PLAN, stage=1, approval=request)
    waits = [
        accumulate(
            baked(), run=run, guardrails=GUARDRAILS, verdicts=[], elapsed=15.0, schedule_open=is_open
        ).approval_wait
        for is_open in (True, False)
    ]
    assert waits == [15.0, 0.0]


def test_a_confirmation_starts_the_settling_anew() -> None:
    confirmed = after_confirmation(baked(silent={"web": Timer(60)}))
    assert (confirmed.since_confirmed, confirmed.bake, confirmed.silent) == (0.0, 0.0, {})


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["pass", "breach", "no_data", "error", "too_few"]), st.floats(-1e4, 1e4)),
        max_size=40,
    )
)
def test_bake_is_never_more_than_the_capped_time_of_passing_ticks(steps: list[tuple[Outcome, float]]) -> None:
    observations, passing = baked(bake=0.0), 0.0
    for outcome, elapsed in steps:
        counted = countable(elapsed, 15.0)
        observations = after(verdict(outcome), before=observations, elapsed=counted)
        passing += counted if outcome == "pass" else 0.0
    assert observations.bake == pytest.approx(passing)
