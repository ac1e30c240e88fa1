"""What people write to test a policy or a plan, exactly as in YAML (see plan.py for the conventions)."""

from typing import Annotated, Any

from msgspec import Meta, field

from controller.domain.levels import Kind
from controller.domain.plan import LOCAL_TIME_PATTERN, ApiVersion, Document, Metadata, Stage
from controller.domain.policy import Metric
from controller.domain.quantities import Duration, ExposureText, Name, seconds

REQUESTS = "requests"
"""What a side calls its own traffic, among its metrics."""

STAND_IN_STAGES = (
    Stage(name="canary", exposure="10%", bake="30d"),
    Stage(name="half", exposure="50%", bake="30d"),
    Stage(name="everyone", exposure="100%", bake="30d"),
)
"""Of the plan under which a policy is tested alone: it stays at the first, beside a control."""


def kind_of(metric: Metric) -> Kind:
    """What the levels of a metric are."""
    if metric.shape == "ratio" or metric.unit == "ratio":
        return "ratio"
    return "seconds" if metric.unit == "seconds" else "number"


def bucket_bound(text: str) -> float:
    """`250ms` → 0.25, `0.25` → 0.25. Raises ValueError."""
    return seconds(text) if text[-1:].isalpha() else float(text)


class RawSeries(Document, frozen=True):
    """A series as a target would expose it; `values` in Prometheus' notation, one value per interval."""

    series: Annotated[str, Meta(min_length=1)]
    values: Annotated[str, Meta(min_length=1)]


class Noise(Document, frozen=True):
    """Requests, errors and latencies are drawn by lot instead of being exact. The seed decides all of it.

    `spread` is how far traffic and levels wander from minute to minute, beside the lot.
    """

    seed: int
    spread: ExposureText = "0%"


class Case(Document, frozen=True):
    """One rehearsal. A side maps a metric of the policies (or `requests`) to its levels.

    `traffic` is all requests, shared out by exposure; `requests` of a side takes its place there. `before` is
    the control before the start. `stages` replaces the stand-in's when a policy is tested alone.
    """

    name: Annotated[str, Meta(min_length=1)]
    expect: Annotated[list[str], Meta(min_length=1)]
    rollout: dict[str, Any] = {}
    control: dict[str, Any] = {}
    before: dict[str, Any] = {}
    traffic: str = "1000/s"
    noise: Noise | None = None
    series: list[RawSeries] = []
    interval: Duration | None = None
    buckets: dict[str, list[Any]] = {}
    events: list[str] = []
    starts_at: Annotated[str, Meta(pattern=LOCAL_TIME_PATTERN)] | None = None
    until: Duration | None = None
    stages: Annotated[list[Stage], Meta(max_length=100)] = []

    @property
    def interval_seconds(self) -> float | None:
        return seconds(self.interval) if self.interval else None


class RehearsalSpec(Document, frozen=True):
    """What is tested: a plan with its policies, or one policy under a stand-in plan."""

    tests: Annotated[list[Case], Meta(min_length=1, max_length=200)]
    policy: Name | None = None
    plan: Name | None = None
    with_: dict[str, str] = field(default_factory=dict, name="with")


class RolloutTest(Document, frozen=True, tag_field="kind", tag="RolloutTest"):
    api_version: ApiVersion
    metadata: Metadata
    spec: RehearsalSpec
