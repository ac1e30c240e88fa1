"""One case of a test, made ready to be played: plan, bound policies, levels of every metric, sentences, times."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal
from zoneinfo import ZoneInfo

from msgspec import Struct
from msgspec.structs import replace

from controller.domain.assess import metrics_used, poll_seconds
from controller.domain.binding import Guardrail, bind, placeholders
from controller.domain.levels import Kind, Levels, constant, parse_levels, parse_samples
from controller.domain.plan import Audience, FlagRef, GuardrailUse, Metadata, PlanSpec, RolloutPlan, Serve, Stage
from controller.domain.policy import GuardrailPolicy, Metric
from controller.domain.quantities import seconds
from controller.domain.rehearsal import (
    REQUESTS,
    STAND_IN_STAGES,
    Case,
    RehearsalSpec,
    bucket_bound,
    kind_of,
)
from controller.domain.schedule import closed
from controller.domain.sentences import Sentence, parse_event, parse_expectation
from controller.errors import Invalid

Side = Literal["rollout", "control"]
SIDES: tuple[Side, Side] = ("rollout", "control")

STAND_IN_FLAG = FlagRef(provider="main", environment="production", key="example")
STARTS_AT = datetime(2026, 11, 3, 10, 0)  # noqa: DTZ001 - a Tuesday morning, in the plan's own zone
PLACEHOLDER = "example"
"""What stands for a parameter that a test of a policy does not give."""

HEALTHY: Mapping[Kind, float] = {"ratio": 0.0, "seconds": 0.1, "rate": 0.0, "number": 0.0}
MOST_TICKS = 500_000


class Track(Struct, frozen=True, kw_only=True):
    """What one metric of one policy does on both sides. `before` is the control's level before the start."""

    guardrail: Guardrail
    metric: str
    rollout: Levels
    control: Levels
    before: float | None
    bounds: tuple[float, ...]

    @property
    def name(self) -> str:
        return f"{self.guardrail.policy}/{self.metric}"

    @property
    def declared(self) -> Metric:
        return self.guardrail.metrics[self.metric]

    def levels(self, side: Side) -> Levels:
        return self.rollout if side == "rollout" else self.control


class RawTrack(Struct, frozen=True, kw_only=True):
    """A series given sample by sample; None is a sample that is missing."""

    selector: str
    samples: tuple[float | None, ...]


class Script(Struct, frozen=True, kw_only=True):
    """`requests` are rates per second; None for a side that gets its share of the traffic. Times in seconds."""

    case: Case
    plan: RolloutPlan
    guardrails: tuple[Guardrail, ...]
    tracks: tuple[Track, ...]
    raw: tuple[RawTrack, ...]
    traffic: Levels
    requests: Mapping[Side, Levels]
    interval: float
    starts_at: datetime
    until: float
    expectations: tuple[Sentence, ...]
    events: tuple[Sentence, ...]

    @property
    def poll(self) -> float:
        return poll_seconds(self.guardrails)


def stand_in(policy: GuardrailPolicy, given: Mapping[str, str], stages: Sequence[Stage]) -> RolloutPlan:
    """The smallest plan that uses this policy, so that it can be tested alone."""
    params = {name: PLACEHOLDER for name, param in policy.spec.params.items() if param.required}
    use = GuardrailUse(policy=policy.metadata.name, with_={**params, **given})
    return RolloutPlan(
        api_version="rampart/v1",
        metadata=Metadata(name=policy.metadata.name),
        spec=PlanSpec(
            flag=STAND_IN_FLAG,
            serve=Serve(rollout="on", fallback="off"),
            stages=list(stages or STAND_IN_STAGES),
            guardrails=[use],
            audience=Audience(),
        ),
    )


def bound(
    spec: RehearsalSpec, case: Case, plans: Mapping[str, RolloutPlan], policies: Mapping[str, GuardrailPolicy]
) -> tuple[RolloutPlan, tuple[Guardrail, ...]]:
    """The plan that is rehearsed and its rules. Raises Invalid when something it names is not at hand."""
    if spec.plan is not None:
        if spec.plan not in plans:
            raise Invalid(f'no plan is called "{spec.plan}" here')
        plan = plans[spec.plan]
    elif spec.policy is not None and spec.policy in policies:
        plan = stand_in(policies[spec.policy], spec.with_, case.stages)
    else:
        raise Invalid(f'no policy is called "{spec.policy}" here')
    missing = [use.policy for use in plan.spec.guardrails if use.policy not in policies]
    if missing:
        raise Invalid(f'the plan "{plan.metadata.name}" uses policies that are not here: {", ".join(missing)}')
    return plan, tuple(bind(use, policies[use.policy], plan) for use in plan.spec.guardrails)


def write(
    spec: RehearsalSpec, case: Case, plans: Mapping[str, RolloutPlan], policies: Mapping[str, GuardrailPolicy]
) -> Script:
    """Raises Invalid; what is wrong with the text of a case was told by lint before."""
    plan, guardrails = bound(spec, case, plans, policies)
    interval = case.interval_seconds or poll_seconds(guardrails)
    raw = tuple(RawTrack(selector=one.series, samples=parse_samples(one.values)) for one in case.series)
    sides: dict[Side, Mapping[str, object]] = {"rollout": case.rollout, "control": case.control}
    script = Script(
        case=case,
        plan=plan,
        guardrails=guardrails,
        tracks=tuple(
            _track(case, guardrail, metric, interval)
            for guardrail in guardrails
            for metric in metrics_used(guardrail)
        ),
        raw=raw,
        traffic=parse_levels(case.traffic, "rate", interval=interval),
        requests={
            side: parse_levels(str(levels[REQUESTS]), "rate", interval=interval)
            for side, levels in sides.items()
            if REQUESTS in levels
        },
        interval=interval,
        starts_at=_starts_at(case, plan),
        until=0.0,
        expectations=tuple(parse_expectation(text) for text in case.expect),
        events=tuple(parse_event(text) for text in case.events),
    )
    until = seconds(case.until) if case.until else _ends(script)
    if until / script.poll > MOST_TICKS:
        raise Invalid(f"the test would judge more than {MOST_TICKS} times; give it a shorter until")
    return replace(script, until=until)


def _track(case: Case, guardrail: Guardrail, metric: str, interval: float) -> Track:
    declared = guardrail.metrics[metric]
    kind = kind_of(declared)

    def given(levels: Mapping[str, object]) -> Levels | None:
        text = levels.get(f"{guardrail.policy}/{metric}", levels.get(metric))
        return None if text is None else parse_levels(str(text), kind, interval=interval)

    rollout, control, before = given(case.rollout), given(case.control), given(case.before)
    if declared.query is not None and not _tells_sides_apart(declared.query):
        rollout = control = rollout or control
    ordinary = _first(control or rollout, kind)
    rollout = rollout or constant(ordinary)
    control = control or constant(ordinary)
    return Track(
        guardrail=guardrail,
        metric=metric,
        rollout=rollout,
        control=control,
        before=(before or control).pieces[0].first,
        bounds=_bounds(case.buckets.get(metric, []), [one for one in (rollout, control, before) if one]),
    )


def _tells_sides_apart(query: str) -> bool:
    return any(name == "variation" for name, _, _ in placeholders(query))


def _first(levels: Levels | None, kind: Kind) -> float:
    known = [piece.first for piece in levels.pieces if piece.first is not None] if levels else []
    return known[0] if known else HEALTHY[kind]


def _bounds(written: Sequence[object], levels: Sequence[Levels]) -> tuple[float, ...]:
    """Upper bounds of the histogram: as written, else each level itself, so that its quantile is exact."""
    if written:
        return tuple(sorted(bucket_bound(str(one)) for one in written))
    values = sorted(value for one in levels for value in one.values if value > 0) or [HEALTHY["seconds"]]
    around = [values[0] / 4, values[0] / 2, values[-1] * 2, values[-1] * 4]
    return tuple(sorted({*values, *around}))


def _starts_at(case: Case, plan: RolloutPlan) -> datetime:
    zone = ZoneInfo(plan.spec.schedule.timezone)
    if case.starts_at is not None:
        return datetime.fromisoformat(case.starts_at).replace(tzinfo=zone).astimezone(UTC)
    start = STARTS_AT.replace(tzinfo=zone).astimezone(UTC)
    shut = closed(plan.spec.schedule, start)
    return start if shut is None or shut.opens_at is None else shut.opens_at


def _ends(script: Script) -> float:
    """Late enough for everything that is spoken of, and for what the last change leads to."""
    sentences = (*script.expectations, *script.events)
    spoken = [moment for one in sentences for moment in (one.at, one.until) if moment is not None]
    slack = len(script.plan.spec.stages) * script.poll
    if script.raw:
        return max([*spoken, *((len(one.samples) - 1) * script.interval for one in script.raw)]) + slack
    tracks = [levels for track in script.tracks for levels in (track.rollout, track.control)]
    changes = [levels.last_change for levels in (*tracks, script.traffic, *script.requests.values())]
    rules = [rule.rule.for_seconds for guardrail in script.guardrails for rule in guardrail.rules]
    windows = [guardrail.window_seconds for guardrail in script.guardrails]
    return max([*spoken, max(changes) + max(windows) + max(rules)]) + slack
