"""What Prometheus is shown of one active run: where it is, and the numbers behind each of its rules."""

from collections.abc import Callable, Iterator
from typing import get_args

from controller.domain.evidence import Outcome
from controller.domain.quantities import FULL_EXPOSURE
from controller.domain.rollout import Phase
from controller.domain.status import RuleStatus, RunStatus
from controller.telemetry.exposition import Family

RUN = ("rollout", "environment")
RULE = (*RUN, "policy", "rule")

DATA_STATES = ("ok", "too_few", "no_data", "error", "not_applicable")
_DATA_STATE: dict[Outcome, str] = {
    "pass": "ok",
    "breach": "ok",
    "inconclusive": "ok",
    "too_few": "too_few",
    "no_data": "no_data",
    "error": "error",
    "not_applicable": "not_applicable",
}

INFO = Family(
    "rollout_info", "gauge", "An active run and what it drives; always 1.",
    (*RUN, "run", "provider", "flag", "owner", "mode"),
)  # fmt: skip
STATE = Family("rollout_state", "gauge", "1 for the phase the run is in, else 0.", (*RUN, "state"))
STAGE_INDEX = Family("rollout_stage_index", "gauge", "Stage reached, from 0; -1 before the first.", RUN)
STAGES = Family("rollout_stages", "gauge", "Number of stages of the plan.", RUN)
BAKE = Family("rollout_stage_bake_seconds", "gauge", "Bake the present stage asks for.", RUN)
BAKED = Family("rollout_stage_baked_seconds", "gauge", "Bake accumulated in the present stage.", RUN)
EXPOSURE = Family(
    "rollout_exposure_ratio", "gauge", "Share of contexts, 0 to 1; no observed one while the provider is silent.",
    (*RUN, "kind"),
)  # fmt: skip
APPROVAL = Family(
    "rollout_approval_requested_timestamp_seconds", "gauge", "When somebody was asked to approve the stage.",
    (*RUN, "stage"),
)  # fmt: skip
CONFIRMED = Family("rollout_confirmed", "gauge", "1 when the provider was read back as desired.", RUN)
VALUE = Family("guardrail_value", "gauge", "Latest value of the rule's metric, in its base unit.", RULE)
THRESHOLD = Family("guardrail_threshold", "gauge", "Absolute limit the value is compared with.", RULE)
BASELINE = Family("guardrail_baseline", "gauge", "Baseline the limit was taken from.", RULE)
SAMPLE = Family("guardrail_sample_count", "gauge", "Requests in the window behind the value.", RULE)
BREACHED = Family("guardrail_breached", "gauge", "1 while the value breaks the rule.", RULE)
DATA = Family("guardrail_data_state", "gauge", "1 for the state of the rule's data, else 0.", (*RULE, "state"))

FAMILIES = (
    INFO, STATE, STAGE_INDEX, STAGES, BAKE, BAKED, APPROVAL, EXPOSURE, CONFIRMED,
    VALUE, THRESHOLD, BASELINE, SAMPLE, BREACHED, DATA,
)  # fmt: skip


def run_lines(status: RunStatus) -> Iterator[str]:
    """One text per family, in the order of FAMILIES. What is unknown has no series rather than a zero."""
    run = (status.plan, status.flag.environment)
    stage = status.stages[status.stage] if 0 <= status.stage < len(status.stages) else None
    flag = status.flag
    yield INFO.line((*run, status.id, flag.provider, flag.key, status.owner, status.mode), 1)
    yield "".join(STATE.line((*run, phase), phase == status.phase) for phase in get_args(Phase))
    yield STAGE_INDEX.line(run, status.stage)
    yield STAGES.line(run, len(status.stages))
    yield BAKE.line(run, stage.bake_seconds) if stage else ""
    yield BAKED.line(run, stage.baked_seconds) if stage else ""
    asked = status.approval
    yield APPROVAL.line((*run, asked.stage), asked.requested_at.timestamp()) if asked else ""
    # What nothing tries to bring about is not called desired: the two may differ for as long as people like.
    desired = "desired" if status.mode == "enforce" else "would_be"
    yield "".join(
        EXPOSURE.line((*run, kind), thousandths / FULL_EXPOSURE)
        for kind, thousandths in ((desired, status.desired_exposure), ("observed", status.observed_exposure))
        if thousandths is not None
    )
    yield CONFIRMED.line(run, status.confirmed) if status.mode == "enforce" else ""
    for family, number in _NUMBERS:
        yield "".join(
            family.line((*run, rule.policy, rule.rule), shown)
            for rule in status.rules
            if (shown := number(rule)) is not None
        )
    yield "".join(
        DATA.line((*run, rule.policy, rule.rule, state), state == _DATA_STATE[rule.outcome])
        for rule in status.rules
        for state in DATA_STATES
    )


_NUMBERS: tuple[tuple[Family, Callable[[RuleStatus], float | None]], ...] = (
    (VALUE, lambda rule: rule.value),
    (THRESHOLD, lambda rule: rule.limit),
    (BASELINE, lambda rule: rule.baseline),
    (SAMPLE, lambda rule: rule.sample),
    (BREACHED, lambda rule: float(rule.outcome == "breach")),
)
