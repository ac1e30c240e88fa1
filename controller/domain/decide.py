"""What to do with a run, given the evidence. Most urgent rule first; pure; the whole verdict is in here.

    kill rules › step-back rules › pause rules › drift › what is not ours › confirmation › unknown › gates ›
    advance

Of a flag that is only observed the same is decided, told as what would have been, and people's changes beside it.

A gate is a reason not to raise. Nothing here can lower the bar: passes are counted only when all are passes.
"""

from datetime import datetime, timedelta

from msgspec import Struct
from msgspec.structs import replace

from controller.domain.accumulators import CLEARING, all_pass, required, settling_seconds
from controller.domain.binding import Guardrail
from controller.domain.convergence import Convergence, latest_change
from controller.domain.evidence import Verdict
from controller.domain.flag import FlagState
from controller.domain.freezes import OrganisationFreeze
from controller.domain.plan import RolloutPlan, Stage
from controller.domain.quantities import FULL_EXPOSURE, duration_text, exposure_text
from controller.domain.rollout import NOT_STARTED, Action, Block, Cause, Observations, Run, Served, Timer
from controller.domain.schedule import closed
from controller.domain.wording import breach_text, unknown_text


class Evidence(Struct, frozen=True, kw_only=True):
    """All that one decision rests on. `observations` already include this tick.

    `verdicts` judge the treated side, or the control while nobody is treated. `baselines_missing` names metrics
    whose control reading for 100 % is not in hand. `obstacles` say why no run at all may rise now: a kill may
    be missing in the database. `freezes` are the organisation's that cover the plan. `bake_waived` is a person's
    manual advance. `people` is the flag as people serve it, where it is only observed.
    """

    verdicts: tuple[Verdict, ...]
    observations: Observations
    convergence: Convergence
    automatic_kills: int = 0
    max_automatic_kills: int = 3
    obstacles: tuple[str, ...] = ()
    freezes: tuple[OrganisationFreeze, ...] = ()
    baselines_missing: tuple[str, ...] = ()
    bake_waived: bool = False
    people: FlagState | None = None


class Decision(Struct, frozen=True, kw_only=True):
    """`stage`, `exposure` and `audience` are what is desired after it. `blocks` say what keeps a hold."""

    action: Action
    cause: Cause
    text: str
    stage: int
    exposure: int
    audience: bool
    blocks: tuple[Block, ...] = ()
    rule: str | None = None


def decide(
    run: Run, plan: RolloutPlan, guardrails: tuple[Guardrail, ...], evidence: Evidence, now: datetime
) -> Decision:
    if plan.spec.mode == "observe":
        return would_have(_decided(run, plan, guardrails, evidence, now))
    return _decided(run, plan, guardrails, evidence, now)


def _decided(
    run: Run, plan: RolloutPlan, guardrails: tuple[Guardrail, ...], evidence: Evidence, now: datetime
) -> Decision:
    if run.phase == "pending":
        return _people(run, evidence) or _expired_approval(run, plan, evidence) or _start(run, plan, evidence, now)
    return (
        _kill_rule(run, plan, evidence)
        or _step_back_rule(run, plan, evidence)
        or _pause_rule(run, evidence)
        or _people(run, evidence)
        or _drift(run, plan, evidence)
        or _altered(run, evidence)
        or _confirmation(run, evidence)
        or _too_long_unknown(run, plan, guardrails, evidence)
        or _expired_approval(run, plan, evidence)
        or _hold_or_rise(run, plan, guardrails, evidence, now)
    )


def would_have(decision: Decision) -> Decision:
    """The same of a flag that is only observed: nothing of it happens."""
    match decision.action:
        case "start" | "advance" | "complete":
            return replace(decision, text=f"would have {decision.text}")
        case "pause" | "step_back" | "lower" | "abandon":
            return replace(decision, text=f"would have been {decision.text}")
        case _:
            return decision


def stage_at(plan: RolloutPlan, exposure: int) -> int:
    """The highest stage whose exposure is reached; NOT_STARTED below the first."""
    return max((i for i, stage in enumerate(plan.spec.stages) if stage.share <= exposure), default=NOT_STARTED)


def stage_holding(plan: RolloutPlan, exposure: int) -> int:
    """The stage an adopted exposure counts as: the lowest that allows it, so that none is ever exceeded."""
    if exposure == 0:
        return NOT_STARTED
    return next(i for i, stage in enumerate(plan.spec.stages) if stage.share >= exposure)


def stage_below(plan: RolloutPlan, exposure: int) -> int:
    """Where a step back leads: the highest stage with less exposure."""
    return stage_at(plan, exposure - 1)


def share_of(plan: RolloutPlan, stage: int) -> int:
    return plan.spec.stages[stage].share if stage != NOT_STARTED else 0


def _stay(run: Run, action: Action, cause: Cause, text: str, **more: object) -> Decision:
    return Decision(
        action=action,
        cause=cause,
        text=text,
        stage=run.stage,
        exposure=run.exposure,
        audience=run.audience,
        **more,  # type: ignore[arg-type]
    )


def _satisfied(evidence: Evidence, then: str) -> Verdict | None:
    """The first enforced rule of that kind whose breach has lasted for its `for`."""
    timers = evidence.observations.breached
    for verdict in required(evidence.verdicts):
        timer = timers.get(verdict.id)
        if verdict.then == then and verdict.outcome == "breach" and timer and timer.seconds >= verdict.for_seconds:
            return verdict
    return None


def _told(verdict: Verdict, evidence: Evidence) -> str:
    return breach_text(verdict, evidence.observations.breached[verdict.id].seconds)


def _kill_rule(run: Run, plan: RolloutPlan, evidence: Evidence) -> Decision | None:
    verdict = _satisfied(evidence, "kill")
    if verdict is None:
        return None
    told = _told(verdict, evidence)
    spared = None
    if verdict.control_fails and not verdict.even_if_control_fails:
        spared = "the control breaks the same condition, so it is not blamed on the flag"
    elif evidence.automatic_kills >= evidence.max_automatic_kills:
        spared = (
            f"{evidence.automatic_kills} flags were killed automatically just now, so a person must look first"
        )
    if spared is None:
        observing = plan.spec.mode == "observe"  # then the flag lives on, and so does the run that looks at it
        return Decision(
            action="lower" if observing else "kill",
            cause="policy",
            text=f"killed by {told}",
            stage=NOT_STARTED if observing else run.stage,
            exposure=0,
            audience=False,
            rule=verdict.id,
        )
    if run.phase == "paused":
        return None
    return _stay(run, "pause", "policy", f"paused, not killed, by {told}; {spared}", rule=verdict.id)


def _step_back_rule(run: Run, plan: RolloutPlan, evidence: Evidence) -> Decision | None:
    verdict = _satisfied(evidence, "step_back")
    if verdict is None or run.exposure == 0:
        return None
    return step_back(run, plan, f"by {_told(verdict, evidence)}", cause="policy", rule=verdict.id)


def step_back(run: Run, plan: RolloutPlan, why: str, *, cause: Cause, rule: str | None = None) -> Decision:
    """One stage down, and pause there; from the first stage to 0 % with the `always` audience removed."""
    stage = stage_below(plan, run.exposure)
    lower = share_of(plan, stage)
    text = f"stepped back from {exposure_text(run.exposure)} to {exposure_text(lower)} {why}"
    audience = run.audience and stage != NOT_STARTED
    return Decision(
        action="step_back", cause=cause, text=text, stage=stage, exposure=lower, audience=audience, rule=rule
    )


def _pause_rule(run: Run, evidence: Evidence) -> Decision | None:
    verdict = _satisfied(evidence, "pause")
    if verdict is None or run.phase == "paused":
        return None
    return _stay(run, "pause", "policy", f"paused by {_told(verdict, evidence)}", rule=verdict.id)


def _people(run: Run, evidence: Evidence) -> Decision | None:
    """What people did to a flag that is only observed, once for each change. Raising it, they go on."""
    if evidence.people is None or (shown := Served.by(evidence.people)) == run.people:
        return None
    told = latest_change(evidence.people)
    if run.people is None:
        where = f"at {_served(shown)}" if shown.enabled else _served(shown)
        return _stay(run, "observe", "provider", f"the flag is {where} to begin with{told}")
    text = f"people changed the flag from {_served(run.people)} to {_served(shown)}{told}"
    raised = shown.effective_exposure > run.people.effective_exposure
    return _stay(run, "resume" if run.phase == "paused" and raised else "observe", "provider", text)


def _served(shown: Served) -> str:
    share = exposure_text(shown.exposure)
    if not shown.enabled:
        share = f"off ({share} once it is on)" if shown.exposure else "off"
    return f"{share} beside {', '.join(shown.foreign)}" if shown.foreign else share


def _drift(run: Run, plan: RolloutPlan, evidence: Evidence) -> Decision | None:
    found = evidence.convergence
    if found.difference not in ("too_high", "too_low"):
        return None
    action: Action = "pause" if found.difference == "too_low" and run.phase == "progressing" else "lower"
    outcome = "lowered again" if found.difference == "too_high" else "the lower one is kept"
    told = f"{found.text}; {found.altered}" if found.altered else found.text
    return Decision(
        action=action,
        cause="drift",
        text=f"paused: the flag was changed outside this run: {told}; {outcome} until a person decides",
        stage=stage_holding(plan, found.exposure),
        exposure=found.exposure,
        audience=found.audience,
    )


def _altered(run: Run, evidence: Evidence) -> Decision | None:
    """Others may be served now than those the evidence is about, and it is not ours to take that away."""
    altered = evidence.convergence.altered
    if not altered or run.phase != "progressing":
        return None
    text = f"paused: the flag was changed outside this run: {altered}; a resume accepts it"
    return _stay(run, "pause", "drift", text)


def _confirmation(run: Run, evidence: Evidence) -> Decision | None:
    if run.confirmed or evidence.convergence.difference != "none":
        return None
    if evidence.people is not None:
        text = f"{evidence.convergence.text}: {exposure_text(run.exposure)} can be judged"
        return _stay(run, "confirm", "provider", text)
    return _stay(run, "confirm", "provider", f"{exposure_text(run.exposure)} was read back from the provider")


def _too_long_unknown(
    run: Run, plan: RolloutPlan, guardrails: tuple[Guardrail, ...], evidence: Evidence
) -> Decision | None:
    if run.phase != "progressing":
        return None
    if plan.spec.mode == "observe" and not run.confirmed:
        return None  # people serve it to nobody yet, or to few: there is nothing that could be measured
    observations = evidence.observations
    for guardrail in guardrails:
        for what, reaction, timers in (
            ("no data", guardrail.no_data, observations.silent),
            ("source errors", guardrail.query_error, observations.failing),
        ):
            waited = timers.get(guardrail.policy, Timer()).seconds
            if reaction.then == "pause" and guardrail.policy in timers and waited >= reaction.after_seconds:
                text = f"paused after {duration_text(waited)} of {what} in {guardrail.policy}"
                return _stay(run, "pause", "no_data", text, blocks=tuple(_unknown_blocks(evidence)))
    return None


def _expired_approval(run: Run, plan: RolloutPlan, evidence: Evidence) -> Decision | None:
    request = run.approval
    if request is None or request.granted_at is not None or run.phase == "paused":
        return None
    approval = plan.spec.stages[request.stage].approval
    if approval is None or evidence.observations.approval_wait < approval.timeout_seconds:
        return None
    text = f"nobody approved the stage {plan.spec.stages[request.stage].name} within {approval.timeout}"
    return _stay(run, "abandon" if run.phase == "pending" else "pause", "schedule", text)


def _start(run: Run, plan: RolloutPlan, evidence: Evidence, now: datetime) -> Decision:
    blocks = [*_flag_blocks(evidence), *_evidence_blocks(evidence)]
    return _raise_or_wait(run, plan, evidence, "start", 0, blocks, now)


def _flag_blocks(evidence: Evidence) -> list[Block]:
    """Before a start nobody may be served the rollout, and that must have been read."""
    found = evidence.convergence
    blocks = []
    if found.difference != "none":
        blocks.append(Block(code="unknown" if found.difference == "unread" else "drift", text=found.text))
    if found.altered:
        text = f"changed since the start was authorised: {found.altered}; abandon and start anew to accept it"
        blocks.append(Block(code="drift", text=text))
    return blocks


def _hold_or_rise(
    run: Run, plan: RolloutPlan, guardrails: tuple[Guardrail, ...], evidence: Evidence, now: datetime
) -> Decision:
    if run.phase == "paused":
        altered = evidence.convergence.altered
        blocks = [Block(code="drift", text=f"not accepted yet: {altered}")] if altered else []
        return _stay(run, "hold", "user", run.status, blocks=tuple(blocks))
    blocks = [*_evidence_blocks(evidence), *_stage_blocks(run, plan, guardrails, evidence, now)]
    target = stage_at(plan, run.exposure) + 1
    if target < len(plan.spec.stages):
        if plan.spec.stages[target].share == FULL_EXPOSURE and evidence.baselines_missing:
            missing = ", ".join(evidence.baselines_missing)
            blocks.append(
                Block(code="baseline", text=f"the control's baseline for 100 % is not measured yet: {missing}")
            )
        return _raise_or_wait(run, plan, evidence, "advance", target, blocks, now)
    if blocks:
        return _hold(run, blocks)
    return _stay(run, "complete", "policy", f"completed: {exposure_text(run.exposure)} baked without a breach")


def _hold(run: Run, blocks: list[Block]) -> Decision:
    return _stay(run, "hold", "policy", "; ".join(block.text for block in blocks), blocks=tuple(blocks))


def _raise_or_wait(
    run: Run,
    plan: RolloutPlan,
    evidence: Evidence,
    action: Action,
    target: int,
    blocks: list[Block],
    now: datetime,
) -> Decision:
    stage = plan.spec.stages[target]
    approval = stage.approval if plan.spec.mode == "enforce" else None
    if not blocks and approval and not _asked(run, target):
        asked = ", ".join(approval.from_)
        text = f"{stage.name} ({exposure_text(stage.share)}) waits for approval from {asked}"
        return _stay(run, "request_approval", "policy", text)
    blocks += [Block(code="replicas", text=f"no run may rise: {why}") for why in evidence.obstacles]
    shut = closed(plan.spec.schedule, now, evidence.freezes)
    if shut:
        blocks.append(Block(code="schedule", text=shut.why, clears_at=shut.opens_at))
    if approval and _asked(run, target) and not _granted(run, target):
        text = f"{stage.name} waits for approval from {', '.join(approval.from_)}"
        blocks.append(Block(code="approval", text=text))
    if blocks:
        return _hold(run, blocks)
    word = "started at" if action == "start" else f"advanced from {exposure_text(run.exposure)} to"
    text = f"{word} {exposure_text(stage.share)} ({stage.name}): all required guardrails pass"
    if stage.approval and not approval:
        text += f", once {', '.join(stage.approval.from_)} had approved"
    return Decision(action=action, cause="policy", text=text, stage=target, exposure=stage.share, audience=True)


def _asked(run: Run, target: int) -> bool:
    request = run.approval
    return request is not None and request.stage == target and request.plan_revision == run.plan_revision


def _granted(run: Run, target: int) -> bool:
    return _asked(run, target) and run.approval is not None and run.approval.granted_at is not None


def _evidence_blocks(evidence: Evidence) -> list[Block]:
    if all_pass(evidence.verdicts):
        return []
    blocks = [*_unknown_blocks(evidence)]
    blocks += [
        Block(code="breach", text=_told_now(verdict, evidence))
        for verdict in required(evidence.verdicts)
        if verdict.outcome == "breach"
    ]
    return blocks or [Block(code="unknown", text="no rule could be judged")]


def _told_now(verdict: Verdict, evidence: Evidence) -> str:
    return breach_text(verdict, evidence.observations.breached.get(verdict.id, Timer()).seconds)


def _unknown_blocks(evidence: Evidence) -> list[Block]:
    return [
        Block(code="sample" if verdict.outcome == "too_few" else "unknown", text=unknown_text(verdict))
        for verdict in required(evidence.verdicts)
        if verdict.outcome not in CLEARING and verdict.outcome != "breach"
    ]


def _stage_blocks(
    run: Run, plan: RolloutPlan, guardrails: tuple[Guardrail, ...], evidence: Evidence, now: datetime
) -> list[Block]:
    found = evidence.convergence
    if found.difference == "unread":
        return [Block(code="unknown", text=found.text)]
    if run.stage == NOT_STARTED:
        return []
    if found.difference == "awaited":
        text = f"{stage_text(plan, run)} can only be judged once people serve it to as many: {found.text}"
        return [Block(code="observe", text=text)]
    if not run.confirmed:
        return [Block(code="settling", text=f"{exposure_text(run.exposure)} is not confirmed yet: {found.text}")]
    stage, observations = plan.spec.stages[run.stage], evidence.observations
    blocks = [] if evidence.bake_waived else _bake_blocks(stage, guardrails, observations, now)
    if stage.min_total and observations.requests < stage.min_total.requests:
        text = f"{observations.requests:.0f} of {stage.min_total.requests} requests in {stage.name} so far"
        blocks.append(Block(code="sample", text=text))
    return blocks


def stage_text(plan: RolloutPlan, run: Run) -> str:
    return f"{plan.spec.stages[run.stage].name} ({exposure_text(run.exposure)})"


def _bake_blocks(
    stage: Stage, guardrails: tuple[Guardrail, ...], observations: Observations, now: datetime
) -> list[Block]:
    settling = max(settling_seconds(guardrails) - observations.since_confirmed, 0.0)
    baking = max(stage.bake_seconds - observations.bake, 0.0)
    if settling == 0 and baking == 0:
        return []
    text = f"{stage.name} has baked {duration_text(observations.bake)} of {stage.bake}"
    if settling:
        text += f" (starts in {duration_text(settling)}, once the window shows this stage alone)"
    return [Block(code="bake", text=text, clears_at=now + timedelta(seconds=settling + baking))]
