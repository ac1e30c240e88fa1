"""What follows from a decision: the run's next state, its accumulators, its audit entry and the flag it wants."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
from msgspec.structs import replace

from controller.domain.accumulators import after_confirmation, after_exposure_change
from controller.domain.assess import Inputs, baseline_readings
from controller.domain.audit import AuditEntry
from controller.domain.binding import Guardrail
from controller.domain.decide import Decision, Evidence, stage_at
from controller.domain.flag import FlagState, SetShare
from controller.domain.plan import RolloutPlan
from controller.domain.rollout import NOT_STARTED, ApprovalRequest, Observations, Run, Served, transition


def state_after(run: Run, decision: Decision, now: datetime, extra: Mapping[str, Any]) -> Run:
    """The run as it will be committed; `extra` are changes that the decision itself does not carry."""
    changes: dict[str, Any] = {
        "stage": decision.stage,
        "exposure": decision.exposure,
        "audience": decision.audience,
        "status": decision.text,
    }
    written = run.accepted and run.accepted.written()
    match decision.action:
        case "start" | "advance" | "step_back" | "lower":
            changes |= {"committed_at": now, "confirmed_at": None, "approval": None, "accepted": written}
        case "confirm":
            changes |= {
                "status": run.status,
                "confirmed_at": now,
                "confirmed_exposure": run.exposure,
                "confirmed_audience": run.audience,
                "turned_on": run.turned_on or run.exposure > 0,
            }
        case "adopt":
            changes["accepted"] = run.accepted and run.accepted.moved()
        case "observe" if run.phase == "paused":
            changes["status"] = run.status  # why it is paused stays what it was
        case "take_over":
            changes |= {
                "committed_at": now,
                "confirmed_at": None,
                "confirmed_exposure": decision.exposure,
                "confirmed_audience": decision.audience,
                "turned_on": True,
                "approval": None,
            }
        case "complete" | "abandon" | "kill":
            changes["ended_at"] = now
        case "pause":
            changes["approval"] = None
            if decision.exposure != run.exposure:
                changes |= {"committed_at": now, "confirmed_at": None, "accepted": written}
    return transition(run, decision.action, **(changes | dict(extra)))


def carried(
    request_id: str,
    run: Run,
    plan: RolloutPlan,
    guardrails: tuple[Guardrail, ...],
    inputs: Inputs,
    decision: Decision,
) -> dict[str, Any]:
    """What goes into the run beside the decision: baselines, what is accepted, or the request for an approval."""
    match decision.action:
        case "start":
            return {"baselines_before": baseline_readings(plan, guardrails, inputs)[0]}
        case "advance":
            return {"baselines_control": baseline_readings(plan, guardrails, inputs)[0]}
        case "confirm" if run.accepted is not None and isinstance(inputs.observed, FlagState):
            return {"accepted": run.accepted.confirmed(inputs.observed)}
        case "request_approval":
            return {"approval": approval_request(request_id, run, plan, inputs.now)}
        case "observe" | "resume" if isinstance(inputs.observed, FlagState):
            people = Served.by(inputs.observed)
            anew = decision.action == "resume" or people.effective_exposure < run.exposure
            return {"people": people} | ({"confirmed_at": None} if anew else {})
    return {}


def observations_after(
    decision: Decision, observations: Observations, *, changed: bool, version: int
) -> Observations:
    if decision.action == "confirm":
        observations = after_confirmation(observations)
    elif changed or decision.action in ("resume", "adopt"):
        observations = after_exposure_change(observations)
    elif decision.action == "request_approval":
        observations = replace(observations, approval_wait=0.0)
    return replace(observations, run_version=version)


def audit_entry(
    entry_id: str,
    run: Run,
    after: Run,
    decision: Decision,
    actor: str,
    now: datetime,
    details: Mapping[str, Any],
) -> AuditEntry:
    facts: dict[str, Any] = {
        "from": {"phase": run.phase, "stage": run.stage, "exposure": run.exposure},
        "to": {"phase": after.phase, "stage": after.stage, "exposure": after.exposure},
        "plan_revision": run.plan_revision,
        "policy_revisions": run.policy_revisions,
        **details,
    }
    if decision.rule:
        facts["rule"] = decision.rule
    if after.people != run.people:
        facts["people"] = msgspec.to_builtins(after.people)
    return AuditEntry(
        id=entry_id,
        at=now,
        actor=actor,
        action=decision.action,
        cause=decision.cause,
        subject=run.id,
        environment=run.flag.environment,
        reason=decision.text,
        run=run.id,
        run_version=after.version,
        flag=str(run.flag),
        details=facts,
    )


def basis(run: Run, inputs: Inputs, evidence: Evidence) -> dict[str, Any]:
    """What a decision rested on, for its audit entry: the verdicts, which show value, limit, baseline, sample and
    query of each rule; and run and inputs, from which, with the pinned revisions, it can be made again (I18).
    """
    return {
        "verdicts": msgspec.to_builtins(evidence.verdicts),
        "run": msgspec.to_builtins(run),
        "inputs": msgspec.to_builtins(inputs),
    }


def share_of_run(run: Run, plan: RolloutPlan, comment: str, *, decision: str = "") -> SetShare:
    """`decision` is the id of the audit entry that it follows from."""
    audience = plan.spec.audience
    return SetShare(
        flag=run.flag,
        serve=plan.spec.serve,
        exposure=run.exposure,
        audience=tuple(audience.always) if run.audience else (),
        bucket_by=audience.bucket_by,
        comment=comment_of(run, plan, comment, decision=decision),
    )


def comment_of(run: Run, plan: RolloutPlan, text: str, *, decision: str) -> str:
    """For whoever reads the provider's own history: what decided, and where to look it up."""
    named = decision or f"version {run.version}"
    return f"Rampart {run.id} ({stage_name(run, plan)}), decision {named}: {text}"


def stage_name(run: Run, plan: RolloutPlan) -> str:
    return plan.spec.stages[run.stage].name if run.stage != NOT_STARTED else "no stage"


def approval_request(request_id: str, run: Run, plan: RolloutPlan, now: datetime) -> ApprovalRequest:
    return ApprovalRequest(
        id=request_id,
        stage=stage_at(plan, run.exposure) + 1,
        plan_revision=run.plan_revision,
        requested_at=now,
    )
