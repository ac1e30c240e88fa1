"""What people see of a run."""

from typing import Any

from msgspec.structs import replace

from controller.domain.assess import assess_and_decide
from controller.domain.catalogue import Unreadable
from controller.domain.explain import explanation, plan_summary, run_status, unreadable_summary
from controller.domain.rollout import Observations, Run, Seen
from tests.support.rollouts import NOW, baked, breached, make_guardrails, make_inputs, make_plan, make_run, shown

PLAN = make_plan()
GUARDRAILS = make_guardrails(PLAN)


def ticked(run: Run, **inputs: Any) -> Observations:
    found = make_inputs(run, PLAN, GUARDRAILS, **inputs)
    evidence, decision = assess_and_decide(run, PLAN, GUARDRAILS, found)
    seen = Seen(at=NOW, flag=shown(run, PLAN), verdicts=evidence.verdicts, blocks=decision.blocks)
    return Observations(
        bake=evidence.observations.bake,
        since_confirmed=evidence.observations.since_confirmed,
        breached=evidence.observations.breached,
        seen=seen,
    )


def test_the_status_of_a_baking_run_counts_down_to_the_next_stage() -> None:
    run = make_run(PLAN, stage=1)
    status = run_status(run, PLAN, GUARDRAILS, ticked(run, observations=baked(bake=3600.0)), [])
    assert (status.stage, status.desired_exposure, status.observed_exposure) == (1, 10_000, 10_000)
    assert (status.next_exposure, status.next_in_seconds) == (50_000, 7200 - 3615)
    assert [stage.state for stage in status.stages] == ["done", "current", "ahead", "ahead"]
    assert [rule.outcome for rule in status.rules] == ["pass"] * 4


def test_no_countdown_is_shown_while_something_else_than_time_is_in_the_way() -> None:
    run = make_run(PLAN, stage=1)
    observations = ticked(run, observations=baked(bake=3600.0), sides={"on": {"total": None}})
    assert run_status(run, PLAN, GUARDRAILS, observations, []).next_in_seconds is None


def test_an_explanation_names_every_block_and_its_present_value() -> None:
    run = make_run(PLAN, stage=1, status="advanced from 1 % to 10 %")
    sides = {"on": {"error_rate": 0.05, "p95": None}}
    observations = ticked(run, observations=baked(breached=breached(errors_high=60)), sides=sides)
    text = explanation(run, observations).text
    assert "checkout-v2#1 is progressing at 10 %: advanced from 1 % to 10 %" in text
    assert "error_rate 5 % against a limit of 1 % for 1m 15s" in text
    assert "web/p95-2x: no data: latency_p95: the quantile returned nothing" in text


def test_a_run_nobody_has_looked_at_says_so() -> None:
    assert "no tick has looked at it yet" in explanation(make_run(PLAN), Observations()).text


def test_a_plan_that_was_never_started_is_listed_as_such() -> None:
    summary = plan_summary(PLAN, 3, None)
    assert (summary.run, summary.phase, summary.reason, summary.revision) == (None, None, "never started", 3)


def test_a_run_that_cannot_be_read_is_listed_with_what_to_do() -> None:
    damaged = Unreadable(kind="run", name="checkout-v2#3", why="Expected `str`", flag=PLAN.spec.flag)
    summary = unreadable_summary(PLAN, 3, damaged)
    assert (summary.plan, summary.run, summary.phase) == ("checkout-v2", "checkout-v2#3", None)
    assert summary.reason == (
        "checkout-v2#3 cannot be read from the database: Expected `str`. Nothing of it is judged, kill rules "
        "neither: watch the flag yourself, `rampart kill checkout-v2` works"
    )
    ended = unreadable_summary(PLAN, 3, replace(damaged, flag=None))
    assert ended.reason == "checkout-v2#3 cannot be read from the database: Expected `str`"


def test_an_ended_run_shows_no_old_verdicts() -> None:
    run = make_run(PLAN, stage=1, phase="killed", exposure=0)
    status = run_status(run, PLAN, GUARDRAILS, ticked(make_run(PLAN, stage=1)), [])
    assert (status.rules, status.blocks, status.next_exposure) == ([], [], None)
