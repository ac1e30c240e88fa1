"""What is decided, most urgent rule first. Each test is one sentence of the promises I1, I2, I9–I12, I14, I21."""

import math
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.assess import assess_and_decide
from controller.domain.decide import Decision
from controller.domain.flag import FlagState, Unknown
from controller.domain.plan import RolloutPlan
from controller.domain.rollout import NOT_STARTED, ApprovalRequest, Run, Timer
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
