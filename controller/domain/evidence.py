"""What is asked of a source, what it saw, and what the judge made of it."""

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct


class RatioQuestion(Struct, frozen=True, kw_only=True, tag="ratio"):
    """Increase of two counters over the window, each summed over its selector."""

    bad: str
    total: str
    window_seconds: float


class QuantileQuestion(Struct, frozen=True, kw_only=True, tag="quantile"):
    """Quantile of a classic histogram's increase over the window; `histogram` selects its `_bucket` series."""

    histogram: str
    quantile: float
    window_seconds: float


class QueryQuestion(Struct, frozen=True, kw_only=True, tag="query"):
    """A raw query that must give one number. Never coalesced. PromQL names the window itself, others need it."""

    query: str
    window_seconds: float = 0.0


Question = RatioQuestion | QuantileQuestion | QueryQuestion


class Reading(Struct, frozen=True, kw_only=True):
    """What a source saw, unjudged: silence, NaN and failure arrive here as they are.

    `query` is the text a person can paste into the source's own console. `value` is the quantile or the raw
    result; a ratio leaves it None and gives `bad` and `total`, the increases over the window. `total` is the
    number of requests behind a quantile too. None means the source returned nothing for it. `series` is how
    many results answered where one was expected. `age_seconds` is the age of the newest raw sample behind
    `total` (None: unknown, as for a raw query). `failure` says why the source could not answer at all.
    """

    query: str
    value: float | None = None
    bad: float | None = None
    total: float | None = None
    series: int = 1
    age_seconds: float | None = None
    failure: str | None = None


class Series(Struct, frozen=True):
    """One series and its newest value; `labels` without the metric's name."""

    labels: Mapping[str, str]
    value: float


class Examination(Struct, frozen=True, kw_only=True):
    """What a source holds of the series behind a question, unjudged: for whoever checks an installation.

    `series` are some of those whose sum is the reading's `total`. `interval_seconds` lies between two samples of
    one of them; None means unknown, as for a raw query. `failure` says why nothing could be looked at.
    """

    series: tuple[Series, ...] = ()
    interval_seconds: float | None = None
    failure: str | None = None


class Examined(Struct, frozen=True, kw_only=True):
    """`clock_ahead_seconds`: how far the source's clock is ahead of ours; None when it has none that it tells."""

    clock_ahead_seconds: float | None = None
    found: Mapping[Question, Examination] = {}


Outcome = Literal["pass", "breach", "too_few", "no_data", "error", "inconclusive", "not_applicable"]


class Verdict(Struct, frozen=True, kw_only=True):
    """One rule judged once. Numbers are in the metric's own unit (ratios 0…1).

    `control_fails` says whether the control breaks the same condition; None when that cannot be told.
    """

    policy: str
    rule: str
    then: Literal["pause", "step_back", "kill"]
    enforced: bool
    outcome: Outcome
    detail: str
    condition: str
    metric: str
    unit: str = ""
    value: float | None = None
    limit: float | None = None
    baseline: float | None = None
    sample: float | None = None
    control_sample: float | None = None
    query: str = ""
    for_seconds: float = 0.0
    control_fails: bool | None = None
    even_if_control_fails: bool = False

    @property
    def id(self) -> str:
        return f"{self.policy}/{self.rule}"
