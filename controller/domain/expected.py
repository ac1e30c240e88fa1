"""What runs of the plans that were applied will ask: for a source that must begin to count before it is asked."""

from collections.abc import Iterable, Mapping

from controller.domain.assess import metrics_used
from controller.domain.binding import bind
from controller.domain.evidence import Question
from controller.domain.plan import RolloutPlan
from controller.domain.policy import GuardrailPolicy
from controller.errors import Invalid


def expected(plans: Iterable[RolloutPlan], policies: Mapping[str, GuardrailPolicy], source: str) -> set[Question]:
    """Of the variation that is rolled out, which selects the same events as the other."""
    found: set[Question] = set()
    for plan in plans:
        for use in plan.spec.guardrails:
            policy = policies.get(use.policy)
            if policy is None or policy.spec.source != source:
                continue
            try:
                guardrail = bind(use, policy, plan)
                used = metrics_used(guardrail)
                found |= {guardrail.question(metric, plan.spec.serve.rollout) for metric in used}
            except Invalid:
                continue  # no run of it can be started either, and that says why
    return found
