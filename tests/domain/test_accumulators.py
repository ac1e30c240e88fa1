"""Accumulators: time counts only while it proves something (I1, I12, I13)."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from controller.domain.accumulators import (
    accumulate,
    after_confirmation,
    after_exposure_change,
    all_pass,
    countable,
    request_rate,
    settling_seconds,
)
from controller.domain.evidence import Outcome, Verdict
from controller.domain.rollout import ApprovalRequest, Observations, Run, Seen, Timer
from tests.support.rollouts import NOW, baked, breached, make_guardrails, make_plan, make_run

PLAN = make_plan()
GUARDRAILS = make_guardrails(PLAN)
TWO = (*GUARDRAILS, replace(GUARDRAILS[0], policy="db", window_seconds=600.0))
SEEN = Seen(at=NOW, flag=None)


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
    assert all_pass([verdict("pass"), verdict("not_applicable", rule="other")])
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


# — exactly what one tick adds —

GRANTED = ApprovalRequest(id="r", stage=2, plan_revision=1, requested_at=NOW, granted_at=NOW)
EARLIER = Observations(
    run_version=1,
    bake=100.0,
    since_confirmed=1000.0,
    requests=50.0,
    approval_wait=7.0,
    breached={"web/errors-high": Timer(10.0, running=True)},
    silent={"web": Timer(20.0, running=True), "db": Timer(21.0, running=True)},
    failing={"web": Timer(30.0, running=True), "db": Timer(31.0, running=True)},
    seen=SEEN,
)


def test_a_passing_tick_adds_its_time_to_everything_that_waits_and_clears_every_timer() -> None:
    request = ApprovalRequest(id="r", stage=2, plan_revision=1, requested_at=NOW)
    run = make_run(PLAN, stage=1, approval=request, version=4)
    verdicts = [verdict("pass", sample=3000.0), verdict("pass", policy="db", sample=1200.0)]
    grown = accumulate(EARLIER, run=run, guardrails=TWO, verdicts=verdicts, elapsed=15.0, schedule_open=True)
    assert grown == Observations(
        run_version=4,
        bake=115.0,
        since_confirmed=1015.0,
        requests=50.0 + 15.0 * 2.0,
        approval_wait=22.0,
        seen=SEEN,
    )


def test_a_tick_that_proves_nothing_adds_nothing() -> None:
    run = make_run(PLAN, stage=1, confirmed_at=None, approval=GRANTED)
    grown = accumulate(
        EARLIER, run=run, guardrails=TWO, verdicts=[verdict("pass")], elapsed=15.0, schedule_open=True
    )
    assert (grown.bake, grown.since_confirmed, grown.requests, grown.approval_wait) == (100.0, 1000.0, 50.0, 7.0)
    unasked = accumulate(EARLIER, run=make_run(PLAN, stage=1), guardrails=TWO, verdicts=[], elapsed=15.0,
                         schedule_open=True)  # fmt: skip
    assert unasked.approval_wait == 7.0


def test_each_policy_has_its_own_silence_and_its_own_failure() -> None:
    grown = accumulate(
        EARLIER,
        run=make_run(PLAN, stage=1),
        guardrails=TWO,
        verdicts=[verdict("no_data"), verdict("error", policy="db")],
        elapsed=15.0,
        schedule_open=True,
    )
    assert grown.silent == {"web": Timer(35.0, running=True), "db": Timer(21.0, running=False)}
    assert grown.failing == {"web": Timer(30.0, running=False), "db": Timer(46.0, running=True)}


def test_silence_and_failure_at_once_count_for_both() -> None:
    both = after(verdict("error"), verdict("no_data", rule="other"), before=EARLIER)
    assert both.silent["web"] == Timer(35.0, running=True)
    assert both.failing["web"] == Timer(45.0, running=True)


def test_a_rule_that_only_observes_is_neither_silence_nor_failure() -> None:
    watched = after(verdict("pass"), verdict("no_data", rule="watch", enforced=False), before=EARLIER)
    assert watched.silent == {}


def test_a_policy_whose_rules_all_pass_or_do_not_apply_clears_its_timers() -> None:
    assert after(verdict("not_applicable"), before=EARLIER).breached == {}
    assert after(verdict("too_few"), before=EARLIER).silent == {}


def test_settling_takes_the_longest_window() -> None:
    assert settling_seconds(TWO) == 600.0
    assert after(verdict("pass"), before=Observations(since_confirmed=599.0)).bake == 15.0
    early = accumulate(Observations(since_confirmed=599.0), run=make_run(PLAN, stage=1), guardrails=TWO,
                       verdicts=[verdict("pass")], elapsed=15.0, schedule_open=True)  # fmt: skip
    assert early.bake == 0.0


def test_a_breach_timer_waits_for_the_window_of_its_own_policy() -> None:
    grown = accumulate(
        Observations(since_confirmed=599.0),
        run=make_run(PLAN, stage=1),
        guardrails=TWO,
        verdicts=[verdict("breach", policy="db"), verdict("breach")],
        elapsed=15.0,
        schedule_open=True,
    )
    assert grown.breached == {"web/errors-high": Timer(0.0, running=True)}


def test_a_suspended_timer_goes_on_without_the_time_in_which_it_was_suspended() -> None:
    before = baked(breached={"web/errors-high": Timer(60.0, running=False)})
    assert after(verdict("breach"), before=before).breached["web/errors-high"] == Timer(60.0, running=True)


def test_the_rate_is_per_second_of_the_policys_own_window_and_the_smallest_of_all_required_rules() -> None:
    web, db = verdict("pass", sample=3000.0), verdict("pass", policy="db", sample=1200.0)
    assert request_rate(TWO, [web, db]) == 2.0
    assert request_rate(TWO, [web]) == 10.0
    assert request_rate(TWO, [web, verdict("pass", policy="db", sample=1.0, enforced=False)]) == 10.0
    assert request_rate(TWO, [verdict("no_data", sample=None)]) == 0.0


def test_a_change_of_exposure_keeps_breach_timers_and_what_was_seen_and_nothing_else() -> None:
    assert after_exposure_change(EARLIER) == Observations(breached=EARLIER.breached, seen=SEEN)


def test_a_confirmation_restarts_all_but_breach_timers_and_approval() -> None:
    assert after_confirmation(EARLIER) == Observations(
        run_version=1, approval_wait=7.0, breached=EARLIER.breached, seen=SEEN
    )
