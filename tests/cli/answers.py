"""Realistic answers: one rollout at 10 % with the shipped kinds of rules, and what follows from it."""

from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec.structs import replace

from controller.domain.plan import FlagRef
from controller.domain.rollout import Block
from controller.domain.status import (
    Explanation,
    KillReceipt,
    KillStatus,
    PlanSummary,
    RuleStatus,
    RunStatus,
    StageStatus,
)

NOW = datetime(2026, 11, 18, 14, 0, tzinfo=UTC)
FLAG = FlagRef(provider="main", environment="production", key="checkout-v2")

STAGES = [
    StageStatus(
        name="canary", exposure=1000, state="done", bake_seconds=1800, baked_seconds=1800, needs_approval=False
    ),
    StageStatus(
        name="early", exposure=10_000, state="current", bake_seconds=7200, baked_seconds=2880, needs_approval=False
    ),
    StageStatus(
        name="half", exposure=50_000, state="ahead", bake_seconds=43_200, baked_seconds=0, needs_approval=True
    ),
    StageStatus(
        name="everyone",
        exposure=100_000,
        state="ahead",
        bake_seconds=86_400,
        baked_seconds=0,
        needs_approval=False,
    ),
]


def rule(name: str, condition: str, then: str, **changes: Any) -> RuleStatus:
    values: dict[str, Any] = {
        "policy": "web-service",
        "rule": name,
        "condition": condition,
        "then": then,
        "enforced": True,
        "outcome": "pass",
        "detail": "",
        "unit": "ratio",
        "value": 0.0021,
        "limit": 0.01,
        "baseline": 0.0018,
        "sample": 41_210,
        "breached_seconds": 0.0,
        "for_seconds": 300.0,
        "query": 'sum(increase(http_requests_total{flag="checkout-v2"}[300s]))',
    }
    return RuleStatus(**(values | changes))


RULES = [
    rule("errors-high", "error_rate > 1%", "pause"),
    rule(
        "p95-2x",
        "latency_p95 > 2x baseline",
        "step_back",
        unit="seconds",
        value=0.702,
        limit=0.620,
        baseline=0.310,
        outcome="breach",
        breached_seconds=75.0,
    ),
    rule(
        "p95-3x",
        "latency_p95 > 3x baseline",
        "kill",
        unit="seconds",
        value=0.702,
        limit=0.930,
        baseline=0.310,
        for_seconds=120.0,
    ),
    rule(
        "errors-jump",
        "error_rate > 10% and baseline(error_rate) < 1%",
        "kill",
        value=None,
        limit=None,
        baseline=None,
        sample=42,
        outcome="too_few",
        detail="42 requests of at least 200 on the control side",
    ),
]
BLOCKS = [
    Block(code="breach", text="web-service/p95-2x: latency_p95 702 ms against a limit of 620 ms", clears_at=None),
    Block(code="bake", text="48m of 2h baked", clears_at=NOW + timedelta(minutes=72)),
]


def run(**changes: Any) -> RunStatus:
    values: dict[str, Any] = {
        "id": "checkout-v2#3",
        "plan": "checkout-v2",
        "flag": FLAG,
        "phase": "progressing",
        "mode": "enforce",
        "stage": 1,
        "stages": STAGES,
        "desired_exposure": 10_000,
        "observed_exposure": 10_000,
        "observed_enabled": True,
        "observed_at": NOW - timedelta(seconds=8),
        "confirmed": True,
        "reason": "advanced 1 % → 10 %: every guardrail passed for 30m",
        "blocks": BLOCKS,
        "next_exposure": 50_000,
        "next_in_seconds": 4320.0,
        "rules": RULES,
        "kills": [],
        "plan_revision": 4,
        "author": "dana",
        "started_by": "kim",
        "created_at": NOW - timedelta(hours=2, minutes=3),
        "ended_at": None,
        "version": 6,
        "owner": "team-checkout",
        "links": {"runbook": "https://runbooks.example/checkout-v2"},
    }
    return RunStatus(**(values | changes))


def kill(**changes: Any) -> KillStatus:
    values: dict[str, Any] = {
        "kill_id": "k-7f3a",
        "flag": FLAG,
        "accepted_at": NOW,
        "actor": "on-call",
        "reason": "INC-4821 5xx at checkout",
        "confirmed_at": NOW + timedelta(seconds=2),
        "run": "checkout-v2#3",
    }
    return KillStatus(**(values | changes))


def receipt(**changes: Any) -> KillReceipt:
    values: dict[str, Any] = {
        "kill_id": "k-7f3a",
        "flag": FLAG,
        "accepted_at": NOW,
        "durable": True,
        "provider_updated_at": NOW + timedelta(seconds=1),
        "confirmed_at": NOW + timedelta(seconds=2.1),
        "replicas": ["rampart-0", "rampart-1"],
        "run": "checkout-v2#3",
    }
    return KillReceipt(**(values | changes))


PAUSED = run(
    phase="paused", reason="paused: errors-high 5.1 % against a limit of 1 % for 5m", next_in_seconds=None
)
COMPLETED = run(
    phase="completed",
    stage=3,
    desired_exposure=100_000,
    observed_exposure=100_000,
    reason="completed: everyone baked 24h",
    rules=[],
    blocks=[],
    stages=[replace(stage, state="done") for stage in STAGES],
    next_exposure=None,
    next_in_seconds=None,
    ended_at=NOW,
)
KILLED = run(
    phase="killed",
    desired_exposure=0,
    observed_exposure=0,
    observed_enabled=False,
    reason="killed by web-service/p95-3x: latency_p95 950 ms against a limit of 930 ms for 2m",
    rules=[],
    blocks=[],
    next_exposure=None,
    next_in_seconds=None,
    kills=[kill()],
    ended_at=NOW,
)
SUMMARY = PlanSummary(
    plan="checkout-v2",
    flag=FLAG,
    revision=4,
    run="checkout-v2#3",
    phase="progressing",
    stage="2/4 early",
    desired_exposure=10_000,
    observed_exposure=10_000,
    reason="advanced 1 % → 10 %",
)
NEVER_STARTED = replace(
    SUMMARY, plan="search-v3", run=None, phase=None, stage="–", observed_exposure=None, reason="never started"
)
EXPLANATION = Explanation(
    run="checkout-v2#3",
    phase="progressing",
    text="checkout-v2#3 is progressing at 10 %: advanced.\n- bake: 48m of 2h (earliest 2026-11-18 15:12:00 UTC)",
    blocks=BLOCKS,
    rules=RULES,
)
