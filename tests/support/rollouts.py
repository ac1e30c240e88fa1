"""Plans, policies, runs and readings for tests: small, explicit, and true in shape to what people write."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from controller.domain.assess import Inputs
from controller.domain.binding import Guardrail, bind
from controller.domain.evidence import Question, RatioQuestion, Reading
from controller.domain.flag import FlagState, Observation
from controller.domain.plan import FlagRef, RolloutPlan
from controller.domain.policy import GuardrailPolicy
from controller.domain.rollout import NOT_STARTED, Observations, Run, Timer

NOW = datetime(2026, 11, 18, 12, 0, tzinfo=UTC)  # a Wednesday
FLAG = FlagRef(provider="main", environment="production", key="checkout-v2")

POLICY: dict[str, Any] = {
    "apiVersion": "rampart/v1",
    "kind": "GuardrailPolicy",
    "metadata": {"name": "web"},
    "spec": {
        "source": "prom",
        "every": "15s",
        "window": "5m",
        "baseline": {"from": "control", "fallback": "before", "before": "1h"},
        "metrics": {
            "error_rate": {
                "bad": 'requests_total{flag="$flag",variation="$variation",code=~"5.."}',
                "total": 'requests_total{flag="$flag",variation="$variation"}',
            },
            "latency_p95": {
                "quantile": 0.95,
                "unit": "seconds",
                "histogram": 'seconds_bucket{flag="$flag",variation="$variation"}',
            },
        },
        "rules": [
            {"id": "errors-high", "if": "error_rate > 1%", "for": "5m", "then": "pause"},
            {"id": "errors-jump", "if": "error_rate > 10%", "for": "2m", "then": "kill"},
            {"id": "p95-2x", "if": "latency_p95 > 2x baseline", "floor": "20ms", "for": "5m", "then": "step_back"},
            {"id": "p95-3x", "if": "latency_p95 > 3x baseline", "floor": "20ms", "for": "2m", "then": "kill"},
        ],
        "minSample": {"requests": 200},
        "noData": {"after": "10m", "then": "pause"},
        "queryError": {"after": "5m", "then": "hold"},
    },
}

PLAN: dict[str, Any] = {
    "apiVersion": "rampart/v1",
    "kind": "RolloutPlan",
    "metadata": {"name": "checkout-v2"},
    "spec": {
        "flag": {"provider": "main", "environment": "production", "key": "checkout-v2"},
        "serve": {"rollout": "on", "fallback": "off"},
        "audience": {"always": [{"name": "staff", "match": {"email": {"endsWith": "@acme.example"}}}]},
        "stages": [
            {"name": "canary", "exposure": "1%", "bake": "30m"},
            {"name": "early", "exposure": "10%", "bake": "2h"},
            {"name": "half", "exposure": "50%", "bake": "12h"},
            {"name": "everyone", "exposure": "100%", "bake": "24h"},
        ],
        "guardrails": [{"policy": "web"}],
    },
}


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for key, value in changes.items():
        out[key] = merged(out[key], value) if isinstance(value, dict) and isinstance(out.get(key), dict) else value
    return out


def make_plan(**spec: Any) -> RolloutPlan:
    return msgspec.convert(merged(PLAN, {"spec": spec}), RolloutPlan)


def make_policy(**spec: Any) -> GuardrailPolicy:
    return msgspec.convert(merged(POLICY, {"spec": spec}), GuardrailPolicy)


def make_guardrails(plan: RolloutPlan, **spec: Any) -> tuple[Guardrail, ...]:
    return (bind(plan.spec.guardrails[0], make_policy(**spec), plan),)


def make_run(plan: RolloutPlan, *, stage: int = NOT_STARTED, **changes: Any) -> Run:
    share = plan.spec.stages[stage].share if stage != NOT_STARTED else 0
    started = stage != NOT_STARTED
    values: dict[str, Any] = {
        "id": "checkout-v2#1",
        "plan": "checkout-v2",
        "number": 1,
        "plan_revision": 1,
        "policy_revisions": {"web": 1},
        "flag": plan.spec.flag,
        "author": "dana",
        "started_by": "dana",
        "created_at": NOW,
        "phase": "progressing" if started else "pending",
        "stage": stage,
        "exposure": share,
        "audience": started,
        "confirmed_exposure": share if started else None,
        "confirmed_audience": started,
        "confirmed_at": NOW if started else None,
        "turned_on": started,
        "version": 1,
    }
    return Run(**(values | changes))


def reading(
    question: Question,
    *,
    total: float | None = 1000,
    error_rate: float = 0.002,
    p95: float | None = 0.1,
    **more: Any,
) -> Reading:
    values: dict[str, Any] = {"query": "q", "total": total, "age_seconds": 5.0}
    if isinstance(question, RatioQuestion):
        values["bad"] = None if total is None else error_rate * total
    else:
        values["value"] = p95
    return Reading(**(values | more))


def readings(
    plan: RolloutPlan, guardrails: tuple[Guardrail, ...], sides: Mapping[str, Mapping[str, Any]] | None = None
) -> list[tuple[Question, Reading]]:
    """Healthy answers for both variations over both spans; `sides` changes a variation's."""
    answers = []
    for guardrail in guardrails:
        spans = [None, guardrail.baseline.before_seconds] if guardrail.baseline else [None]
        for metric in guardrail.metrics:
            for variation in (plan.spec.serve.rollout, plan.spec.serve.fallback):
                for span in spans:
                    question = guardrail.question(metric, variation, span)
                    answers.append((question, reading(question, **(sides or {}).get(variation, {}))))
    return answers


def shown(run: Run, plan: RolloutPlan, **changes: Any) -> FlagState:
    """The provider exactly as the run wants it."""
    values: dict[str, Any] = {
        "enabled": run.exposure > 0,
        "exposure": run.exposure,
        "audience": tuple(rule.name for rule in plan.spec.audience.always) if run.audience else (),
        "off_serves": "off",
    }
    return FlagState(**(values | changes))


def make_inputs(
    run: Run,
    plan: RolloutPlan,
    guardrails: tuple[Guardrail, ...],
    *,
    sides: Mapping[str, Mapping[str, Any]] | None = None,
    observed: Observation | None = None,
    observations: Observations | None = None,
    **changes: Any,
) -> Inputs:
    values: dict[str, Any] = {
        "now": NOW,
        "readings": readings(plan, guardrails, sides),
        "observed": observed or shown(run, plan),
        "observations": observations or Observations(run_version=run.version),
        "elapsed": 15.0,
        "since_apply": 60.0,
        "settle_seconds": 5.0,
    }
    return Inputs(**(values | changes))


def baked(**changes: Any) -> Observations:
    """Accumulators of a run whose present stage has baked long enough for any stage here."""
    values: dict[str, Any] = {"run_version": 1, "since_confirmed": 1e6, "bake": 1e6, "requests": 1e6}
    return Observations(**(values | changes))


def breached(**seconds: float) -> dict[str, Timer]:
    """`breached(errors_high=300)` → a running timer of web/errors-high."""
    return {f"web/{name.replace('_', '-')}": Timer(value, running=True) for name, value in seconds.items()}
