"""Statuses as the API gives them, for tests of what shows them."""

from datetime import UTC, datetime
from typing import Any

from controller.domain.plan import FlagRef
from controller.domain.status import RuleStatus, RunStatus, StageStatus

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)

STAGES = [
    ("canary", 1_000, 1800.0),
    ("early", 10_000, 7200.0),
    ("half", 50_000, 43200.0),
    ("everyone", 100_000, 86400.0),
]


def make_rule(rule: str, **changes: Any) -> RuleStatus:
    values: dict[str, Any] = {
        "policy": "web-service",
        "rule": rule,
        "condition": "error_rate > 1%",
        "then": "pause",
        "enforced": True,
        "outcome": "pass",
        "detail": "",
        "unit": "%",
        "value": 0.002,
        "limit": 0.01,
        "baseline": None,
        "sample": 1000.0,
        "breached_seconds": 0.0,
        "for_seconds": 300.0,
        "query": "q",
    }
    return RuleStatus(**(values | changes))


def make_status(run_id: str, **changes: Any) -> RunStatus:
    """A run in its second stage (10 %), of which the provider still shows the first."""
    plan, _, _ = run_id.partition("#")
    values: dict[str, Any] = {
        "id": run_id,
        "plan": plan,
        "flag": FlagRef(provider="main", environment="production", key=plan),
        "phase": "progressing",
        "mode": "enforce",
        "stage": 1,
        "stages": [_stage(index) for index in range(len(STAGES))],
        "desired_exposure": 10_000,
        "observed_exposure": 1_000,
        "observed_enabled": True,
        "observed_at": NOW,
        "confirmed": False,
        "reason": "advanced to early",
        "blocks": [],
        "next_exposure": 50_000,
        "next_in_seconds": None,
        "rules": [make_rule("errors-high")],
        "kills": [],
        "plan_revision": 1,
        "author": "dana",
        "started_by": "dana",
        "created_at": NOW,
        "ended_at": None,
        "version": 4,
        "owner": "team-checkout",
    }
    return RunStatus(**(values | changes))


def _stage(index: int) -> StageStatus:
    name, exposure, bake_seconds = STAGES[index]
    state: Any = "done" if index < 1 else "current" if index == 1 else "ahead"
    return StageStatus(
        name=name,
        exposure=exposure,
        state=state,
        bake_seconds=bake_seconds,
        baked_seconds=bake_seconds if index < 1 else 0.0,
        needs_approval=False,
    )
