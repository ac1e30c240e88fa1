"""What people see of a run."""

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from controller.domain.assess import assess_and_decide
from controller.domain.catalogue import Unreadable
from controller.domain.evidence import Verdict
from controller.domain.explain import explanation, plan_summary, run_status, summary_of, unreadable_summary
from controller.domain.flag import FlagState
from controller.domain.rollout import (
    NOT_STARTED,
    ApprovalRequest,
    Block,
    Observations,
    Phase,
    Quarantine,
    Run,
    Seen,
)
from controller.domain.status import Explanation, KillStatus, PlanSummary, RuleStatus, RunStatus, StageStatus
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
    assert (summary.plan, summary.revision, summary.run, summary.phase) == (
        "checkout-v2",
        3,
        "checkout-v2#3",
        None,
    )
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


# — the whole of what is shown —

LATER = NOW + timedelta(hours=1)
BREACH = Verdict(
    policy="web", rule="errors-high", then="pause", enforced=True, outcome="breach", detail="",
    condition="error_rate > 1%", metric="error_rate", unit="ratio", value=0.05, limit=0.01, baseline=0.002,
    sample=1000.0, control_sample=900.0, query="sum(x)", for_seconds=300.0,
)  # fmt: skip
SILENT = replace(BREACH, rule="quiet", outcome="no_data", detail="the total returned nothing", enforced=False)
KILL = KillStatus(
    kill_id="k1", flag=PLAN.spec.flag, accepted_at=NOW, actor="dana", reason="INC-1", confirmed_at=None
)
BREACH_STATUS = RuleStatus(
    policy="web", rule="errors-high", condition="error_rate > 1%", then="pause", enforced=True, outcome="breach",
    detail="", unit="ratio", value=0.05, limit=0.01, baseline=0.002, sample=1000.0, breached_seconds=75.0,
    for_seconds=300.0, query="sum(x)",
)  # fmt: skip


def seen(*verdicts: Verdict, blocks: tuple[Block, ...] = (), **changes: Any) -> Observations:
    tick = Seen(at=NOW, flag=shown(make_run(PLAN, stage=1), PLAN), verdicts=verdicts, blocks=blocks)
    values: dict[str, Any] = {"since_confirmed": 1e6, "seen": tick, "breached": breached(errors_high=75)}
    return Observations(**(values | changes))


def test_a_status_is_complete() -> None:
    plan = replace(
        make_plan(stages=[
            {"name": "canary", "exposure": "1%", "bake": "30m"},
            {"name": "early", "exposure": "10%", "bake": "2h"},
            {"name": "all", "exposure": "100%", "bake": "24h", "approval": {"from": ["leads"]}},
        ]),
        metadata=replace(PLAN.metadata, owner="checkout", labels={"tier": "1"}, links={"runbook": "r"}),
    )  # fmt: skip
    run = make_run(plan, stage=1, status="advanced", version=5, author="kim", plan_revision=3, created_at=LATER)
    bake = Block(code="bake", text="early has baked 1h of 2h")
    assert run_status(run, plan, GUARDRAILS, seen(BREACH, blocks=(bake,), bake=3600.0), [KILL]) == RunStatus(
        id="checkout-v2#1",
        plan="checkout-v2",
        flag=plan.spec.flag,
        phase="progressing",
        mode="enforce",
        stage=1,
        stages=[
            StageStatus(
                name="canary", exposure=1_000, state="done", bake_seconds=1800.0, baked_seconds=1800.0,
                needs_approval=False,
            ),
            StageStatus(
                name="early", exposure=10_000, state="current", bake_seconds=7200.0, baked_seconds=3600.0,
                needs_approval=False,
            ),
            StageStatus(
                name="all", exposure=100_000, state="ahead", bake_seconds=86_400.0, baked_seconds=0.0,
                needs_approval=True,
            ),
        ],
        desired_exposure=10_000,
        observed_exposure=10_000,
        observed_enabled=True,
        observed_at=NOW,
        confirmed=True,
        reason="advanced",
        blocks=[bake],
        next_exposure=100_000,
        next_in_seconds=3600.0,
        rules=[BREACH_STATUS],
        kills=[KILL],
        plan_revision=3,
        author="kim",
        started_by="dana",
        created_at=LATER,
        ended_at=None,
        version=5,
        owner="checkout",
        labels={"tier": "1"},
        links={"runbook": "r"},
    )  # fmt: skip


def test_a_run_that_was_never_looked_at_shows_nothing_as_observed() -> None:
    status = run_status(make_run(PLAN, stage=1), PLAN, GUARDRAILS, Observations(), [])
    assert (status.observed_exposure, status.observed_enabled, status.observed_at) == (None, None, None)
    assert (status.blocks, status.rules, status.next_in_seconds) == ([], [], None)


def test_a_flag_that_could_not_be_read_is_not_shown_as_observed() -> None:
    unread = Observations(seen=Seen(at=NOW, flag=None, flag_unknown="timeout"))
    status = run_status(make_run(PLAN, stage=1), PLAN, GUARDRAILS, unread, [])
    assert (status.observed_exposure, status.observed_enabled, status.observed_at) == (None, None, None)


@pytest.mark.parametrize(
    ("phase", "exposure", "confirmed", "next_exposure"),
    [
        ("progressing", 10_000, True, 50_000),
        ("paused", 10_000, True, None),
        ("killed", 0, False, None),
        ("completed", 10_000, True, None),
    ],
)
def test_an_ended_run_is_confirmed_by_what_is_seen_of_its_flag(
    phase: Phase, exposure: int, confirmed: bool, next_exposure: int | None
) -> None:
    run = make_run(PLAN, stage=1, phase=phase, exposure=exposure)
    status = run_status(run, PLAN, GUARDRAILS, seen(), [])
    assert (status.confirmed, status.next_exposure) == (confirmed, next_exposure)
    if not run.active:
        assert not run_status(run, PLAN, GUARDRAILS, Observations(), []).confirmed
    if phase != "progressing":
        assert status.next_in_seconds is None


def test_an_active_run_is_confirmed_by_its_own_read_and_an_ended_one_tells_when_it_ended() -> None:
    between = make_run(PLAN, stage=1, exposure=9_000)
    assert run_status(between, PLAN, GUARDRAILS, seen(), []).confirmed
    unconfirmed = make_run(PLAN, stage=1, confirmed_at=None)
    assert not run_status(unconfirmed, PLAN, GUARDRAILS, seen(), []).confirmed
    ended = make_run(PLAN, stage=1, phase="completed", ended_at=LATER)
    assert run_status(ended, PLAN, GUARDRAILS, seen(), []).ended_at == LATER


def test_the_last_stage_has_no_next_and_a_completed_run_has_baked_all() -> None:
    last = make_run(PLAN, stage=3)
    assert run_status(last, PLAN, GUARDRAILS, seen(bake=1e9), []).next_exposure is None
    assert run_status(last, PLAN, GUARDRAILS, seen(bake=1e9), []).stages[3].baked_seconds == 86_400.0
    done = run_status(replace(last, phase="completed"), PLAN, GUARDRAILS, seen(), []).stages
    assert [(stage.state, stage.baked_seconds) for stage in done] == [
        ("done", 1800.0),
        ("done", 7200.0),
        ("done", 43_200.0),
        ("done", 86_400.0),
    ]


def next_in(observations: Observations, **run: Any) -> float | None:
    return run_status(make_run(PLAN, **run), PLAN, GUARDRAILS, observations, []).next_in_seconds


def test_the_countdown_takes_bake_settling_and_schedule_together() -> None:
    assert next_in(seen(bake=7000.0), stage=1) == 200.0
    assert next_in(seen(bake=7000.0, since_confirmed=200.0), stage=1) == 300.0
    assert next_in(seen(bake=9000.0, since_confirmed=900.0), stage=1) == 0.0
    opens = Block(code="schedule", text="closed", clears_at=LATER)
    assert next_in(seen(blocks=(opens,), bake=7000.0), stage=1) == 3600.0
    assert next_in(seen(blocks=(opens,), bake=0.0), stage=1) == 7200.0
    assert next_in(seen(blocks=(replace(opens, clears_at=None),), bake=7000.0), stage=1) == 200.0
    bake = Block(code="bake", text="bakes", clears_at=LATER)
    assert next_in(seen(blocks=(bake,), bake=7000.0), stage=1) == 200.0


def test_there_is_no_countdown_before_the_first_stage_and_none_for_an_unconfirmed_step() -> None:
    assert next_in(seen(), stage=1, confirmed_at=None) is None
    assert next_in(seen(), stage=1, phase="paused") is None
    assert next_in(seen(), stage=NOT_STARTED, phase="progressing", confirmed_at=NOW) is None
    assert next_in(seen(blocks=(Block(code="approval", text="waits"),)), stage=1) is None
    assert next_in(Observations(since_confirmed=1e6), stage=1) is None


def test_a_line_of_the_list_is_complete() -> None:
    run = make_run(PLAN, stage=1, status="advanced", exposure=9_000)
    assert plan_summary(PLAN, 3, (run, seen())) == PlanSummary(
        plan="checkout-v2",
        flag=PLAN.spec.flag,
        revision=3,
        run="checkout-v2#1",
        phase="progressing",
        stage="2/4 early",
        desired_exposure=9_000,
        observed_exposure=10_000,
        reason="advanced",
        next_exposure=10_000,
    )
    assert plan_summary(PLAN, 3, None) == PlanSummary(
        plan="checkout-v2",
        flag=PLAN.spec.flag,
        revision=3,
        run=None,
        phase=None,
        stage="–",
        desired_exposure=0,
        observed_exposure=None,
        reason="never started",
    )
    assert plan_summary(PLAN, 3, (make_run(PLAN), Observations())).stage == "–"


def test_an_approval_that_was_asked_for_waits_for_somebody_until_the_run_has_ended() -> None:
    request = ApprovalRequest(id="a", stage=2, plan_revision=1, requested_at=NOW)
    waiting = make_run(PLAN, stage=1, exposure=10_000, approval=request)
    assert plan_summary(PLAN, 3, (waiting, seen())).waits_for_approval
    for over in (
        replace(waiting, phase="abandoned"),
        replace(waiting, approval=replace(request, granted_at=NOW, granted_by="kim")),
    ):
        assert not plan_summary(PLAN, 3, (over, seen())).waits_for_approval


def test_a_line_of_a_status_says_what_the_line_of_its_run_does() -> None:
    run = make_run(PLAN, stage=1, status="advanced", exposure=9_000)
    status = run_status(run, PLAN, GUARDRAILS, seen(), [])
    assert summary_of(status) == plan_summary(PLAN, run.plan_revision, (run, seen()))


def test_a_run_of_a_plan_that_has_fewer_stages_now_is_listed_at_the_last_one() -> None:
    stages = [{"name": "a", "exposure": "1%", "bake": "1m"}, {"name": "b", "exposure": "50%", "bake": "1m"}]
    short = make_plan(stages=stages)
    assert plan_summary(short, 4, (make_run(PLAN, stage=2), Observations())).stage == "3/2 b"


def test_a_quarantined_run_is_listed_with_its_quarantine_until_it_ends() -> None:
    quarantine = Quarantine(since=NOW, failures=2, why="boom")
    run = make_run(PLAN, stage=1, status="advanced")
    assert plan_summary(PLAN, 3, (run, seen(quarantine=quarantine))).reason.startswith("quarantined since")
    ended = replace(run, phase="abandoned")
    assert plan_summary(PLAN, 3, (ended, seen(quarantine=quarantine))).reason == "advanced"


def test_an_explanation_is_complete() -> None:
    run = make_run(PLAN, stage=1, status="advanced from 1 % to 10 %")
    blocks = (
        Block(code="bake", text="early has baked 1h of 2h", clears_at=LATER),
        Block(code="replicas", text="no run may rise: eu-2 is absent"),
    )
    watched = replace(BREACH, rule="watched", enforced=False)
    observations = seen(BREACH, SILENT, replace(BREACH, rule="fine", outcome="pass"), watched, blocks=blocks)
    told = "error_rate 5 % against a limit of 1 %"
    facts = "(baseline 0.2 %, 1000 requests)"
    assert explanation(run, observations) == Explanation(
        run="checkout-v2#1",
        phase="progressing",
        text="\n".join([
            "checkout-v2#1 is progressing at 10 %: advanced from 1 % to 10 %.",
            "- bake: early has baked 1h of 2h (earliest 2026-11-18 13:00:00 UTC)",
            "- replicas: no run may rise: eu-2 is absent",
            f"- pause rule web/errors-high: {told} for 1m 15s {facts}",
            "- web/quiet: no data: the total returned nothing (observed only)",
            f"- pause rule web/watched: {told} {facts} (observed only)",
        ]),
        blocks=list(blocks),
        rules=[
            BREACH_STATUS,
            replace(BREACH_STATUS, rule="quiet", outcome="no_data", detail=SILENT.detail, enforced=False,
                    breached_seconds=0.0),
            replace(BREACH_STATUS, rule="fine", outcome="pass", breached_seconds=0.0),
            replace(BREACH_STATUS, rule="watched", enforced=False, breached_seconds=0.0),
        ],
    )  # fmt: skip


def test_what_a_block_tells_already_is_not_told_twice() -> None:
    block = Block(code="unknown", text="web/quiet: no data: the total returned nothing")
    told = replace(SILENT, enforced=True)
    text = explanation(make_run(PLAN, stage=1), seen(told, blocks=(block,))).text
    assert text.count("web/quiet") == 1
    both = Block(code="breach", text="something else")
    assert "web/quiet" in explanation(make_run(PLAN, stage=1), seen(told, blocks=(both,))).text


@pytest.mark.parametrize(
    ("phase", "words"),
    [("pending", "waiting to start"), ("paused", "paused"), ("completed", "completed"), ("killed", "killed")],
)
def test_an_explanation_says_the_phase_in_words(phase: Phase, words: str) -> None:
    text = explanation(make_run(PLAN, stage=1, phase=phase), seen()).text
    assert text == f"checkout-v2#1 is {words} at 10 %: just created."


def test_an_ended_run_explains_neither_old_blocks_nor_old_rules() -> None:
    ended = make_run(PLAN, stage=1, phase="abandoned", status="abandoned by dana")
    block = Block(code="bake", text="bakes")
    told = "checkout-v2#1 is abandoned at 10 %: abandoned by dana."
    assert explanation(ended, seen(BREACH, blocks=(block,))) == Explanation(
        run="checkout-v2#1", phase="abandoned", text=told, blocks=[], rules=[]
    )
    assert explanation(ended, Observations()).text == told


def test_a_run_nobody_has_looked_at_says_so_in_its_last_line() -> None:
    found = explanation(make_run(PLAN), Observations())
    assert found.text.splitlines() == [
        "checkout-v2#1 is waiting to start at 0 %: just created.",
        "- no tick has looked at it yet",
    ]
    assert (found.blocks, found.rules) == ([], [])


def test_an_explanation_tells_what_the_provider_told_beside_the_share() -> None:
    flag = FlagState(
        enabled=True, exposure=10_000, foreign=("rule eu-only", "segment beta"), changed_by="erin", changed_at=NOW,
        delivered_seconds=0.31,
    )  # fmt: skip
    run = make_run(make_plan(), stage=1)

    def told(shown: FlagState) -> str:
        return explanation(run, Observations(seen=Seen(at=NOW, flag=shown))).text

    assert (
        "- at the provider: 10 %; not ours are rule eu-only, segment beta; last changed by erin at "
        "2026-11-18 12:00:00 UTC; reached SDKs after 310 ms"
    ) in told(flag)
    assert "- at the provider: off; last changed by erin" in told(
        FlagState(enabled=False, exposure=5, changed_by="erin")
    )
    assert "at the provider" not in told(FlagState(enabled=True, exposure=10_000))


def test_a_status_shows_what_the_provider_told_and_what_a_kill_does_to_it() -> None:
    flag = FlagState(
        enabled=True,
        exposure=1,
        foreign=("rule eu-only",),
        changed_by="erin",
        changed_at=NOW,
        delivered_seconds=0.5,
    )
    plan = make_plan(serve={"rollout": "on", "fallback": "off", "kill": "fallthrough"})
    run = make_run(plan, stage=1)
    status = run_status(run, plan, GUARDRAILS, Observations(seen=Seen(at=NOW, flag=flag)), [])
    assert (status.foreign, status.on_kill) == (["rule eu-only"], "fallthrough")
    assert (status.changed_by, status.changed_at, status.delivered_seconds) == ("erin", NOW, 0.5)
    silent = run_status(run, PLAN, GUARDRAILS, Observations(), [])
    assert (silent.foreign, silent.on_kill, silent.changed_by, silent.changed_at) == ([], "off", "", None)
