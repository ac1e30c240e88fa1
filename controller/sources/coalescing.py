"""Many questions, few queries, and every answer back to exactly the question it belongs to. Pure.

A question is made of terms (an increase, the buckets of a histogram, the age of a series). Terms that differ only
in the values of their equality labels are one batch: values shared by all stay `=`, the others become an
alternation and labels of the result. Combinations nobody asked for may come back too; they are not looked at.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Literal

from msgspec import Struct

from controller.domain.evidence import QueryQuestion, Question, RatioQuestion, Reading
from controller.errors import Invalid
from controller.sources import histogram, selectors
from controller.sources.selectors import Matcher, Selector

Kind = Literal["increase", "buckets", "freshness"]
Values = tuple[str, ...]
BUCKET_LABEL = "le"
ALL_BUCKETS = Matcher(BUCKET_LABEL, "=", "+Inf")
QUESTIONS_KEPT = 32_768


class Template(Struct, frozen=True, cache_hash=True, gc=False):
    """What terms share that are asked together. `labels` are the names of the equality labels, in order."""

    kind: Kind
    metric: str
    fixed: tuple[Matcher, ...]
    labels: tuple[str, ...]
    window_seconds: float


class Term(Struct, frozen=True, cache_hash=True, gc=False):
    """One number (or one set of buckets) to be had from a source; `values` go with the template's labels."""

    template: Template
    values: Values


class Batch(Struct, frozen=True, gc=False):
    """Terms of one template that one query answers."""

    template: Template
    members: tuple[Values, ...]


class Failure(Struct, frozen=True, gc=False):
    """Why there is no answer, for a person to read."""

    text: str


# (le or "", value) pairs: one pair answers a term, several an ambiguous one, none is silence.
Found = Sequence[tuple[str, float]]
Key = Term | QueryQuestion
Query = Batch | QueryQuestion
Answers = Mapping[Key, Found | Failure]
Sample = tuple[Mapping[str, str], float]


class RatioTerms(Struct, frozen=True, gc=False):
    bad: Term
    total: Term
    freshness: Term


class QuantileTerms(Struct, frozen=True, gc=False):
    buckets: Term
    freshness: Term


Terms = RatioTerms | QuantileTerms | QueryQuestion


class Plan(Struct, frozen=True):
    """What to ask. `refused` are the questions that cannot be asked, each with the reason."""

    batches: tuple[Batch, ...]
    raw: tuple[QueryQuestion, ...]
    terms: Mapping[Question, Terms]
    refused: Mapping[Question, str]

    @property
    def queries(self) -> tuple[Query, ...]:
        """The coalesced ones first: a slow raw query must not use up everybody's time."""
        return (*self.batches, *self.raw)


def plan(questions: Collection[Question], flags_per_query: int) -> Plan:
    """`flags_per_query` bounds the distinct values of the most varied label in one query."""
    asked: dict[Question, Terms] = {}
    refused: dict[Question, str] = {}
    for question in questions:
        try:
            asked[question] = terms(question)
        except Invalid as error:
            refused[question] = str(error)
    batches = [
        Batch(template, members)
        for template, everyone in _by_template(asked.values()).items()
        for members in _split(everyone, flags_per_query)
    ]
    raw = tuple(question for question in asked if isinstance(question, QueryQuestion))
    return Plan(tuple(batches), raw, asked, refused)


def queries_per_tick(questions: Collection[Question], flags_per_query: int) -> int:
    """What one measurement costs the source: templates × ⌈values of the most varied label / limit⌉ + raw queries.

    A ratio has the templates bad, total and freshness of the total, a quantile those of its buckets and
    freshness; templates are counted once, however many questions share them.
    """
    asked = [terms(question) for question in questions]
    raw = {question for question in asked if isinstance(question, QueryQuestion)}
    coalesced = (
        -(-max((len(set(column)) for column in zip(*members, strict=True)), default=1) // flags_per_query)
        for members in _by_template(asked).values()
    )
    return sum(coalesced) + len(raw)


@lru_cache(maxsize=QUESTIONS_KEPT)
def terms(question: Question) -> Terms:
    """Raises Invalid when the question cannot be asked."""
    if isinstance(question, QueryQuestion):
        return question
    if isinstance(question, RatioQuestion):
        total = selectors.parse(question.total)
        return RatioTerms(
            bad=_term("increase", selectors.parse(question.bad), question.window_seconds),
            total=_term("increase", total, question.window_seconds),
            freshness=_term("freshness", total, 0.0),
        )
    buckets = selectors.parse(question.histogram)
    if any(matcher.label == BUCKET_LABEL for matcher in buckets.matchers):
        raise Invalid(f'histogram selector {question.histogram!r} must not choose buckets by "{BUCKET_LABEL}"')
    newest = Selector(buckets.metric, (*buckets.matchers, ALL_BUCKETS))
    return QuantileTerms(
        buckets=_term("buckets", buckets, question.window_seconds), freshness=_term("freshness", newest, 0.0)
    )


def watched(question: Question) -> Selector | None:
    """The series whose newest sample a reading's age is; None for a raw query. Raises Invalid as `terms` does."""
    needed = terms(question)
    if isinstance(needed, QueryQuestion):
        return None
    template, values = needed.freshness.template, needed.freshness.values
    equal = [Matcher(label, "=", value) for label, value in zip(template.labels, values, strict=True)]
    return Selector(template.metric, tuple(sorted([*template.fixed, *equal])))


@lru_cache(maxsize=QUESTIONS_KEPT)
def console_query(question: Question) -> str:
    """The same question alone, as a person would ask it in the source's own console."""
    if isinstance(question, QueryQuestion):
        return question.query
    window = _duration(question.window_seconds)
    if isinstance(question, RatioQuestion):
        return f"sum(increase({question.bad}[{window}])) / sum(increase({question.total}[{window}]))"
    increases = f"sum by ({BUCKET_LABEL}) (increase({question.histogram}[{window}]))"
    return f"histogram_quantile({question.quantile}, {increases})"


def promql(batch: Batch) -> str:
    template = batch.template
    varying = _varying(batch)
    equalities = [
        Matcher(label, "=~", selectors.alternation(tuple(sorted({values[index] for values in batch.members}))))
        if index in varying
        else Matcher(label, "=", batch.members[0][index])
        for index, label in enumerate(template.labels)
    ]
    selector = selectors.render(Selector(template.metric, tuple(sorted([*template.fixed, *equalities]))))
    by = [selectors.label_text(template.labels[index]) for index in varying]
    if template.kind == "freshness":
        return f"time() - max{_by(by)}(timestamp({selector}))"
    if template.kind == "buckets":
        by = [BUCKET_LABEL, *by]
    return f"sum{_by(by)}(increase({selector}[{_duration(template.window_seconds)}]))"


def assign(batch: Batch, samples: Iterable[Sample]) -> dict[Key, Found | Failure]:
    """The samples of the batch's query by term; a term nothing answered has an empty list."""
    varying = _varying(batch)
    names = [batch.template.labels[index] for index in varying]
    found: dict[Values, list[tuple[str, float]]] = {
        tuple(values[index] for index in varying): [] for values in batch.members
    }
    for labels, value in samples:
        pairs = found.get(tuple([labels.get(name, "") for name in names]))
        if pairs is not None:
            pairs.append((labels.get(BUCKET_LABEL, "") if batch.template.kind == "buckets" else "", value))
    return {
        Term(batch.template, values): found[tuple(values[index] for index in varying)] for values in batch.members
    }


def keys(asked: Query) -> tuple[Key, ...]:
    """What one query is to answer."""
    if isinstance(asked, QueryQuestion):
        return (asked,)
    return tuple(Term(asked.template, values) for values in asked.members)


def readings(questions: Plan, answers: Answers) -> dict[Question, Reading]:
    """One Reading for every question planned. Nothing found stays None; nothing is filled in."""
    result = {question: _reading(question, needed, answers) for question, needed in questions.terms.items()}
    for question, reason in questions.refused.items():
        result[question] = Reading(query=console_query(question), failure=reason)
    return result


def _reading(question: Question, needed: Terms, answers: Answers) -> Reading:
    query = console_query(question)
    found: list[Found] = []
    for key in _needed(needed):
        answer = answers[key]
        if isinstance(answer, Failure):
            return Reading(query=query, failure=answer.text)
        found.append(answer)
    if isinstance(question, QueryQuestion):
        return Reading(query=query, value=_only(found[0]), series=len(found[0]))
    series = max(1, *(_repeats(pairs) for pairs in found))
    if isinstance(question, RatioQuestion):
        bad, total, age = map(_only, found)
        return Reading(query=query, bad=bad, total=total, age_seconds=age, series=series)
    buckets = [(bound, count) for le, count in found[0] if (bound := histogram.bound(le)) is not None]
    return Reading(
        query=query,
        value=histogram.quantile(question.quantile, buckets) if buckets else None,
        total=histogram.total(buckets),
        age_seconds=_only(found[1]),
        series=series,
    )


def _needed(needed: Terms) -> tuple[Key, ...]:
    if isinstance(needed, QueryQuestion):
        return (needed,)
    if isinstance(needed, RatioTerms):
        return (needed.bad, needed.total, needed.freshness)
    return (needed.buckets, needed.freshness)


def _only(found: Found) -> float | None:
    return found[0][1] if len(found) == 1 else None


def _repeats(found: Found) -> int:
    """How often the most repeated bucket (or the one number) was answered."""
    counted: dict[str, int] = defaultdict(int)
    for le, _ in found:
        counted[le] += 1
    return max(counted.values(), default=0)


def _term(kind: Kind, selector: Selector, window_seconds: float) -> Term:
    """A label with two equality matchers can match only one way; both stay fixed then."""
    equal: dict[str, str] = {}
    fixed = []
    repeated = {found.label for found in selector.matchers if found.operator == "="}
    for label in sorted(repeated):
        matchers = [found for found in selector.matchers if found.label == label and found.operator == "="]
        if len(matchers) == 1:
            equal[label] = matchers[0].value
        else:
            fixed += matchers
    fixed += [found for found in selector.matchers if found.operator != "="]
    template = Template(kind, selector.metric, tuple(sorted(fixed)), tuple(equal), window_seconds)
    return Term(template, tuple(equal.values()))


def _by_template(asked: Iterable[Terms]) -> dict[Template, list[Values]]:
    members: dict[Template, dict[Values, None]] = defaultdict(dict)
    for needed in asked:
        for key in _needed(needed):
            if isinstance(key, Term):
                members[key.template][key.values] = None
    return {template: list(values) for template, values in members.items()}


def _split(members: Sequence[Values], limit: int) -> Iterable[tuple[Values, ...]]:
    """Chunks with at most `limit` distinct values in the column that has most of them."""
    columns = [sorted(set(column)) for column in zip(*members, strict=True)]
    if not columns or max(map(len, columns)) <= limit:
        yield tuple(members)
        return
    widest = max(range(len(columns)), key=lambda index: len(columns[index]))
    chunk_of = {value: position // limit for position, value in enumerate(columns[widest])}
    chunks: dict[int, list[Values]] = defaultdict(list)
    for values in members:
        chunks[chunk_of[values[widest]]].append(values)
    yield from (tuple(chunks[number]) for number in sorted(chunks))


def _varying(batch: Batch) -> tuple[int, ...]:
    first = batch.members[0]
    return tuple(
        index for index in range(len(first)) if any(values[index] != first[index] for values in batch.members)
    )


def _by(labels: Sequence[str]) -> str:
    return f" by ({', '.join(labels)}) " if labels else ""


def _duration(seconds: float) -> str:
    milliseconds = round(seconds * 1000)
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms"
