"""A run as people see it: status and explanation, from what was committed and what the latest tick saw."""

from collections.abc import Sequence

from msgspec.structs import replace

from controller.domain.accumulators import settling_seconds
from controller.domain.binding import Guardrail
from controller.domain.catalogue import Unreadable
from controller.domain.convergence import latest_change
from controller.domain.decide import stage_at
from controller.domain.evidence import Verdict
from controller.domain.flag import FlagState
from controller.domain.plan import RolloutPlan, Stage
from controller.domain.quantities import exposure_text
from controller.domain.quarantine import quarantine_text
from controller.domain.rollout import NOT_STARTED, ApprovalRequest, Observations, Run, Seen, Timer
from controller.domain.status import (
    ApprovalStatus,
    Explanation,
    KillStatus,
    PlanSummary,
    RuleStatus,
    RunStatus,
    StageState,
    StageStatus,
)
from controller.domain.wording import breach_text, quantity, unknown_text

PHASE_WORDS = {
    "pending": "waiting to start",
    "progressing": "progressing",
    "paused": "paused",
    "completed": "completed",
    "killed": "killed",
    "abandoned": "abandoned",
}


def run_status(
    run: Run,
    plan: RolloutPlan,
    guardrails: Sequence[Guardrail],
    observations: Observations,
    kills: Sequence[KillStatus],
) -> RunStatus:
    seen = observations.seen
    flag = seen.flag if seen else None
    stages = plan.spec.stages
    return RunStatus(
        id=run.id,
        plan=run.plan,
        flag=run.flag,
        phase=run.phase,
        mode=plan.spec.mode,
        stage=run.stage,
        stages=[_stage_status(plan, run, index, observations) for index in range(len(stages))],
        desired_exposure=run.exposure,
        observed_exposure=flag.effective_exposure if flag else None,
        observed_enabled=flag.enabled if flag else None,
        observed_at=seen.at if seen and flag else None,
        confirmed=run.confirmed if run.active else flag is not None and flag.effective_exposure == run.exposure,
        reason=run.status,
        blocks=list(seen.blocks) if seen and run.active else [],
        next_exposure=_next_exposure(run, plan),
        next_in_seconds=_next_in(run, plan, guardrails, observations) if run.phase == "progressing" else None,
        rules=rule_statuses(observations) if run.active else [],
        kills=list(kills),
        plan_revision=run.plan_revision,
        author=run.author,
        started_by=run.started_by,
        created_at=run.created_at,
        ended_at=run.ended_at,
        version=run.version,
        owner=plan.metadata.owner,
        labels=plan.metadata.labels,
        links=plan.metadata.links,
        approval=_approval_status(run, plan),
        foreign=list(flag.foreign) if flag else [],
        on_kill=plan.spec.serve.kill,
        changed_by=flag.changed_by if flag else "",
        changed_at=flag.changed_at if flag else None,
        delivered_seconds=flag.delivered_seconds if flag else None,
        exposed_since=run.ended_at if run.phase == "killed" else run.committed_at,
    )


def _next_exposure(run: Run, plan: RolloutPlan) -> int | None:
    target, stages = stage_at(plan, run.exposure) + 1, plan.spec.stages
    return stages[target].share if run.active and run.phase != "paused" and target < len(stages) else None


def _approval_status(run: Run, plan: RolloutPlan) -> ApprovalStatus | None:
    request = _open_request(run)
    if request is None:
        return None
    return ApprovalStatus(stage=plan.spec.stages[request.stage].name, requested_at=request.requested_at)


def _open_request(run: Run) -> ApprovalRequest | None:
    """Nobody is asked any more once the run has ended."""
    return run.approval if run.active and run.approval and run.approval.granted_at is None else None


def _stage_status(plan: RolloutPlan, run: Run, index: int, observations: Observations) -> StageStatus:
    stage = plan.spec.stages[index]
    done = index < run.stage or run.phase == "completed"
    state: StageState = "done" if done else "current" if index == run.stage else "ahead"
    baked = (
        stage.bake_seconds if done else min(observations.bake, stage.bake_seconds) if state == "current" else 0.0
    )
    return StageStatus(
        name=stage.name,
        exposure=stage.share,
        state=state,
        bake_seconds=stage.bake_seconds,
        baked_seconds=baked,
        needs_approval=stage.approval is not None,
    )


def _next_in(
    run: Run, plan: RolloutPlan, guardrails: Sequence[Guardrail], observations: Observations
) -> float | None:
    """Seconds of passing ticks still needed; None when something else than time is in the way."""
    seen = observations.seen
    if run.stage == NOT_STARTED or not run.confirmed or seen is None:
        return None
    if any(block.code not in ("bake", "schedule") for block in seen.blocks):
        return None
    bake_left = max(plan.spec.stages[run.stage].bake_seconds - observations.bake, 0.0)
    settling = max(settling_seconds(guardrails) - observations.since_confirmed, 0.0)
    opens = [block.clears_at for block in seen.blocks if block.code == "schedule" and block.clears_at]
    waits = [(at - seen.at).total_seconds() for at in opens]
    return max([bake_left + settling, *waits])


def rule_statuses(observations: Observations) -> list[RuleStatus]:
    seen = observations.seen
    return [_rule_status(verdict, observations) for verdict in seen.verdicts] if seen else []


def _rule_status(verdict: Verdict, observations: Observations) -> RuleStatus:
    return RuleStatus(
        policy=verdict.policy,
        rule=verdict.rule,
        condition=verdict.condition,
        then=verdict.then,
        enforced=verdict.enforced,
        outcome=verdict.outcome,
        detail=verdict.detail,
        unit=verdict.unit,
        value=verdict.value,
        limit=verdict.limit,
        baseline=verdict.baseline,
        sample=verdict.sample,
        breached_seconds=observations.breached.get(verdict.id, Timer()).seconds,
        for_seconds=verdict.for_seconds,
        query=verdict.query,
    )


def plan_summary(plan: RolloutPlan, revision: int, latest: tuple[Run, Observations] | None) -> PlanSummary:
    run, observations = latest or (None, Observations())
    flag = observations.seen.flag if observations.seen else None
    return PlanSummary(
        plan=plan.metadata.name,
        flag=plan.spec.flag,
        revision=revision,
        run=run.id if run else None,
        phase=run.phase if run else None,
        stage=_stage_text(run.stage if run else NOT_STARTED, plan.spec.stages),
        desired_exposure=run.exposure if run else 0,
        observed_exposure=flag.effective_exposure if flag else None,
        reason=_summary_reason(run, observations),
        owner=plan.metadata.owner,
        next_exposure=_next_exposure(run, plan) if run else None,
        exposed_since=run.committed_at if run else None,
        waits_for_approval=run is not None and _open_request(run) is not None,
    )


def summary_of(status: RunStatus) -> PlanSummary:
    """The line of a run whose status is known, without its plan."""
    return PlanSummary(
        plan=status.plan,
        flag=status.flag,
        revision=status.plan_revision,
        run=status.id,
        phase=status.phase,
        stage=_stage_text(status.stage, status.stages),
        desired_exposure=status.desired_exposure,
        observed_exposure=status.observed_exposure,
        reason=status.reason,
        owner=status.owner,
        next_exposure=status.next_exposure,
        exposed_since=status.exposed_since,
        waits_for_approval=status.approval is not None,
    )


def _stage_text(stage: int, stages: Sequence[Stage | StageStatus]) -> str:
    """`2/4 early`. A plan may have fewer stages by now."""
    return "–" if stage == NOT_STARTED else f"{stage + 1}/{len(stages)} {stages[min(stage, len(stages) - 1)].name}"


def unreadable_summary(plan: RolloutPlan, revision: int, run: Unreadable) -> PlanSummary:
    """Of its latest run no more is known than that it is there."""
    reason = f"{run.name} cannot be read from the database: {run.why}"
    if run.flag:
        name = plan.metadata.name
        reason += (
            f". Nothing of it is judged, kill rules neither: watch the flag yourself, `rampart kill {name}` works"
        )
    return replace(plan_summary(plan, revision, None), run=run.name, reason=reason)


def _summary_reason(run: Run | None, observations: Observations) -> str:
    if run is None:
        return "never started"
    if run.active and observations.quarantine:
        return quarantine_text(run, observations.quarantine)
    return run.status


def explanation(run: Run, observations: Observations) -> Explanation:
    blocks = list(observations.seen.blocks) if observations.seen and run.active else []
    lines = [
        f"{run.id} is {PHASE_WORDS[run.phase]} at {exposure_text(run.exposure)}: {run.status or 'just created'}."
    ]
    if run.active and observations.seen and observations.seen.flag:
        lines += _at_the_provider(observations.seen.flag)
    for block in blocks:
        when = f" (earliest {block.clears_at:%Y-%m-%d %H:%M:%S} UTC)" if block.clears_at else ""
        lines.append(f"- {block.code}: {block.text}{when}")
    told = " ".join(block.text for block in blocks)
    if run.active and observations.seen:
        lines += [line for line in _findings(observations.seen, observations) if line.lstrip("- ") not in told]
    if observations.seen is None and run.active:
        lines.append("- no tick has looked at it yet")
    return Explanation(
        run=run.id,
        phase=run.phase,
        text="\n".join(lines),
        blocks=blocks,
        rules=rule_statuses(observations) if run.active else [],
    )


def _at_the_provider(flag: FlagState) -> list[str]:
    """What the provider told beside the share, if it told anything."""
    facts = [f"not ours are {', '.join(flag.foreign)}"] if flag.foreign else []
    if change := latest_change(flag):
        facts.append(change.removeprefix(", "))
    if flag.delivered_seconds is not None:
        facts.append(f"reached SDKs after {quantity(flag.delivered_seconds, 'seconds')}")
    share = exposure_text(flag.exposure) if flag.enabled else "off"
    return [f"- at the provider: {share}; {'; '.join(facts)}"] if facts else []


def _findings(seen: Seen, observations: Observations) -> list[str]:
    lines = []
    for verdict in seen.verdicts:
        watching = "" if verdict.enforced else " (observed only)"
        if verdict.outcome == "breach":
            timer = observations.breached.get(verdict.id, Timer())
            lines.append(f"- {verdict.then} rule {breach_text(verdict, timer.seconds)}{watching}")
        elif verdict.outcome != "pass":
            lines.append(f"- {unknown_text(verdict)}{watching}")
    return lines
