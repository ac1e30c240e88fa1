"""From inputs to evidence: which questions a tick asks, and what their answers amount to.

`assess` followed by `decide` is the whole judgement. Both are pure, and the inputs are recorded with every
decision, so that the same decision can be made again from the audit log (replay).
"""

from collections.abc import Mapping
from datetime import datetime

from msgspec import Struct

from controller.domain.accumulators import accumulate, countable
from controller.domain.binding import Guardrail
from controller.domain.convergence import converge
from controller.domain.decide import Decision, Evidence, decide, stage_at
from controller.domain.evidence import Question, Reading, Verdict
from controller.domain.flag import FlagState, Observation
from controller.domain.freezes import OrganisationFreeze
from controller.domain.judge import Side, Sides, judge, settle
from controller.domain.plan import RolloutPlan
from controller.domain.quantities import FULL_EXPOSURE
from controller.domain.rollout import NOT_STARTED, Observations, Run
from controller.domain.schedule import closed


class Inputs(Struct, frozen=True, kw_only=True):
    """Everything from outside that one decision rests on. Durations are monotonic seconds.

    `elapsed` is the time since this holder's previous tick of the run (0 for a new holder), `since_apply` since
    its latest write to the provider. `obstacles` say why the database lets no run rise, whatever its evidence.
    `freezes` are the organisation's that cover the plan and are not over; `newest_freeze` is the number of the
    newest one that was known then, whomever it covers.
    """

    now: datetime
    readings: list[tuple[Question, Reading]]
    observed: Observation
    observations: Observations
    elapsed: float
    since_apply: float
    settle_seconds: float
    automatic_kills: int = 0
    max_automatic_kills: int = 3
    obstacles: tuple[str, ...] = ()
    freezes: tuple[OrganisationFreeze, ...] = ()
    newest_freeze: int = 0
    bake_waived: bool = False


def poll_seconds(guardrails: tuple[Guardrail, ...]) -> float:
    return min(guardrail.every_seconds for guardrail in guardrails)


def nobody_treated(run: Run) -> bool:
    return run.stage == NOT_STARTED


def next_is_full(run: Run, plan: RolloutPlan) -> bool:
    target = stage_at(plan, run.exposure) + 1
    return target < len(plan.spec.stages) and plan.spec.stages[target].share == FULL_EXPOSURE


def metrics_used(guardrail: Guardrail) -> list[str]:
    named = {one.metric for bound in guardrail.rules for part in bound.condition.parts for one in part.parts}
    return sorted(named)


def questions(run: Run, plan: RolloutPlan, guardrails: tuple[Guardrail, ...]) -> dict[str, list[Question]]:
    """What this tick must ask, by source name."""
    wanted: dict[str, list[Question]] = {}
    for guardrail in guardrails:
        asked = wanted.setdefault(guardrail.source, [])
        for metric in metrics_used(guardrail):
            asked += _questions_of(run, plan, guardrail, metric)
    return wanted


def _questions_of(run: Run, plan: RolloutPlan, guardrail: Guardrail, metric: str) -> list[Question]:
    serve = plan.spec.serve
    asked: list[Question] = []
    if not nobody_treated(run):
        asked.append(guardrail.question(metric, serve.rollout))
    if run.exposure < FULL_EXPOSURE:
        asked.append(guardrail.question(metric, serve.fallback))
    if guardrail.baseline and (nobody_treated(run) or next_is_full(run, plan)):
        asked.append(guardrail.question(metric, serve.fallback, guardrail.baseline.before_seconds))
    return asked


def baseline_readings(
    plan: RolloutPlan, guardrails: tuple[Guardrail, ...], inputs: Inputs
) -> tuple[dict[str, Reading], tuple[str, ...]]:
    """The control over the long baseline span, by `policy/metric`, and the metrics for which it is unusable."""
    found, missing = {}, []
    readings = dict(inputs.readings)
    for guardrail in guardrails:
        if guardrail.baseline is None:
            continue
        for metric in metrics_used(guardrail):
            question = guardrail.question(metric, plan.spec.serve.fallback, guardrail.baseline.before_seconds)
            reading = readings.get(question)
            if _settled(guardrail, metric, reading, fresh=True).problem is None and reading is not None:
                found[f"{guardrail.policy}/{metric}"] = reading
            else:
                missing.append(f"{guardrail.policy}/{metric}")
    return found, tuple(missing)


def assess(run: Run, plan: RolloutPlan, guardrails: tuple[Guardrail, ...], inputs: Inputs) -> Evidence:
    return weigh(run, plan, guardrails, inputs, judge_all(run, plan, guardrails, inputs.readings))


def judge_all(
    run: Run, plan: RolloutPlan, guardrails: tuple[Guardrail, ...], readings: list[tuple[Question, Reading]]
) -> tuple[Verdict, ...]:
    """Every rule judged; it rests on the run's step and stored baselines and on what was read, on nothing else."""
    known = dict(readings)
    return tuple(v for guardrail in guardrails for v in _verdicts(run, plan, guardrail, known))


def weigh(
    run: Run, plan: RolloutPlan, guardrails: tuple[Guardrail, ...], inputs: Inputs, verdicts: tuple[Verdict, ...]
) -> Evidence:
    """What the verdicts of this tick amount to, with everything that was before."""
    observations = accumulate(
        inputs.observations,
        run=run,
        guardrails=guardrails,
        verdicts=verdicts if not nobody_treated(run) else (),
        elapsed=countable(inputs.elapsed, poll_seconds(guardrails)),
        schedule_open=closed(plan.spec.schedule, inputs.now, inputs.freezes) is None,
    )
    convergence = converge(
        run, plan, inputs.observed, seconds_since_apply=inputs.since_apply, settle_seconds=inputs.settle_seconds
    )
    missing: tuple[str, ...] = ()
    if next_is_full(run, plan):
        _, missing = baseline_readings(plan, guardrails, inputs)
    return Evidence(
        verdicts=verdicts,
        observations=observations,
        convergence=convergence,
        automatic_kills=inputs.automatic_kills,
        max_automatic_kills=inputs.max_automatic_kills,
        obstacles=inputs.obstacles,
        freezes=inputs.freezes,
        baselines_missing=missing,
        bake_waived=inputs.bake_waived,
        people=_people(plan, inputs.observed),
    )


def _people(plan: RolloutPlan, observed: Observation) -> FlagState | None:
    return observed if plan.spec.mode == "observe" and isinstance(observed, FlagState) else None


def assess_and_decide(
    run: Run, plan: RolloutPlan, guardrails: tuple[Guardrail, ...], inputs: Inputs
) -> tuple[Evidence, Decision]:
    evidence = assess(run, plan, guardrails, inputs)
    return evidence, decide(run, plan, guardrails, evidence, inputs.now)


def _verdicts(
    run: Run, plan: RolloutPlan, guardrail: Guardrail, readings: Mapping[Question, Reading]
) -> tuple[Verdict, ...]:
    """While nobody is treated the control stands in for the treated side: a start needs a healthy baseline."""
    serve, metrics = plan.spec.serve, metrics_used(guardrail)

    def side(metric: str, variation: str, window_seconds: float | None = None) -> Side:
        reading = readings.get(guardrail.question(metric, variation, window_seconds))
        return _settled(guardrail, metric, reading, fresh=True)

    control = {metric: side(metric, serve.fallback) for metric in metrics}
    before = {
        metric: _settled(guardrail, metric, run.baselines_before.get(f"{guardrail.policy}/{metric}"), fresh=False)
        for metric in metrics
    }
    if nobody_treated(run):
        recent = before
        if guardrail.baseline and not run.baselines_before:
            span = guardrail.baseline.before_seconds
            recent = {metric: side(metric, serve.fallback, span) for metric in metrics}
        return judge(guardrail, treated=control, control=control, baseline=_or(recent, control), before=recent)
    treated = {metric: side(metric, serve.rollout) for metric in metrics}
    baseline = _baseline(run, guardrail, control, before)
    return judge(guardrail, treated=treated, control=control, baseline=baseline, before=before)


def _baseline(run: Run, guardrail: Guardrail, control: Sides, before: Sides) -> Sides:
    """What `baseline` means at this exposure: control now, control's stored last span at 100 %, or before."""
    declared = guardrail.baseline
    if declared is None:
        return {}
    if declared.from_ == "before":
        return before
    if run.exposure == FULL_EXPOSURE:
        control = {
            metric: _settled(
                guardrail, metric, run.baselines_control.get(f"{guardrail.policy}/{metric}"), fresh=False
            )
            for metric in control
        }
    return _or(control, before) if declared.fallback == "before" else control


def _or(first: Sides, second: Sides) -> Sides:
    return {
        metric: side if side.problem is None or second[metric].problem is not None else second[metric]
        for metric, side in first.items()
    }


def _settled(guardrail: Guardrail, metric: str, reading: Reading | None, *, fresh: bool) -> Side:
    return settle(
        reading,
        guardrail.metrics[metric].shape,
        min_sample=guardrail.min_sample,
        stale_after=guardrail.stale_after_seconds if fresh else None,
    )
