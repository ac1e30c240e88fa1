"""What a person orders on cue, as a decision: the same that the command of that name makes of it."""

from datetime import datetime
from typing import Any

from msgspec.structs import replace

from controller.domain.decide import Decision, stage_holding, step_back
from controller.domain.flag import FlagState
from controller.domain.plan import RolloutPlan
from controller.domain.quantities import exposure_text
from controller.domain.rollout import Action, Run, next_phase
from controller.domain.sentences import Sentence
from controller.errors import Conflict, Refused


def ordered(
    cue: Sentence, run: Run, plan: RolloutPlan, flag: FlagState, now: datetime
) -> tuple[Decision, dict[str, Any]]:
    """The decision, and what the transition carries beside it. Raises Conflict or Refused as the command would."""
    who = cue.by or "a person"
    match cue.verb:
        case "approve":
            return _approved(cue, run, plan, who, now)
        case "resume":
            return _resumed(run, plan, flag, who)
        case "step back":
            if run.exposure == 0:
                raise Refused(f"{run.id} is at 0 % already; there is no stage to step back to")
            return step_back(run, plan, f"by {who}", cause="user"), {}
        case "kill":
            return replace(_unmoved(run, "kill", f"killed by {who}"), exposure=0, audience=False), {}
        case "abandon":
            text = f"abandoned; the flag stays at {exposure_text(run.exposure)} by {who}"
            return _unmoved(run, "abandon", text), {}
        case _:
            return _unmoved(run, "pause", f"paused at {exposure_text(run.exposure)} by {who}"), {}


def _approved(
    cue: Sentence, run: Run, plan: RolloutPlan, who: str, now: datetime
) -> tuple[Decision, dict[str, Any]]:
    request = run.approval
    if request is None or request.granted_at is not None:
        raise Conflict(f"{run.id} waits for no approval")
    stage = plan.spec.stages[request.stage]
    if stage.name != cue.noun:
        raise Conflict(f"{run.id} waits for approval of {stage.name}, not of {cue.noun}")
    granted = replace(request, granted_by=who, granted_at=now)
    text = f"approved {stage.name} ({exposure_text(stage.share)}) by {who}"
    return _unmoved(run, "approve", text), {"approval": granted}


def _resumed(run: Run, plan: RolloutPlan, flag: FlagState, who: str) -> tuple[Decision, dict[str, Any]]:
    next_phase(run.phase, "resume")
    exposure = run.exposure
    if plan.spec.mode == "enforce":
        exposure = min(exposure, flag.effective_exposure)
        if run.turned_on and not flag.enabled:
            raise Refused(f"{run.id} cannot resume: the flag is off, and only a start turns a flag on")
    decision = Decision(
        action="resume",
        cause="user",
        text=f"resumed at {exposure_text(exposure)}; the bake starts anew by {who}",
        stage=stage_holding(plan, exposure),
        exposure=exposure,
        audience=run.audience and exposure > 0,
    )
    return decision, {"confirmed_at": None, "approval": None}


def _unmoved(run: Run, action: Action, text: str) -> Decision:
    return Decision(
        action=action, cause="user", text=text, stage=run.stage, exposure=run.exposure, audience=run.audience
    )
