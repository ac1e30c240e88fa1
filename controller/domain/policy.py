"""What SRE writes: the guardrail policy, exactly as in YAML (see plan.py for the conventions)."""

from typing import Annotated, Literal

from msgspec import Meta, field

from controller.domain.plan import ApiVersion, Document, Metadata, Sample
from controller.domain.quantities import Duration, Name, seconds

RuleMode = Literal["enforce", "observe"]
MetricShape = Literal["ratio", "quantile", "query"]
QueryLanguage = Literal["promql", "vendor"]
BUILT_IN_PLACEHOLDERS = ("flag", "variation", "environment", "window")


class Param(Document, frozen=True):
    required: bool = False
    default: str | None = None


class Baseline(Document, frozen=True):
    """`control` is the fallback variation now; `before` is the time before the run's first exposure."""

    from_: Literal["control", "before"] = field(default="control", name="from")
    fallback: Literal["before"] | None = None
    before: Duration = "1h"

    @property
    def before_seconds(self) -> float:
        return seconds(self.before)


class Metric(Document, frozen=True):
    """One of three shapes: bad/total counters, a histogram's quantile, or a raw query."""

    bad: str | None = None
    total: str | None = None
    histogram: str | None = None
    quantile: Annotated[float, Meta(gt=0, lt=1)] | None = None
    query: str | None = None
    unit: str | None = None

    @property
    def shape(self) -> MetricShape:
        if self.query is not None:
            return "query"
        return "quantile" if self.histogram is not None else "ratio"


class Rule(Document, frozen=True):
    id: Name
    condition: str = field(name="if")
    then: Literal["pause", "step_back", "kill"]
    for_: Duration = field(default="0s", name="for")
    floor: str | None = None
    mode: RuleMode = "enforce"
    even_if_control_fails: bool = False

    @property
    def for_seconds(self) -> float:
        return seconds(self.for_)


class WhenUnknown(Document, frozen=True):
    """After how much accumulated silence, and what then. Never a pass, never a kill."""

    after: Duration
    then: Literal["hold", "pause"]

    @property
    def after_seconds(self) -> float:
        return seconds(self.after)


class PolicySpec(Document, frozen=True):
    """`language` of the metrics' texts: `vendor` is whatever the system behind the source understands."""

    source: Name
    metrics: Annotated[dict[Name, Metric], Meta(min_length=1)]
    rules: Annotated[list[Rule], Meta(min_length=1)]
    language: QueryLanguage = "promql"
    params: dict[Name, Param] = {}
    every: Duration = "15s"
    window: Duration = "5m"
    stale_after: Duration | None = None
    baseline: Baseline | None = None
    min_sample: Sample = Sample(requests=100)
    no_data: WhenUnknown = WhenUnknown(after="10m", then="pause")
    query_error: WhenUnknown = WhenUnknown(after="5m", then="hold")

    @property
    def every_seconds(self) -> float:
        return seconds(self.every)

    @property
    def window_seconds(self) -> float:
        return seconds(self.window)

    @property
    def stale_after_seconds(self) -> float:
        """How old the newest raw sample may be; two polls unless written."""
        return seconds(self.stale_after) if self.stale_after else 2 * self.every_seconds


class GuardrailPolicy(Document, frozen=True, tag_field="kind", tag="GuardrailPolicy"):
    api_version: ApiVersion
    metadata: Metadata
    spec: PolicySpec
