"""What it would mean to a run to move to other revisions of its plan and policies, or to begin where a flag is.

The command obeys what is said here, and a preview shows it: so that the words and what happens are the same.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from controller.domain.binding import BoundRule, Guardrail
from controller.domain.catalogue import PlanRevision, PolicyRevision
from controller.domain.conditions import Comparison, Condition, comparisons, metrics_of, uses_baseline
from controller.domain.decide import stage_at, stage_holding
from controller.domain.flag import FlagState
from controller.domain.plan import Approval, RolloutPlan, Stage
from controller.domain.policy import Rule
from controller.domain.quantities import FULL_EXPOSURE, duration_text, exposure_text, seconds
from controller.domain.rollout import NOT_STARTED, Observations, Run

SEVERITY = ("pause", "step_back", "kill")
GUARDRAIL_WORDS: Mapping[str, str] = {
    "source": "source",
    "every_seconds": "every",
    "window_seconds": "window",
    "stale_after_seconds": "staleAfter",
    "min_sample": "minSample",
    "baseline": "baseline",
    "no_data": "noData",
    "query_error": "queryError",
    "metrics": "metrics",
    "values": "with",
}
"""Everything of a guardrail but its rules, as people write it."""


def obstacles(run: Run, before: RolloutPlan, after: RolloutPlan) -> list[str]:
    """Why this run cannot move from one plan to the other, whoever asks; empty when it can."""
    found = []
    if after.spec.flag != run.flag:
        found.append(f"the plan is for another flag, {after.spec.flag}; abandon the run and start anew")
    if after.spec.serve != before.spec.serve:
        found.append("the plan serves other variations; abandon the run and start anew")
    if after.spec.mode != before.spec.mode:
        found.append(f"the mode becomes {after.spec.mode}; abandon the run and start anew")
    if (run.exposure or run.audience) and after.spec.audience != before.spec.audience:
        # Nothing but a raise may let more people in, and no raise lies between the two plans.
        found.append("the audience changes, and somebody is exposed already; abandon the run and start anew")
    shares = {0, *(stage.share for stage in after.spec.stages)}
    if run.exposure not in shares:
        stages = ", ".join(exposure_text(stage.share) for stage in after.spec.stages)
        found.append(f"{exposure_text(run.exposure)}, where {run.id} is now, is no stage of the plan ({stages})")
    return found


def against_taking_over(plan: RolloutPlan, found: FlagState) -> list[str]:
    """Why no run of the plan can go on from where people have brought the flag; empty when it can."""
    share = exposure_text(found.effective_exposure)
    against = []
    if plan.spec.mode == "observe":
        against.append("the plan only observes: start it, and it follows what people do")
    elif not found.effective_exposure:
        against.append(f"the flag {'exposes nobody' if found.enabled else 'is off'}: start the plan instead")
    elif found.effective_exposure > plan.spec.stages[-1].share:
        against.append(f"{share} is above the last stage of the plan; lower the flag, or add a stage")
    ours = {rule.name for rule in plan.spec.audience.always}
    if found.audience and set(found.audience) != ours:
        against.append(
            f"of our audience rules it has {', '.join(found.audience)}, and the plan has "
            f"{', '.join(sorted(ours)) or 'none'}; remove them at the provider, or make the plan say the same"
        )
    return against


def taken_over(run: Run, plan: RolloutPlan, found: FlagState) -> Run:
    """The run where the flag is. The audience of the plan, if the flag lacks it, comes in with the next stage."""
    ours = {rule.name for rule in plan.spec.audience.always}
    stage = stage_holding(plan, found.effective_exposure)
    return replace(run, stage=stage, exposure=found.effective_exposure, audience=set(found.audience) == ours)


def second_person_because(
    run: Run,
    before: tuple[RolloutPlan, Sequence[Guardrail]],
    after: tuple[RolloutPlan, Sequence[Guardrail]],
) -> list[str]:
    """What of the change takes a person who may approve and wrote none of it; empty when one person is enough."""
    rules = list(_guardrail_changes(before[1], after[1]))
    if tuple(before[1]) != tuple(after[1]) and not rules:
        rules.append("changes the order or number of the guardrails")
    return rules + list(_gate_changes(gates(before[0], run), gates(after[0], run)))


def authors_of_change(run: Run, plan: PlanRevision, policies: Mapping[str, PolicyRevision]) -> set[str]:
    """Who wrote what the run does not follow yet; `policies` by name, those of the plan."""
    authors = {plan.author} if plan.revision != run.plan_revision else set()
    return authors | {
        one.author for name, one in policies.items() if run.policy_revisions.get(name) != one.revision
    }


def consequences(
    run: Run,
    before: RolloutPlan,
    after: tuple[RolloutPlan, Sequence[Guardrail]],
    observations: Observations,
) -> list[str]:
    """What else it does to the run, in words. Only for a run without obstacles."""
    plan, guardrails = after
    lines = [*_lost_bake(run, before, plan, observations), *_lost_approval(run, before)]
    lines += unjudged(run, guardrails)
    one, other = _next_stage(run, before), _next_stage(run, plan)
    if _called(one) != _called(other):
        lines.append(f"next comes {_called(other)} instead of {_called(one)}")
    if run.phase == "paused":
        lines.append("it stays paused")
    return lines or ["nothing of the run is lost"]


def gates(plan: RolloutPlan, run: Run) -> dict[int, Approval]:
    """The approvals that still lie ahead of the run, by exposure."""
    return {
        stage.share: stage.approval for stage in plan.spec.stages if stage.approval and stage.share > run.exposure
    }


# — what is lost —


def _lost_bake(run: Run, before: RolloutPlan, after: RolloutPlan, observations: Observations) -> Iterator[str]:
    if run.stage == NOT_STARTED:
        return
    stage, then = before.spec.stages[run.stage], after.spec.stages[stage_holding(after, run.exposure)]
    lost = f"{duration_text(observations.bake)} of {stage.bake} are lost" if observations.bake else "none is lost"
    takes = f"; it takes {then.bake} then" if then.bake_seconds != stage.bake_seconds else ""
    yield f"the bake of {then.name} starts anew: {lost}{takes}"
    if stage.min_total and observations.requests >= 1:
        counted = f"{observations.requests:.0f} of {stage.min_total.requests}"
        yield f"so do the requests of {stage.name}: {counted} are lost"


def _lost_approval(run: Run, before: RolloutPlan) -> Iterator[str]:
    request = run.approval
    if request is None:
        return
    name = before.spec.stages[request.stage].name
    if request.granted_by:
        yield f"the approval of {name} by {request.granted_by} is void: it is asked for again"
    else:
        yield f"the open request to approve {name} is withdrawn, and made again when it is due"


def unjudged(run: Run, guardrails: Sequence[Guardrail]) -> Iterator[str]:
    """Baselines are measured at a start and before 100 %: what is new has none, and nobody can measure it now."""
    if run.stage == NOT_STARTED:
        return
    for guardrail in guardrails:
        for bound in guardrail.rules:
            compared = metrics_of(bound.condition) if uses_baseline(bound.condition) else set()
            if any(not _has_baseline(run, guardrail, metric) for metric in compared):
                rule = f"{guardrail.policy}/{bound.rule.id}"
                yield f"{rule} can never be judged in this run: its baseline was not measured when it was time"


def _has_baseline(run: Run, guardrail: Guardrail, metric: str) -> bool:
    key, declared = f"{guardrail.policy}/{metric}", guardrail.baseline
    if declared is None or (declared.from_ == "control" and run.exposure < FULL_EXPOSURE):
        return True
    if declared.from_ == "control" and key in run.baselines_control:
        return True
    return (declared.from_ == "before" or declared.fallback == "before") and key in run.baselines_before


def _next_stage(run: Run, plan: RolloutPlan) -> Stage | None:
    target = stage_at(plan, run.exposure) + 1
    return plan.spec.stages[target] if target < len(plan.spec.stages) else None


def _called(stage: Stage | None) -> str:
    return f"{stage.name} at {exposure_text(stage.share)}" if stage else "the end"


# — what takes two people —


def _guardrail_changes(before: Sequence[Guardrail], after: Sequence[Guardrail]) -> Iterator[str]:
    old, new = {one.policy: one for one in before}, {one.policy: one for one in after}
    for name in [*old, *(name for name in new if name not in old)]:
        if name not in new:
            yield f"drops the policy {name} with {_counted(old[name].rules)}"
        elif name not in old:
            yield f"adds the policy {name} with {_counted(new[name].rules)}"
        else:
            yield from _rule_changes(name, old[name].rules, new[name].rules)
            yield from _setting_changes(old[name], new[name])


def _counted(rules: Sequence[BoundRule]) -> str:
    return "1 rule" if len(rules) == 1 else f"{len(rules)} rules"


def _rule_changes(policy: str, before: Sequence[BoundRule], after: Sequence[BoundRule]) -> Iterator[str]:
    old, new = {one.rule.id: one for one in before}, {one.rule.id: one for one in after}
    for name, one in old.items():
        if name not in new:
            yield f"removes the {one.rule.then} rule {policy}/{name}"
        elif new[name].rule != one.rule:
            yield f"changes the {one.rule.then} rule {policy}/{name} ({_difference(one, new[name])})"
    for name, one in new.items():
        if name not in old:
            yield f"adds the {one.rule.then} rule {policy}/{name}"


def _difference(one: BoundRule, other: BoundRule) -> str:
    written = [
        f"{field.encode_name}: {_text(getattr(one.rule, field.name))} → {_text(getattr(other.rule, field.name))}"
        for field in msgspec.structs.fields(Rule)
        if getattr(one.rule, field.name) != getattr(other.rule, field.name)
    ]
    return "; ".join([*written, *filter(None, [tendency(one, other)])])


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def tendency(one: BoundRule, other: BoundRule) -> str:
    """`looser`, `stricter`, or nothing where parts of the change point to both sides or cannot be compared."""
    signs = {sign for sign in _signs(one, other) if sign is not None}
    if len(signs) != 1:
        return ""
    (sign,) = signs
    return {1: "looser", -1: "stricter"}.get(sign, "")


def _signs(one: BoundRule, other: BoundRule) -> Iterator[int | None]:
    """1 for each part that acts later, less or more weakly than before, -1 for the opposite, 0 for neither."""
    old, new = one.rule, other.rule
    yield _sign(seconds(old.for_), seconds(new.for_))
    yield _sign(SEVERITY.index(new.then), SEVERITY.index(old.then))
    yield _sign(old.mode == "observe", new.mode == "observe")
    yield _sign(new.even_if_control_fails, old.even_if_control_fails)
    if (old.floor or "") != (new.floor or ""):
        yield 0 if one.floor is None or other.floor is None else _sign(one.floor, other.floor)
    yield from _condition_signs(one.condition, other.condition)


def _condition_signs(old: Condition, new: Condition) -> Iterator[int | None]:
    """With "and" and "or" alone a condition holds the less often, the harder any part of it is to meet."""
    if [len(part.parts) for part in old.parts] != [len(part.parts) for part in new.parts]:
        yield 0
        return
    for one, other in zip(comparisons(old), comparisons(new), strict=True):
        if _shape(one) != _shape(other):
            yield 0
        elif one.operator.startswith(">"):
            yield _sign(one.number, other.number)
        else:
            yield _sign(other.number, one.number)


def _shape(one: Comparison) -> tuple[object, ...]:
    return one.metric, one.of_baseline, one.operator, one.unit


def _sign(old: float, new: float) -> int | None:
    """None when nothing changed."""
    return None if old == new else 1 if new > old else -1


def _setting_changes(old: Guardrail, new: Guardrail) -> Iterator[str]:
    for name, word in GUARDRAIL_WORDS.items():
        if getattr(old, name) != getattr(new, name):
            yield f"changes {word} of {old.policy}"


def _gate_changes(old: Mapping[int, Approval], new: Mapping[int, Approval]) -> Iterator[str]:
    for share in sorted(old.keys() | new.keys()):
        if share not in new:
            yield f"removes the approval before {exposure_text(share)}"
        elif share not in old:
            yield f"adds an approval before {exposure_text(share)}"
        elif old[share] != new[share]:
            yield f"changes the approval before {exposure_text(share)}"
