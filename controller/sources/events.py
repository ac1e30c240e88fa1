"""Measurements without metrics: what applications tell with `track()`, by the variation that they served.

Selectors are named as a client library for Prometheus would name them: `error_total` is how often the event
`error` was tracked, `error_contexts_total` for how many different contexts, `latency_bucket` the histogram of the
values of `latency`. It answers from counts in the database, the same on every replica.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from controller.domain.evidence import (
    Examination,
    Examined,
    QuantileQuestion,
    QueryQuestion,
    Question,
    RatioQuestion,
    Reading,
    Series,
)
from controller.domain.quantities import exposure_text
from controller.domain.tally import (
    CHANGING,
    CONTEXTS,
    COUNTED_FROM_SECONDS,
    NO_BUCKET,
    SLOT_SECONDS,
    Cell,
    Counted,
    Sketch,
    Watch,
    contexts_of,
    cumulative,
    unpacked,
)
from controller.errors import Invalid, StoreUnavailable
from controller.settings import EventsSourceSettings
from controller.sources import coalescing, histogram, selectors
from controller.sources.host import Host
from controller.sources.selectors import Selector

LABELS = ("environment", "flag", "variation", "cohort", "exposure")
TOTAL_SUFFIX, CONTEXTS_SUFFIX, BUCKET_SUFFIX = "_total", "_contexts", "_bucket"
MOST_UNASSIGNED = 0.05
"""Of the events of one key. With more, what is left says nothing sure of either variation."""

NO_QUERIES = 'an "events" source cannot answer a raw query; use selectors, or a Prometheus'


class Asked(NamedTuple):
    """One selector: the flag it names, the event, and whether it asks for contexts instead of events."""

    selector: Selector
    flag: str
    event: str
    contexts: bool

    @property
    def watch(self) -> Watch:
        return Watch(self.flag, contexts_of(self.event) if self.contexts else self.event)


class Found(NamedTuple):
    """What a selector chose: one number, or (upper bound, events up to it); and since when nothing was added."""

    number: float | None
    buckets: Sequence[tuple[float, float]]
    age_seconds: float | None


class Window(NamedTuple):
    """What all selectors of one window are answered from, by (flag, event)."""

    counts: Mapping[tuple[str, str], Sequence[Counted]]
    contexts: Mapping[tuple[str, str], Sequence[Counted]]


class EventsSource:
    def __init__(self, name: str, settings: EventsSourceSettings, host: Host) -> None:
        self._name = name
        self._settings = settings
        self._events = host.events

    def start(self) -> None:
        """Nothing runs between measurements."""

    async def close(self) -> None:
        """Nothing is open between measurements."""

    async def expect(self, questions: Iterable[Question]) -> None:
        """These will be asked: count for them from now on. Raises StoreUnavailable."""
        watches = {one.watch for question in questions for one in _readable(question)}
        if watches:
            await self._events.watch(watches, from_seconds=COUNTED_FROM_SECONDS)

    async def measure(self, questions: Collection[Question]) -> Mapping[Question, Reading]:
        try:
            await self.expect(questions)
            windows = {seconds: await self._window(questions, seconds) for seconds in _windows(questions)}
        except StoreUnavailable as error:
            return {one: _failed(one, f"{self._name}: {error}") for one in questions}
        return {one: self._reading(one, windows) for one in questions}

    async def problems(self) -> Sequence[str]:
        try:
            await self._events.watches()
        except StoreUnavailable as error:
            return [str(error)]
        return []

    async def examine(self, questions: Collection[Question]) -> Examined:
        try:
            windows = {seconds: await self._window(questions, seconds) for seconds in _windows(questions)}
        except StoreUnavailable as error:
            return Examined(found=dict.fromkeys(questions, Examination(failure=str(error))))
        return Examined(found={one: _examination(one, windows) for one in questions})

    async def _window(self, questions: Iterable[Question], seconds: float) -> Window:
        asked = {one for question in questions if _seconds(question) == seconds for one in _readable(question)}
        counts = {(one.flag, one.event) for one in asked if not one.contexts}
        # Those whose events cannot be assigned are counted, and have no contexts.
        contexts = {(one.flag, one.event) for one in asked if one.contexts}
        return Window(
            counts=_by_event(
                await self._events.counted(counts | contexts, window_seconds=seconds, contexts=False)
            ),
            contexts=_by_event(await self._events.counted(contexts, window_seconds=seconds, contexts=True)),
        )

    def _reading(self, question: Question, windows: Mapping[float, Window]) -> Reading:
        if isinstance(question, QueryQuestion):
            return _failed(question, NO_QUERIES)
        if question.window_seconds > self._settings.retention_seconds:
            return _failed(
                question,
                f"{self._name}: the window of {question.window_seconds:g} s is longer than the"
                f" {self._settings.retention_seconds:g} s kept; raise retention_seconds",
            )
        window = windows[question.window_seconds]
        try:
            return _ratio(question, window) if isinstance(question, RatioQuestion) else _quantile(question, window)
        except Invalid as error:
            return _failed(question, str(error))


def _ratio(question: RatioQuestion, window: Window) -> Reading:
    bad, total = (_found(_asked(text), window) for text in (question.bad, question.total))
    query = coalescing.console_query(question)
    return Reading(query=query, bad=bad.number, total=total.number, age_seconds=total.age_seconds)


def _quantile(question: QuantileQuestion, window: Window) -> Reading:
    found = _found(_asked(question.histogram, values=True), window)
    return Reading(
        query=coalescing.console_query(question),
        value=histogram.quantile(question.quantile, found.buckets) if found.buckets else None,
        total=histogram.total(found.buckets),
        age_seconds=found.age_seconds,
    )


def _failed(question: Question, why: str) -> Reading:
    return Reading(query=coalescing.console_query(question), failure=why)


def _seconds(question: Question) -> float | None:
    return None if isinstance(question, QueryQuestion) else question.window_seconds


def _windows(questions: Iterable[Question]) -> set[float]:
    return {seconds for question in questions if (seconds := _seconds(question)) is not None}


def _by_event(counted: Iterable[Counted]) -> Mapping[tuple[str, str], Sequence[Counted]]:
    found: defaultdict[tuple[str, str], list[Counted]] = defaultdict(list)
    for one in counted:
        found[one.cell.flag, one.cell.event].append(one)
    return found


# — what is asked —


def _readable(question: Question) -> list[Asked]:
    """The selectors of a question; of one that cannot be asked none, and its reading says why."""
    try:
        if isinstance(question, QueryQuestion):
            return []
        if isinstance(question, RatioQuestion):
            return [_asked(question.bad), _asked(question.total)]
        return [_asked(question.histogram, values=True)]
    except Invalid:
        return []


def _asked(text: str, *, values: bool = False) -> Asked:
    """`values`: a histogram of them is asked for. Raises Invalid."""
    selector = selectors.parse(text)
    unknown = sorted({one.label for one in selector.matchers} - set(LABELS))
    if unknown:
        raise Invalid(
            f"events have no label {', '.join(unknown)}, so {text!r} would never find any;"
            f" they have {', '.join(LABELS)}"
        )
    flags = {one.value for one in selector.matchers if one.label == "flag" and one.operator == "="}
    if len(flags) != 1:
        raise Invalid(f'{text!r} must say which flag: flag="$flag"')
    event, contexts = _event(selector.metric, values=values)
    return Asked(selector, flags.pop(), event, contexts)


def _event(metric: str, *, values: bool) -> tuple[str, bool]:
    """The event that a metric's name means, and whether it means the contexts that had it."""
    if values:
        return metric.removesuffix(BUCKET_SUFFIX), False
    event = metric.removesuffix(TOTAL_SUFFIX)
    if event == CONTEXTS:
        return event, True
    return event.removesuffix(CONTEXTS_SUFFIX), event.endswith(CONTEXTS_SUFFIX)


# — and what was found —


def _found(asked: Asked, window: Window) -> Found:
    """Raises Invalid when it must not be taken for an answer."""
    counts = _chosen(asked, window.counts[asked.flag, asked.event])
    _refuse_unassigned(asked, window.counts[asked.flag, asked.event], {one.cell.environment for one in counts})
    chosen = _chosen(asked, window.contexts[asked.flag, asked.event]) if asked.contexts else counts
    environments = sorted({one.cell.environment for one in chosen})
    if len(environments) > 1:
        raise Invalid(
            f"{asked.selector.metric} was counted in {' and '.join(environments)}, and the selector does not say"
            ' which it means; add environment="$environment"'
        )
    age = min((one.age_seconds for one in chosen), default=None)
    if asked.contexts:
        sketch = Sketch(hash_ for one in chosen for hash_ in unpacked(one.contexts))
        return Found(sketch.estimate() if chosen else None, (), age)
    whole = [one.count for one in chosen if one.bucket == NO_BUCKET]
    values = [(one.bucket, one.count) for one in chosen if one.bucket != NO_BUCKET]
    return Found(float(sum(whole)) if whole else None, cumulative(values) if whole else (), age)


def _chosen(asked: Asked, counted: Sequence[Counted]) -> list[Counted]:
    matches = selectors.predicate(asked.selector.matchers)
    return [one for one in counted if one.cell.variation and matches(_labels(one.cell))]


def _refuse_unassigned(asked: Asked, counted: Sequence[Counted], environments: Collection[str]) -> None:
    """Events that belong to one of the variations, nobody knows which: few change nothing, many everything."""
    here = [
        one
        for one in counted
        if one.bucket == NO_BUCKET and one.cell.cohort != CHANGING and _may_be_in(asked, one.cell, environments)
    ]
    total = sum(one.count for one in here)
    without = [one for one in here if not one.cell.variation]
    if total and sum(one.count for one in without) > MOST_UNASSIGNED * total:
        reasons = ", ".join(sorted({one.cell.cohort for one in without}))
        raise Invalid(
            f"{sum(one.count for one in without)} of {total} events {asked.event} cannot be assigned to a"
            f" variation of {asked.flag} ({reasons}); docs/events.md says what to do"
        )


def _may_be_in(asked: Asked, cell: Cell, environments: Collection[str]) -> bool:
    named = [one for one in asked.selector.matchers if one.label == "environment"]
    if named:
        return selectors.predicate(tuple(named))({"environment": cell.environment})
    return not environments or cell.environment in environments


def _labels(cell: Cell) -> Mapping[str, str]:
    exposure = exposure_text(cell.exposure).replace(" ", "") if cell.exposure >= 0 else ""
    return {
        "environment": cell.environment,
        "flag": cell.flag,
        "variation": cell.variation,
        "cohort": cell.cohort,
        "exposure": exposure,
    }


def _examination(question: Question, windows: Mapping[float, Window]) -> Examination:
    asked = _readable(question)
    if isinstance(question, QueryQuestion) or not asked:
        return Examination(failure=NO_QUERIES if isinstance(question, QueryQuestion) else "it cannot be asked")
    last = asked[-1]
    chosen = _chosen(last, windows[question.window_seconds].counts[last.flag, last.event])
    series = [Series(_labels(one.cell), float(one.count)) for one in chosen if one.bucket == NO_BUCKET]
    return Examination(series=tuple(series), interval_seconds=SLOT_SECONDS)
