"""What the samples in memory answer to a batch of terms, as Prometheus would from the same samples."""

from collections import defaultdict
from collections.abc import Sequence

from controller.errors import Invalid
from controller.sources import coalescing, selectors
from controller.sources.coalescing import BUCKET_LABEL, Batch, Failure, Found, Key, Term, Values
from controller.sources.extrapolation import increase
from controller.sources.sample_memory import SampleMemory, Series

# Less than this share of the window watched is silence: it must not look like a full window.
ENOUGH_COVERED = 0.8


class Recollection:
    """Gathers, series by series, the answers to one batch."""

    def __init__(self, batch: Batch) -> None:
        self._template = batch.template
        self._members = frozenset(batch.members)
        self._matches = selectors.predicate(batch.template.fixed)
        self._found: dict[Values, dict[str, float]] = defaultdict(dict)
        self._covered: set[Values] = set()

    def add(self, memory: SampleMemory, now: float, longest_gap: float) -> None:
        template = self._template
        start = now - template.window_seconds
        covered = memory.covered_seconds(start, now, longest_gap) >= ENOUGH_COVERED * template.window_seconds
        for series in memory.series(template.metric):
            values = tuple([series.labels.get(label, "") for label in template.labels])
            if values not in self._members or not self._matches(series.labels):
                continue
            if template.kind == "freshness":
                self._add_age(values, memory.newest_sample_at(series), now)
            elif (stretch := memory.stretch(series, start, now)) is not None:
                self._add_increase(values, series, increase(stretch, start, now))
                if covered:
                    self._covered.add(values)

    def answers(self) -> dict[Key, Found | Failure]:
        """A series is answered when at least one target that has it was watched long enough."""
        answerable = self._members if self._template.kind == "freshness" else self._covered
        return {
            Term(self._template, values): list(self._found[values].items()) if values in answerable else []
            for values in self._members
        }

    def _add_age(self, values: Values, newest_at: float | None, now: float) -> None:
        if newest_at is not None:
            found = self._found[values]
            found[""] = min(found.get("", now - newest_at), now - newest_at)

    def _add_increase(self, values: Values, series: Series, grown: float | None) -> None:
        if grown is not None:
            bucket = series.labels.get(BUCKET_LABEL, "") if self._template.kind == "buckets" else ""
            found = self._found[values]
            found[bucket] = found.get(bucket, 0.0) + grown


def answer(
    batch: Batch, memories: Sequence[SampleMemory], now: float, *, longest_gap: float
) -> dict[Key, Found | Failure]:
    """Every term of the batch; `longest_gap` in seconds: farther apart, two scrapes leave a hole."""
    try:
        recollection = Recollection(batch)
    except Invalid as error:
        return dict.fromkeys(coalescing.keys(batch), Failure(str(error)))
    for memory in memories:
        recollection.add(memory, now, longest_gap)
    return recollection.answers()
