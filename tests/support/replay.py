"""Make recorded decisions again, offline: from an audit entry and the pinned documents alone."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from controller.domain.assess import Inputs, assess_and_decide
from controller.domain.audit import AuditEntry
from controller.domain.binding import bind
from controller.domain.decide import Decision
from controller.domain.evidence import Verdict
from controller.domain.plan import RolloutPlan
from controller.domain.policy import GuardrailPolicy
from controller.domain.rollout import Run


def is_automatic(entry: AuditEntry) -> bool:
    """Decided by a tick: nobody's command."""
    return entry.run is not None and entry.actor == "rampart"


def recorded_verdicts(entry: AuditEntry) -> list[Verdict]:
    return msgspec.convert(entry.details["verdicts"], list[Verdict])


def replayed(
    entry: AuditEntry, plan: RolloutPlan, policies: Iterable[GuardrailPolicy]
) -> tuple[Decision, list[Verdict]]:
    """The decision and the verdicts that the recorded run and inputs lead to. Raises KeyError without them."""
    by_name: Mapping[str, Any] = {policy.metadata.name: policy for policy in policies}
    guardrails = tuple(bind(use, by_name[use.policy], plan) for use in plan.spec.guardrails)
    run = msgspec.convert(entry.details["run"], Run)
    inputs = msgspec.convert(entry.details["inputs"], Inputs)
    evidence, decision = assess_and_decide(run, plan, guardrails, inputs)
    return decision, list(evidence.verdicts)
