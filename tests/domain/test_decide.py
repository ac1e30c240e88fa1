"""What is decided, most urgent rule first. Each test is one sentence of the promises I1, I2, I9–I12, I14, I21."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from controller.domain.assess import assess_and_decide
from controller.domain.decide import Decision, share_of, stage_at, stage_below, stage_holding, step_back
from controller.domain.flag import FlagState, Unknown
from controller.domain.plan import RolloutPlan
from controller.domain.rollout import NOT_STARTED, Action, ApprovalRequest, Cause, Observations, Run, Timer
from tests.support.rollouts import NOW, baked, breached, make_guardrails, make_inputs, make_plan, make_run, shown

PLAN = make_plan()


def decided(run: Run, plan: RolloutPlan = PLAN, policy: dict[str, Any] | None = None, **inputs: Any) -> Decision:
    guardrails = make_guardrails(plan, **(policy or {}))
    return assess_and_decide(run, plan, guardrails, make_inputs(run, plan, guardrails, **inputs))[1]


# — gates and the ladder —


def test_a_baked_stage_with_only_passes_advances_to_the_next_stage() -> None:
    decision = decided(make_run(PLAN, stage=0), observations=baked())
    assert (decision.action, decision.stage, decision.exposure) == ("advance", 1, 10_000)


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_one_tick_advances_one_stage_however_long_the_outage_was(stage: int) -> None:
    decision = decided(make_run(PLAN, stage=stage), observations=baked(), elapsed=1e9)
    assert decision.stage == stage + 1


def test_a_stage_that_has_not_baked_holds_and_says_how_long_it_still_takes() -> None:
    decision = decided(make_run(PLAN, stage=0), observations=baked(bake=600.0))
    assert decision.action == "hold"
    assert [block.code for block in decision.blocks] == ["bake"]
    assert "10m 15s of 30m" in decision.blocks[0].text


def test_the_last_stage_completes_after_its_bake() -> None:
    run = make_run(PLAN, stage=3, baselines_control={})
    plan, policy = PLAN, {"rules": [{"id": "errors-high", "if": "error_rate > 1%", "then": "pause"}]}
    assert decided(run, plan, policy, observations=baked()).action == "complete"


def test_tenths_of_a_percent_are_ordinary_stages() -> None:
    plan = make_plan(
        stages=[
            {"name": "a", "exposure": "0.1%", "bake": "10m"},
            {"name": "b", "exposure": "0.5%", "bake": "10m"},
            {"name": "c", "exposure": "100%", "bake": "10m"},
        ]
    )
    assert decided(make_run(plan, stage=0), plan, observations=baked()).exposure == 500


def test_the_minimum_total_since_confirmation_is_waited_for() -> None:
    plan = make_plan(
        stages=[
            {"name": "a", "exposure": "1%", "bake": "1m", "minTotal": {"requests": 2000}},
            {"name": "b", "exposure": "100%", "bake": "1m"},
        ]
    )
    decision = decided(make_run(plan, stage=0), plan, observations=baked(requests=1000.0))
    assert [block.code for block in decision.blocks] == ["sample"]


# — silence, sample and failure are no passes (I1, I10, I12) —


@pytest.mark.parametrize(
    ("side", "code"),
    [
        ({"total": None}, "unknown"),
        ({"total": math.nan}, "unknown"),
        ({"age_seconds": 31.0}, "unknown"),
        ({"age_seconds": None}, "unknown"),
        ({"failure": "503"}, "unknown"),
        ({"series": 2}, "unknown"),
        ({"total": 199.0}, "sample"),
        ({"p95": None}, "unknown"),
        ({"p95": math.nan}, "unknown"),
        ({"p95": math.inf}, "unknown"),
    ],
)
@pytest.mark.parametrize("variation", ["on", "off"])
def test_nothing_but_a_finite_fresh_number_above_the_sample_lets_a_stage_pass(
    side: dict[str, Any], code: str, variation: str
) -> None:
    sides = {variation: side}
    decision = decided(make_run(PLAN, stage=0), observations=baked(), sides=sides)
    if variation == "off" and "age_seconds" not in side and decision.action == "advance":
        pytest.fail("a baseline that is unknown cannot be compared with")
    assert decision.action == "hold"
    assert code in {block.code for block in decision.blocks}


def test_a_missing_error_series_with_traffic_is_zero_errors() -> None:
    assert decided(make_run(PLAN, stage=0), observations=baked(), sides={"on": {"bad": None}}).action == "advance"


def test_silence_holds_first_and_pauses_after_its_time() -> None:
    run, sides = make_run(PLAN, stage=0), {"on": {"total": None}}
    early = decided(run, sides=sides, observations=baked(silent={"web": Timer(500, running=True)}))
    late = decided(run, sides=sides, observations=baked(silent={"web": Timer(590, running=True)}))
    assert (early.action, late.action, late.cause) == ("hold", "pause", "no_data")


def test_an_unreachable_source_holds_for_ever_when_the_policy_says_hold() -> None:
    timers = {"web": Timer(1e6, running=True)}
    decision = decided(
        make_run(PLAN, stage=0), sides={"on": {"failure": "refused"}}, observations=baked(failing=timers)
    )
    assert decision.action == "hold"


def test_unknown_never_kills_and_never_raises() -> None:
    for side in ({"total": None}, {"failure": "down"}, {"total": math.nan}):
        timers = breached(errors_jump=1e6, p95_3x=1e6)
        decision = decided(make_run(PLAN, stage=0), sides={"on": side}, observations=baked(breached=timers))
        assert decision.action == "hold"


# — breaches, most urgent first —


def test_a_kill_rule_kills_once_its_breach_has_lasted() -> None:
    run, sides = make_run(PLAN, stage=1), {"on": {"p95": 0.31}}
    early = decided(run, sides=sides, observations=baked(breached=breached(p95_3x=100)))
    late = decided(run, sides=sides, observations=baked(breached=breached(p95_3x=110)))
    assert (early.action, late.action) == ("hold", "kill")
    assert late.exposure == 0
    assert late.rule == "web/p95-3x"
    assert "310 ms against a limit of 300 ms" in late.text
    assert "baseline 100 ms" in late.text


def test_one_breach_beats_any_number_of_passes() -> None:
    sides = {"on": {"error_rate": 0.05}}
    decision = decided(
        make_run(PLAN, stage=1), sides=sides, observations=baked(breached=breached(errors_high=300))
    )
    assert decision.action == "pause"


def test_a_kill_comes_before_a_step_back_and_a_pause() -> None:
    everything = breached(errors_high=600, errors_jump=600, p95_2x=600, p95_3x=600)
    sides = {"on": {"error_rate": 0.5, "p95": 1.0}}
    assert decided(make_run(PLAN, stage=1), sides=sides, observations=baked(breached=everything)).action == "kill"


def test_a_step_back_goes_to_the_stage_before_and_pauses_there() -> None:
    sides = {"on": {"p95": 0.25}}
    decision = decided(make_run(PLAN, stage=2), sides=sides, observations=baked(breached=breached(p95_2x=600)))
    assert (decision.action, decision.stage, decision.exposure, decision.audience) == (
        "step_back",
        1,
        10_000,
        True,
    )


def test_a_step_back_from_the_first_stage_removes_the_always_audience() -> None:
    sides = {"on": {"p95": 0.25}}
    decision = decided(make_run(PLAN, stage=0), sides=sides, observations=baked(breached=breached(p95_2x=600)))
    assert (decision.stage, decision.exposure, decision.audience) == (NOT_STARTED, 0, False)


def test_while_paused_kill_and_step_back_rules_still_act_and_nothing_rises() -> None:
    run = make_run(PLAN, stage=1, phase="paused")
    kill = decided(run, sides={"on": {"p95": 0.4}}, observations=baked(breached=breached(p95_3x=600)))
    back = decided(run, sides={"on": {"p95": 0.25}}, observations=baked(breached=breached(p95_2x=600)))
    rest = decided(run, observations=baked())
    assert (kill.action, back.action, rest.action) == ("kill", "step_back", "hold")


def test_an_observed_rule_never_acts_and_never_holds() -> None:
    rules = [
        {"id": "watch", "if": "error_rate > 1%", "then": "kill", "mode": "observe"},
        {"id": "errors-high", "if": "error_rate > 90%", "then": "pause"},
    ]
    decision = decided(
        make_run(PLAN, stage=0), PLAN, {"rules": rules}, sides={"on": {"error_rate": 0.5}}, observations=baked()
    )
    assert decision.action == "advance"


def test_the_floor_keeps_a_multiple_of_almost_nothing_from_being_a_limit() -> None:
    sides = {"on": {"p95": 0.019}, "off": {"p95": 0.001}}
    timers = breached(p95_2x=600, p95_3x=600)
    assert decided(make_run(PLAN, stage=1), sides=sides, observations=baked(breached=timers)).action == "advance"


# — common cause (I21) —


def test_an_outage_that_also_hits_the_control_pauses_and_does_not_kill() -> None:
    sides = {"on": {"error_rate": 0.5}, "off": {"error_rate": 0.5}}
    decision = decided(
        make_run(PLAN, stage=1), sides=sides, observations=baked(breached=breached(errors_jump=600))
    )
    assert decision.action == "pause"
    assert "not blamed on the flag" in decision.text


def test_a_rule_may_say_that_it_kills_even_if_the_control_fails() -> None:
    rules = [{"id": "errors-jump", "if": "error_rate > 10%", "then": "kill", "evenIfControlFails": True}]
    sides = {"on": {"error_rate": 0.5}, "off": {"error_rate": 0.5}}
    timers = breached(errors_jump=0)
    decision = decided(
        make_run(PLAN, stage=1), PLAN, {"rules": rules}, sides=sides, observations=baked(breached=timers)
    )
    assert decision.action == "kill"


def test_after_too_many_automatic_kills_a_person_must_look_first() -> None:
    sides, timers = {"on": {"error_rate": 0.5}}, breached(errors_jump=600)
    run = make_run(PLAN, stage=1)
    third = decided(run, sides=sides, observations=baked(breached=timers), automatic_kills=2)
    fourth = decided(run, sides=sides, observations=baked(breached=timers), automatic_kills=3)
    assert (third.action, fourth.action) == ("kill", "pause")


# — drift and confirmation (I8, I9) —


def test_a_step_that_is_read_back_is_confirmed_before_anything_else_may_rise() -> None:
    run = make_run(PLAN, stage=1, confirmed_at=None, confirmed_exposure=1_000)
    assert decided(run, observations=baked()).action == "confirm"


def test_an_unconfirmed_step_never_advances() -> None:
    run = make_run(PLAN, stage=1, confirmed_at=None, confirmed_exposure=1_000)
    before = shown(run, PLAN, exposure=1_000)
    decision = decided(run, observed=before, observations=baked())
    assert decision.action == "hold"
    assert [block.code for block in decision.blocks] == ["settling"]


def test_a_flag_raised_behind_our_back_is_lowered_again_and_paused() -> None:
    run = make_run(PLAN, stage=1)
    decision = decided(run, observed=shown(run, PLAN, exposure=80_000), observations=baked())
    assert (decision.action, decision.cause, decision.exposure) == ("lower", "drift", 10_000)


def test_a_flag_lowered_behind_our_back_stays_lowered_and_pauses() -> None:
    run = make_run(PLAN, stage=2)
    decision = decided(run, observed=shown(run, PLAN, exposure=5_000), observations=baked())
    assert (decision.action, decision.exposure) == ("pause", 5_000)
    assert decision.stage == 1, "5 % counts as the 10 % stage, so that no stage is exceeded or skipped"


def test_a_flag_turned_off_behind_our_back_is_not_turned_on_again() -> None:
    run = make_run(PLAN, stage=2)
    decision = decided(run, observed=shown(run, PLAN, enabled=False), observations=baked())
    assert (decision.action, decision.exposure, decision.audience) == ("pause", 0, False)


def test_a_provider_that_cannot_be_read_holds() -> None:
    decision = decided(make_run(PLAN, stage=1), observed=Unknown("404"), observations=baked())
    assert decision.action == "hold"
    assert "404" in decision.text


def test_resumed_between_two_stages_the_next_one_is_not_skipped() -> None:
    run = make_run(PLAN, stage=1, exposure=5_000, confirmed_exposure=5_000)
    decision = decided(run, observed=shown(run, PLAN), observations=baked())
    assert (decision.action, decision.exposure) == ("advance", 10_000)


# — start —


def test_a_start_needs_a_healthy_baseline_and_nothing_treated() -> None:
    run = make_run(PLAN)
    decision = decided(run, observed=FlagState(enabled=False, exposure=0))
    assert (decision.action, decision.stage, decision.exposure) == ("start", 0, 1_000)


@pytest.mark.parametrize("side", [{"total": None}, {"total": 10}, {"failure": "down"}, {"error_rate": 0.3}])
def test_a_start_waits_while_the_baseline_is_silent_small_unreachable_or_failing(side: dict[str, Any]) -> None:
    decision = decided(make_run(PLAN), observed=FlagState(enabled=False, exposure=0), sides={"off": side})
    assert decision.action == "hold"


# — schedule and approval (I14) —


def test_outside_the_allowed_hours_nothing_rises_but_everything_lowers() -> None:
    plan = make_plan(schedule={"advanceOnly": [{"days": "mon-thu", "from": "13:00", "to": "14:00"}]})
    run = make_run(plan, stage=1)
    held = decided(run, plan, observations=baked())
    assert [block.code for block in held.blocks] == ["schedule"]
    assert held.blocks[0].clears_at == datetime(2026, 11, 18, 13, 0, tzinfo=UTC)
    killing = baked(breached=breached(p95_3x=600))
    assert decided(run, plan, sides={"on": {"p95": 0.4}}, observations=killing).action == "kill"


def gated_plan() -> RolloutPlan:
    return make_plan(
        stages=[
            {"name": "a", "exposure": "1%", "bake": "1m"},
            {"name": "b", "exposure": "50%", "bake": "1m", "approval": {"from": ["managers"], "timeout": "24h"}},
            {"name": "c", "exposure": "100%", "bake": "1m"},
        ]
    )


def request(**changes: Any) -> ApprovalRequest:
    values: dict[str, Any] = {"id": "r1", "stage": 1, "plan_revision": 1, "requested_at": NOW}
    return ApprovalRequest(**(values | changes))


def test_an_approval_is_asked_for_once_the_other_gates_pass() -> None:
    plan = gated_plan()
    assert decided(make_run(plan, stage=0), plan, observations=baked()).action == "request_approval"
    assert decided(make_run(plan, stage=0), plan, observations=baked(bake=0.0)).action == "hold"


def test_a_gated_stage_is_entered_only_with_the_grant_for_this_stage_and_revision() -> None:
    plan = gated_plan()

    def with_approval(approval: ApprovalRequest) -> Decision:
        return decided(make_run(plan, stage=0, approval=approval), plan, observations=baked())

    assert [block.code for block in with_approval(request()).blocks] == ["approval"]
    assert with_approval(request(granted_by="kim", granted_at=NOW)).action == "advance"
    assert with_approval(request(granted_by="kim", granted_at=NOW, plan_revision=0)).action == "request_approval"
    assert with_approval(request(granted_by="kim", granted_at=NOW, stage=2)).action == "request_approval"


def test_an_approval_that_nobody_grants_in_time_pauses() -> None:
    plan = gated_plan()
    run = make_run(plan, stage=0, approval=request())
    decision = decided(run, plan, observations=baked(approval_wait=86_400.0))
    assert decision.action == "pause"
    assert "within 24h" in decision.text


# — a manual advance waives the bake and nothing else (I1) —


def test_a_manual_advance_waives_the_remaining_bake() -> None:
    decision = decided(make_run(PLAN, stage=0), observations=baked(bake=0.0), bake_waived=True)
    assert decision.action == "advance"


@pytest.mark.parametrize("side", [{"total": None}, {"total": 10}, {"error_rate": 0.05}, {"failure": "down"}])
def test_a_manual_advance_waives_no_breach_no_unknown_and_no_sample(side: dict[str, Any]) -> None:
    decision = decided(make_run(PLAN, stage=0), observations=baked(), sides={"on": side}, bake_waived=True)
    assert decision.action == "hold"


def test_entering_full_exposure_needs_the_controls_baseline_in_hand() -> None:
    run = make_run(PLAN, stage=2)
    guardrails = make_guardrails(PLAN)
    inputs = make_inputs(run, PLAN, guardrails, observations=baked())
    assert assess_and_decide(run, PLAN, guardrails, inputs)[1].action == "advance"
    hour = {guardrails[0].question(metric, "off", 3600.0) for metric in guardrails[0].metrics}
    without = make_inputs(
        run, PLAN, guardrails, observations=baked(), readings=[(q, r) for q, r in inputs.readings if q not in hour]
    )
    decision = assess_and_decide(run, PLAN, guardrails, without)[1]
    assert [block.code for block in decision.blocks] == ["baseline"]


# — the whole of a decision: what is said, and what is desired after it —

STAY = {"stage": 1, "exposure": 10_000, "audience": True}


def whole(decision: Decision) -> dict[str, Any]:
    return {name: getattr(decision, name) for name in decision.__struct_fields__ if name != "blocks"}


def is_whole(decision: Decision, action: Action, cause: Cause, text: str, **more: Any) -> None:
    expected = {"action": action, "cause": cause, "text": text, "rule": None} | STAY | more
    assert whole(decision) == expected


P95_TOLD = "web/p95-3x: latency_p95 310 ms against a limit of 300 ms for 10m (baseline 100 ms, 1000 requests)"
ERRORS_TOLD = "error_rate 50 % against a limit of 10 % for 10m (baseline 0.2 %, 1000 requests)"


def test_a_kill_says_why_and_desires_nobody() -> None:
    timers = breached(p95_3x=585)
    decision = decided(make_run(PLAN, stage=1), sides={"on": {"p95": 0.31}}, observations=baked(breached=timers))
    is_whole(decision, "kill", "policy", f"killed by {P95_TOLD}", exposure=0, audience=False, rule="web/p95-3x")
    assert decision.blocks == ()


def test_a_kill_that_is_spared_pauses_says_why_and_stays_where_it_is() -> None:
    run, timers = make_run(PLAN, stage=1), breached(errors_jump=585)
    both = {"on": {"error_rate": 0.5}, "off": {"error_rate": 0.5}}
    told = ERRORS_TOLD.replace("baseline 0.2 %", "baseline 50 %")
    is_whole(
        decided(run, sides=both, observations=baked(breached=timers)),
        "pause",
        "policy",
        f"paused, not killed, by web/errors-jump: {told}; "
        "the control breaks the same condition, so it is not blamed on the flag",
        rule="web/errors-jump",
    )
    is_whole(
        decided(run, sides={"on": {"error_rate": 0.5}}, observations=baked(breached=timers), automatic_kills=3),
        "pause",
        "policy",
        f"paused, not killed, by web/errors-jump: {ERRORS_TOLD}; "
        "3 flags were killed automatically just now, so a person must look first",
        rule="web/errors-jump",
    )
    alone = decided(run, sides=both, observations=baked(breached=timers), automatic_kills=3)
    assert "not blamed on the flag" in alone.text


def test_a_kill_that_is_spared_leaves_a_paused_run_as_it_is() -> None:
    run, timers = make_run(PLAN, stage=1, phase="paused", status="paused by dana"), breached(errors_jump=600)
    both = {"on": {"error_rate": 0.5}, "off": {"error_rate": 0.5}}
    is_whole(decided(run, sides=both, observations=baked(breached=timers)), "hold", "user", "paused by dana")


def test_a_step_back_by_a_rule_says_from_where_to_where_and_why() -> None:
    timers = breached(p95_2x=585)
    decision = decided(make_run(PLAN, stage=1), sides={"on": {"p95": 0.25}}, observations=baked(breached=timers))
    is_whole(
        decision,
        "step_back",
        "policy",
        "stepped back from 10 % to 1 % by "
        "web/p95-2x: latency_p95 250 ms against a limit of 200 ms for 10m (baseline 100 ms, 1000 requests)",
        stage=0,
        exposure=1_000,
        rule="web/p95-2x",
    )


def test_a_step_back_by_a_person_keeps_the_cause_and_leads_to_the_highest_stage_with_less() -> None:
    between = make_run(PLAN, stage=1, exposure=5_000)
    is_whole(
        step_back(between, PLAN, "by dana", cause="user"),
        "step_back",
        "user",
        "stepped back from 5 % to 1 % by dana",
        stage=0,
        exposure=1_000,
    )
    without = make_run(PLAN, stage=2, audience=False)
    assert not step_back(without, PLAN, "by dana", cause="user").audience


def test_a_run_that_serves_nobody_cannot_step_back() -> None:
    rules = [{"id": "p95-2x", "if": "latency_p95 > 2x baseline", "then": "step_back"}]
    run = make_run(PLAN, stage=0, exposure=0, phase="paused", status="rests")
    decision = decided(
        run,
        PLAN,
        {"rules": rules},
        sides={"on": {"p95": 1.0}},
        observed=shown(run, PLAN, enabled=True),
        observations=baked(breached=breached(p95_2x=600)),
    )
    assert (decision.action, decision.text) == ("hold", "rests")


def test_the_least_exposure_steps_back_to_nothing() -> None:
    assert stage_below(PLAN, 1) == NOT_STARTED
    assert stage_below(PLAN, 1_000) == NOT_STARTED
    assert stage_below(PLAN, 1_001) == 0


def test_an_exposure_belongs_to_the_highest_stage_it_reaches_and_the_lowest_that_allows_it() -> None:
    assert [stage_at(PLAN, share) for share in (0, 999, 1_000, 9_999, 100_000)] == [-1, -1, 0, 0, 3]
    assert [stage_holding(PLAN, share) for share in (0, 1, 1_000, 1_001, 100_000)] == [-1, 0, 0, 1, 3]
    assert [share_of(PLAN, stage) for stage in (NOT_STARTED, 0, 3)] == [0, 1_000, 100_000]


def test_a_pause_by_a_rule_says_why_and_a_paused_run_is_not_paused_again() -> None:
    sides, timers = {"on": {"error_rate": 0.05}}, baked(breached=breached(errors_high=585))
    is_whole(
        decided(make_run(PLAN, stage=1), sides=sides, observations=timers),
        "pause",
        "policy",
        "paused by web/errors-high: error_rate 5 % against a limit of 1 % for 10m (baseline 0.2 %, 1000 requests)",
        rule="web/errors-high",
    )
    paused = make_run(PLAN, stage=1, phase="paused", status="rests")
    assert decided(paused, sides=sides, observations=timers).action == "hold"


def test_a_breach_pauses_at_its_very_second_and_only_while_it_is_one() -> None:
    run, sides = make_run(PLAN, stage=1), {"on": {"error_rate": 0.05}}
    at = {
        seconds: decided(
            run, sides=sides, elapsed=0.0, observations=baked(breached=breached(errors_high=seconds))
        ).action
        for seconds in (299.9, 300.0)
    }
    assert at == {299.9: "hold", 300.0: "pause"}


@pytest.mark.parametrize(
    ("phase", "shows", "action", "text"),
    [
        (
            "progressing",
            {"exposure": 80_000},
            "lower",
            "80 % with the audience rules staff; committed is 10 %; lowered again",
        ),
        (
            "progressing",
            {"exposure": 10_000, "audience": ()},
            "pause",
            "10 %; committed is 10 %; the lower one is kept",
        ),
        (
            "paused",
            {"exposure": 10_000, "audience": ()},
            "lower",
            "10 %; committed is 10 %; the lower one is kept",
        ),
    ],
)
def test_drift_is_told_with_what_was_done_about_it(
    phase: Any, shows: dict[str, Any], action: Any, text: str
) -> None:
    run = make_run(PLAN, stage=1, phase=phase)
    decision = decided(run, observed=shown(run, PLAN, **shows), observations=baked())
    is_whole(
        decision,
        action,
        "drift",
        f"paused: the flag was changed outside this run: the provider shows {text} until a person decides",
        audience=shows.get("audience") != (),
    )


def test_a_confirmation_says_what_was_read_back() -> None:
    run = make_run(PLAN, stage=1, confirmed_at=None, confirmed_exposure=1_000)
    is_whole(decided(run, observations=baked()), "confirm", "provider", "10 % was read back from the provider")


def test_a_pause_for_silence_says_how_long_and_which_rules_are_silent() -> None:
    run, sides = make_run(PLAN, stage=1), {"on": {"total": None}}
    decision = decided(run, sides=sides, observations=baked(silent={"web": Timer(585, running=True)}))
    is_whole(decision, "pause", "no_data", "paused after 10m of no data in web")
    assert [(block.code, block.text) for block in decision.blocks] == [
        ("unknown", "web/errors-high: no data: error_rate: the total returned nothing"),
        ("unknown", "web/errors-jump: no data: error_rate: the total returned nothing"),
        ("unknown", "web/p95-2x: no data: latency_p95: the total returned nothing"),
        ("unknown", "web/p95-3x: no data: latency_p95: the total returned nothing"),
    ]
    paused = make_run(PLAN, stage=1, phase="paused")
    silent = baked(silent={"web": Timer(1e6, running=True)})
    assert decided(paused, sides=sides, observations=silent).action == "hold"


def test_a_pause_for_failure_comes_after_the_time_the_policy_gives_to_failure() -> None:
    run, sides = make_run(PLAN, stage=1), {"on": {"failure": "refused"}}
    policy = {"queryError": {"after": "5m", "then": "pause"}, "noData": {"after": "1m", "then": "hold"}}
    silent = {"web": Timer(1e6, running=True)}
    early = baked(failing={"web": Timer(284, running=True)}, silent=silent)
    late = baked(failing={"web": Timer(285, running=True)}, silent=silent)
    assert decided(run, PLAN, policy, sides=sides, observations=early).action == "hold"
    decision = decided(run, PLAN, policy, sides=sides, observations=late)
    is_whole(decision, "pause", "no_data", "paused after 5m of source errors in web")


def test_a_policy_that_pauses_at_once_needs_silence_all_the_same() -> None:
    policy = {"noData": {"after": "0s", "then": "pause"}}
    assert decided(make_run(PLAN, stage=0), PLAN, policy, observations=baked()).action == "advance"
    silent = decided(make_run(PLAN, stage=0), PLAN, policy, sides={"on": {"total": None}}, observations=baked())
    assert (silent.action, silent.cause) == ("pause", "no_data")


def test_a_start_says_where_it_starts() -> None:
    decision = decided(make_run(PLAN), observed=FlagState(enabled=False, exposure=0))
    is_whole(
        decision,
        "start",
        "policy",
        "started at 1 % (canary): all required guardrails pass",
        stage=0,
        exposure=1_000,
    )


def test_an_advance_says_from_where_to_where() -> None:
    is_whole(
        decided(make_run(PLAN, stage=1), observations=baked()),
        "advance",
        "policy",
        "advanced from 10 % to 50 % (half): all required guardrails pass",
        stage=2,
        exposure=50_000,
    )


@pytest.mark.parametrize(
    ("observed", "code", "text"),
    [
        (Unknown("timeout"), "unknown", "the provider could not be read: timeout"),
        (FlagState(enabled=True, exposure=500), "drift", "the provider shows 0.5 %; committed is 0 %"),
    ],
)
def test_a_start_waits_until_the_flag_was_read_and_serves_nobody(observed: Any, code: str, text: str) -> None:
    decision = decided(make_run(PLAN), observed=observed)
    assert (decision.action, decision.cause) == ("hold", "policy")
    assert [(block.code, block.text, block.clears_at) for block in decision.blocks] == [(code, text, None)]


def test_a_completion_says_that_nothing_was_breached() -> None:
    run = make_run(PLAN, stage=3, baselines_control={})
    policy = {"rules": [{"id": "errors-high", "if": "error_rate > 1%", "then": "pause"}]}
    is_whole(
        decided(run, PLAN, policy, observations=baked()),
        "complete",
        "policy",
        "completed: 100 % baked without a breach",
        stage=3,
        exposure=100_000,
    )
    early = decided(run, PLAN, policy, observations=baked(bake=0.0))
    assert (early.action, early.text) == ("hold", "everyone has baked 15s of 24h")


def blocks_of(decision: Decision) -> list[tuple[str, str]]:
    assert decision.text == "; ".join(block.text for block in decision.blocks)
    return [(block.code, block.text) for block in decision.blocks]


def test_a_hold_lists_every_reason_in_words() -> None:
    plan = make_plan(
        stages=[
            {"name": "a", "exposure": "1%", "bake": "30m", "minTotal": {"requests": 2000}},
            {"name": "b", "exposure": "100%", "bake": "1m"},
        ],
        schedule={"advanceOnly": [{"days": "mon-thu", "from": "13:00", "to": "14:00"}]},
    )
    decision = decided(
        make_run(plan, stage=0),
        plan,
        {"metrics": {"queue": {"query": "sum(queue)"}}, "rules": [
            {"id": "errors", "if": "error_rate > 1%", "for": "5m", "then": "pause"},
            {"id": "few", "if": "latency_p95 > 1s", "then": "pause"},
            {"id": "watch", "if": "error_rate > 1%", "then": "kill", "mode": "observe"},
        ]},
        sides={"on": {"error_rate": 0.05, "p95": None}},
        observations=baked(bake=585.0, requests=100.0),
        elapsed=0.0,
        obstacles=("eu-2 was not heard of for 12s",),
    )  # fmt: skip
    assert blocks_of(decision) == [
        ("unknown", "web/few: no data: latency_p95: the quantile returned nothing"),
        ("breach", "web/errors: error_rate 5 % against a limit of 1 % (baseline 0.2 %, 1000 requests)"),
        ("bake", "a has baked 9m 45s of 30m"),
        ("sample", "100 of 2000 requests in a so far"),
        ("replicas", "no run may rise: eu-2 was not heard of for 12s"),
        ("schedule", "outside the allowed hours (mon-thu 13:00-14:00 UTC)"),
    ]
    assert [block.clears_at for block in decision.blocks] == [
        None,
        None,
        NOW + timedelta(seconds=1215),
        None,
        None,
        datetime(2026, 11, 18, 13, 0, tzinfo=UTC),
    ]


def test_a_breach_that_has_not_lasted_yet_is_told_with_its_time_so_far() -> None:
    sides, timers = {"on": {"error_rate": 0.05}}, baked(breached=breached(errors_high=60))
    decision = decided(make_run(PLAN, stage=0), sides=sides, observations=timers, elapsed=0.0)
    told = "error_rate 5 % against a limit of 1 % for 1m (baseline 0.2 %, 1000 requests)"
    assert blocks_of(decision) == [("breach", f"web/errors-high: {told}")]


def test_a_sample_that_is_too_small_is_told_as_such() -> None:
    decision = decided(make_run(PLAN, stage=0), sides={"on": {"total": 7.0}}, observations=baked())
    assert blocks_of(decision)[0] == (
        "sample",
        "web/errors-high: too few requests: error_rate: 7 requests in the window, 200 needed",
    )


def test_a_minimum_total_is_reached_by_exactly_that_many_requests() -> None:
    plan = make_plan(
        stages=[
            {"name": "a", "exposure": "1%", "bake": "1m", "minTotal": {"requests": 2000}},
            {"name": "b", "exposure": "50%", "bake": "1m"},
        ]
    )
    reached = baked(requests=2000.0)
    assert decided(make_run(plan, stage=0), plan, observations=reached, elapsed=0.0).action == "advance"


def test_rules_that_only_observe_judge_nothing() -> None:
    rules = [{"id": "watch", "if": "error_rate > 1%", "then": "kill", "mode": "observe"}]
    decision = decided(make_run(PLAN, stage=0), PLAN, {"rules": rules}, observations=baked())
    assert blocks_of(decision) == [("unknown", "no rule could be judged")]


def test_while_the_window_shows_the_stage_before_the_bake_says_when_it_starts() -> None:
    observations = baked(bake=600.0, since_confirmed=200.0)
    decision = decided(make_run(PLAN, stage=0), observations=observations, elapsed=0.0)
    assert blocks_of(decision) == [
        ("bake", "canary has baked 10m of 30m (starts in 1m 40s, once the window shows this stage alone)")
    ]
    assert decision.blocks[0].clears_at == NOW + timedelta(seconds=100 + 1200)
    settled = decided(make_run(PLAN, stage=0), elapsed=0.0, observations=baked(since_confirmed=299.0))
    assert [block.clears_at for block in settled.blocks] == [NOW + timedelta(seconds=1)]
    exactly = baked(bake=1800.0, since_confirmed=300.0)
    assert decided(make_run(PLAN, stage=0), elapsed=0.0, observations=exactly).action == "advance"


def test_an_unconfirmed_step_says_what_it_waits_for() -> None:
    run = make_run(PLAN, stage=1, confirmed_at=None, confirmed_exposure=1_000)
    before = shown(run, PLAN, exposure=1_000)
    decision = decided(run, observed=before, observations=baked(), since_apply=1.0)
    text = "10 % is not confirmed yet: waiting for the provider to show the change"
    assert blocks_of(decision) == [("settling", text)]


def test_an_unread_flag_is_the_only_thing_told_of_the_stage() -> None:
    decision = decided(make_run(PLAN, stage=1), observed=Unknown("404"), observations=baked(bake=0.0))
    assert blocks_of(decision) == [("unknown", "the provider could not be read: 404")]


def test_a_missing_baseline_for_full_exposure_names_every_metric() -> None:
    run, guardrails = make_run(PLAN, stage=2), make_guardrails(PLAN)
    inputs = make_inputs(run, PLAN, guardrails, observations=baked())
    hour = {guardrails[0].question(metric, "off", 3600.0) for metric in guardrails[0].metrics}
    asked = [(question, answer) for question, answer in inputs.readings if question not in hour]
    decision = assess_and_decide(run, PLAN, guardrails, replace(inputs, readings=asked))[1]
    missing = "web/error_rate, web/latency_p95"
    assert blocks_of(decision) == [
        ("baseline", f"the control's baseline for 100 % is not measured yet: {missing}")
    ]


def test_a_paused_run_says_why_it_was_paused() -> None:
    run = make_run(PLAN, stage=1, phase="paused", status="paused by dana: looking")
    is_whole(decided(run, observations=baked()), "hold", "user", "paused by dana: looking")


def test_an_approval_is_asked_for_by_name_and_waited_for_by_name() -> None:
    plan = gated_plan()
    named = {"stage": 0, "exposure": 1_000}
    asking = decided(make_run(plan, stage=0), plan, observations=baked())
    is_whole(asking, "request_approval", "policy", "b (50 %) waits for approval from managers", **named)
    waiting = decided(make_run(plan, stage=0, approval=request()), plan, observations=baked())
    assert blocks_of(waiting) == [("approval", "b waits for approval from managers")]


def test_an_approval_is_asked_for_also_while_closed_and_entered_only_when_open() -> None:
    stages = [
        {"name": "a", "exposure": "1%", "bake": "1m"},
        {"name": "b", "exposure": "50%", "bake": "1m", "approval": {"from": ["leads", "managers"]}},
    ]
    shut = make_plan(
        stages=stages, schedule={"advanceOnly": [{"days": "mon-thu", "from": "13:00", "to": "14:00"}]}
    )
    asking = decided(make_run(shut, stage=0), shut, observations=baked())
    assert asking.text == "b (50 %) waits for approval from leads, managers"
    granted = request(granted_by="kim", granted_at=NOW)
    held = decided(make_run(shut, stage=0, approval=granted), shut, observations=baked())
    assert [block.code for block in held.blocks] == ["schedule"]
    both = decided(make_run(shut, stage=0, approval=request()), shut, observations=baked())
    assert [block.text for block in both.blocks][1:] == ["b waits for approval from leads, managers"]


def test_a_start_waits_for_the_allowed_hours() -> None:
    plan = make_plan(schedule={"advanceOnly": [{"days": "mon-thu", "from": "13:00", "to": "14:00"}]})
    decision = decided(make_run(plan), plan, observed=FlagState(enabled=False, exposure=0))
    assert blocks_of(decision) == [("schedule", "outside the allowed hours (mon-thu 13:00-14:00 UTC)")]


def test_an_obstacle_holds_a_start_and_an_advance_and_nothing_that_lowers() -> None:
    obstacle: dict[str, Any] = {"obstacles": ("a kill may be missing",)}
    start = decided(make_run(PLAN), observed=FlagState(enabled=False, exposure=0), **obstacle)
    assert blocks_of(start) == [("replicas", "no run may rise: a kill may be missing")]
    assert decided(make_run(PLAN, stage=1), observations=baked(), **obstacle).action == "hold"
    timers = baked(breached=breached(p95_2x=600))
    back = decided(make_run(PLAN, stage=1), sides={"on": {"p95": 0.25}}, observations=timers, **obstacle)
    assert back.action == "step_back"


def first_stage_gated() -> RolloutPlan:
    return make_plan(
        stages=[{"name": "a", "exposure": "1%", "bake": "1m", "approval": {"from": ["leads"], "timeout": "2h"}}]
    )


def test_a_start_that_nobody_approves_in_time_is_abandoned() -> None:
    plan, off = first_stage_gated(), FlagState(enabled=False, exposure=0)
    run = make_run(plan, approval=request(stage=0))
    nobody = {"stage": NOT_STARTED, "exposure": 0, "audience": False}

    def after(waited: float, run: Run = run) -> Decision:
        observations = Observations(run_version=1, approval_wait=waited)
        return decided(run, plan, observed=off, observations=observations, elapsed=0.0)

    is_whole(after(7200.0), "abandon", "schedule", "nobody approved the stage a within 2h", **nobody)
    assert after(7199.0).action == "hold"
    granted = make_run(plan, approval=request(stage=0, granted_by="kim", granted_at=NOW))
    assert after(7200.0, granted).action == "start"


def test_an_approval_of_a_stage_that_needs_none_any_more_does_not_run_out() -> None:
    run = make_run(PLAN, stage=0, approval=request(stage=1))
    assert decided(run, observations=baked(approval_wait=1e9)).action == "advance"


def test_an_approval_that_runs_out_pauses_a_progressing_run_and_leaves_a_paused_one() -> None:
    plan = gated_plan()
    late = baked(approval_wait=86_400.0)
    decision = decided(make_run(plan, stage=0, approval=request()), plan, observations=late)
    named = {"stage": 0, "exposure": 1_000}
    is_whole(decision, "pause", "schedule", "nobody approved the stage b within 24h", **named)
    paused = make_run(plan, stage=0, approval=request(), phase="paused", status="rests")
    assert decided(paused, plan, observations=late).text == "rests"


# — a law —

sides_of_any_kind = st.fixed_dictionaries(
    {},
    optional={
        "total": st.one_of(st.none(), st.just(math.nan), st.floats(0, 1e6)),
        "error_rate": st.floats(0, 1),
        "p95": st.one_of(st.none(), st.just(math.nan), st.just(math.inf), st.floats(0, 100)),
        "age_seconds": st.one_of(st.none(), st.floats(0, 1000)),
        "failure": st.one_of(st.none(), st.just("down")),
        "series": st.integers(1, 3),
    },
)


@given(on=sides_of_any_kind, off=sides_of_any_kind, stage=st.integers(0, 2), bake=st.sampled_from([0.0, 1e6]))
def test_whatever_is_measured_an_advance_means_that_every_required_rule_passed(
    on: dict[str, Any], off: dict[str, Any], stage: int, bake: float
) -> None:
    run, guardrails = make_run(PLAN, stage=stage), make_guardrails(PLAN)
    inputs = make_inputs(run, PLAN, guardrails, sides={"on": on, "off": off}, observations=baked(bake=bake))
    evidence, decision = assess_and_decide(run, PLAN, guardrails, inputs)
    if decision.action == "advance":
        assert {verdict.outcome for verdict in evidence.verdicts} == {"pass"}
        assert decision.stage == stage + 1
        assert bake > 0
    if decision.exposure > run.exposure:
        assert decision.action == "advance"
