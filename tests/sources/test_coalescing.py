"""Asking together gives what asking one by one would, and costs what the formula says.

The queries' own text is evaluated here by a small model of PromQL over synthetic series.
"""

import re
from collections import defaultdict
from typing import Any

import promql_parser
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.domain.evidence import QuantileQuestion, QueryQuestion, Question, RatioQuestion, Reading
from controller.sources import coalescing, histogram
from controller.sources.coalescing import Answers, Failure, Plan, Sample, promql, queries_per_tick

Series = tuple[dict[str, str], float]

VALUES = ["", "a", "b", "ab", "a|b", "a.b", "aXb", "a,b", 'q"', "back\\", "line\n", "(", "[a]", "$", "é"]
LABELS = ["flag", "variation", "service"]
LES = ["0.1", "0.5", "+Inf"]


# — the model: an increase is the series' value, a timestamp too, and now is 0 —


def evaluate(text: str, world: list[Series]) -> list[Sample]:
    tree = promql_parser.parse(text)
    if isinstance(tree, promql_parser.BinaryExpr):
        return [(labels, -value) for labels, value in aggregate(tree.rhs, max, world)]
    return aggregate(tree, sum, world)


def aggregate(tree: Any, combine: Any, world: list[Series]) -> list[Sample]:
    by = tree.modifier.labels if tree.modifier else []
    argument = tree.expr.args[0]
    selector = getattr(argument, "vector_selector", argument)
    groups: dict[tuple[tuple[str, str], ...], list[float]] = defaultdict(list)
    for labels, value in world:
        selected = all(matched(matcher, labels) for matcher in selector.matchers.matchers)
        if selected and labels["__name__"] == selector.name:
            groups[tuple((name, labels[name]) for name in by if labels.get(name))].append(value)
    return [(dict(group), combine(values)) for group, values in groups.items()]


def matched(matcher: Any, labels: dict[str, str]) -> bool:
    value = labels.get(matcher.name, "")
    operator = str(matcher.op)
    if operator in {"MatchOp.Equal", "MatchOp.NotEqual"}:
        return (value == matcher.value) is (operator == "MatchOp.Equal")
    return (re.fullmatch(matcher.value, value, re.DOTALL) is not None) is (operator == "MatchOp.Re")


def together(questions: list[Question], world: list[Series], limit: int) -> dict[Question, Reading]:
    planned = coalescing.plan(questions, limit)
    answers: Answers = {
        key: answer
        for batch in planned.batches
        for key, answer in coalescing.assign(batch, evaluate(promql(batch), world)).items()
    }
    return coalescing.readings(planned, answers)


def alone(question: Question, world: list[Series]) -> tuple[float | None, float | None, float | None]:
    """(bad, total, age) or (quantile, total, age) by PromQL without any coalescing."""

    def one(text: str) -> float | None:
        found = evaluate(text, world)
        return found[0][1] if found else None

    if isinstance(question, RatioQuestion):
        return (
            one(f"sum(increase({question.bad}[5m]))"),
            one(f"sum(increase({question.total}[5m]))"),
            one(f"time() - max(timestamp({question.total}))"),
        )
    assert isinstance(question, QuantileQuestion)
    buckets = [
        (float(labels["le"]), count)
        for labels, count in evaluate(f"sum by (le) (increase({question.histogram}[5m]))", world)
    ]
    newest = question.histogram[:-1] + ("" if question.histogram.endswith("{}") else ",") + 'le="+Inf"}'
    value = histogram.quantile(question.quantile, buckets) if buckets else None
    return value, histogram.total(buckets), one(f"time() - max(timestamp({newest}))")


# — what is drawn —


def selector_texts(metric: str) -> st.SearchStrategy[str]:
    exact = st.tuples(st.sampled_from(["=", "=", "=", "!="]), st.sampled_from(VALUES))
    pattern = st.tuples(st.sampled_from(["=~", "!~"]), st.sampled_from(["a.*", ".+", "a|b", ""]))
    matchers = st.dictionaries(st.sampled_from(LABELS), st.one_of(exact, exact, pattern))
    return matchers.map(lambda found: metric + "{" + ",".join(map(matcher_text, found.items())) + "}")


def matcher_text(found: tuple[str, tuple[str, str]]) -> str:
    label, (operator, value) = found
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'{label}{operator}"{escaped}"'


def worlds() -> st.SearchStrategy[list[Series]]:
    labels = st.fixed_dictionaries({label: st.sampled_from(VALUES) for label in LABELS})
    counters = st.dictionaries(
        labels.map(lambda found: tuple(found.items())), st.integers(1, 999).map(float), max_size=12
    )
    return st.tuples(counters, counters).map(lambda pair: [*plain(pair[0]), *bucketed(pair[1])])


def plain(counters: dict[tuple[tuple[str, str], ...], float]) -> list[Series]:
    return [
        ({"__name__": name, **dict(labels)}, value) for labels, value in counters.items() for name in ("x", "y")
    ]


def bucketed(counters: dict[tuple[tuple[str, str], ...], float]) -> list[Series]:
    return [
        ({"__name__": "h", **dict(labels), "le": le}, value * rank)
        for labels, value in counters.items()
        for rank, le in enumerate(LES, start=1)
    ]


RATIOS = st.builds(
    RatioQuestion, bad=selector_texts("x"), total=st.one_of(selector_texts("x"), selector_texts("y")),
    window_seconds=st.just(300.0),
)  # fmt: skip
QUANTILES = st.builds(
    QuantileQuestion,
    histogram=selector_texts("h"),
    quantile=st.sampled_from([0.5, 0.95]),
    window_seconds=st.just(300.0),
)
QUESTIONS = st.lists(st.one_of(RATIOS, QUANTILES), min_size=1, max_size=10)


@settings(deadline=None)
@given(questions=QUESTIONS, world=worlds(), limit=st.integers(1, 4))
def test_asking_together_is_asking_one_by_one(questions: list[Question], world: list[Series], limit: int) -> None:
    readings = together(questions, world, limit)
    assert set(readings) == set(questions)
    for question, reading in readings.items():
        first = reading.bad if isinstance(question, RatioQuestion) else reading.value
        assert (first, reading.total, reading.age_seconds) == pytest.approx(alone(question, world), nan_ok=True)
        assert (reading.failure, reading.series) == (None, 1)


def test_a_selector_for_series_without_a_label_gets_theirs() -> None:
    world: list[Series] = [({"__name__": "x"}, 5.0), ({"__name__": "x", "flag": "a"}, 7.0)]
    questions: list[Question] = [
        RatioQuestion(bad=f'x{{flag="{flag}"}}', total=f'x{{flag="{flag}"}}', window_seconds=300.0)
        for flag in ("", "a")
    ]
    readings = together(questions, world, 200)
    assert [readings[question].total for question in questions] == [5.0, 7.0]


@given(questions=QUESTIONS, limit=st.integers(1, 4), raw=st.lists(st.sampled_from(["up", "down"])))
def test_the_formula_states_the_number_of_queries(questions: list[Question], limit: int, raw: list[str]) -> None:
    asked = [*questions, *(QueryQuestion(query=text) for text in raw)]
    planned = coalescing.plan(asked, limit)
    assert len(planned.queries) == queries_per_tick(asked, limit)


def policy(flags: int, variations: int = 2, window_seconds: float = 300.0) -> list[Question]:
    asked: list[Question] = []
    for flag in range(flags):
        for variation in ("on", "off", "blue")[:variations]:
            labels = f'service="shop",flag="flag-{flag:04}",variation="{variation}"'
            asked += [
                RatioQuestion(
                    bad=f'hits{{{labels},code=~"5.."}}', total=f"hits{{{labels}}}", window_seconds=window_seconds
                ),
                QuantileQuestion(
                    histogram=f"took_bucket{{{labels}}}", quantile=0.95, window_seconds=window_seconds
                ),
            ]
    return asked


@pytest.mark.parametrize(("flags", "queries"), [(1, 5), (200, 5), (201, 10), (1000, 25)])
def test_a_policy_costs_five_queries_for_two_hundred_flags(flags: int, queries: int) -> None:
    assert queries_per_tick(policy(flags), 200) == queries == len(coalescing.plan(policy(flags), 200).batches)


def test_another_window_costs_its_increases_but_not_the_age_again() -> None:
    assert queries_per_tick([*policy(10), *policy(10, window_seconds=3600.0)], 200) == 3 * 2 + 2


def test_no_query_names_more_than_the_limit() -> None:
    for batch in coalescing.plan(policy(450), 200).batches:
        assert 0 < len({values[0] for values in batch.members}) <= 200


def test_shared_values_stay_equalities_and_varying_ones_become_labels() -> None:
    texts = {promql(batch) for batch in coalescing.plan(policy(2), 200).batches}
    both = 'flag=~"flag-0000|flag-0001",service="shop",variation=~"off|on"'
    assert f"sum by (flag, variation) (increase(hits{{{both}}}[5m]))" in texts
    assert f'sum by (flag, variation) (increase(hits{{code=~"5..",{both}}}[5m]))' in texts
    assert f"sum by (le, flag, variation) (increase(took_bucket{{{both}}}[5m]))" in texts
    assert f"time() - max by (flag, variation) (timestamp(hits{{{both}}}))" in texts
    assert len(texts) == 5


def test_two_quantiles_of_one_histogram_are_one_query() -> None:
    asked = [QuantileQuestion(histogram="h", quantile=q, window_seconds=60) for q in (0.5, 0.9, 0.99)]
    assert len(coalescing.plan(asked, 200).batches) == 2


def test_a_selector_that_cannot_be_asked_is_refused_alone() -> None:
    good, bad = policy(1)[0], RatioQuestion(bad="x", total="rate(x[5m])", window_seconds=60)
    chosen = QuantileQuestion(histogram='h{le="1"}', quantile=0.5, window_seconds=60)
    readings = together([good, bad, chosen], [], 200)
    assert readings[good].failure is None
    assert "is an expression" in (readings[bad].failure or "")
    assert 'must not choose buckets by "le"' in (readings[chosen].failure or "")


def test_the_failure_of_one_query_touches_only_its_questions() -> None:
    ratio, quantile = policy(1, variations=1)
    planned = coalescing.plan([ratio, quantile], 200)
    readings = coalescing.readings(planned, failing(planned, "buckets"))
    assert readings[ratio].failure is None
    assert readings[quantile].failure == "broken"


@pytest.mark.parametrize("kind", ["increase", "freshness"])
def test_a_question_with_any_part_missing_has_failed(kind: str) -> None:
    ratio = policy(1, variations=1)[0]
    planned = coalescing.plan([ratio], 200)
    assert coalescing.readings(planned, failing(planned, kind))[ratio].failure == "broken"


def failing(planned: Plan, kind: str) -> Answers:
    return {
        key: Failure("broken") if batch.template.kind == kind else [("+Inf", 1.0)]
        for batch in planned.batches
        for key in coalescing.keys(batch)
    }


def test_two_results_for_one_label_set_are_counted_not_chosen_from() -> None:
    ratio = RatioQuestion(bad="x", total="y", window_seconds=60)
    planned = coalescing.plan([ratio], 200)
    answers = {
        key: found
        for batch in planned.batches
        for key, found in coalescing.assign(batch, [({}, 1.0), ({"replica": "b"}, 2.0)]).items()
    }
    reading = coalescing.readings(planned, answers)[ratio]
    assert reading.series == 2
    assert reading.total is None


def test_the_query_shown_is_for_one_question() -> None:
    ratio, quantile = policy(1, variations=1)
    shown = coalescing.console_query(quantile)
    assert shown == (
        "histogram_quantile(0.95, sum by (le) (increase("
        'took_bucket{service="shop",flag="flag-0000",variation="on"}[5m])))'
    )
    assert coalescing.console_query(ratio).count("sum(increase(hits{") == 2
    assert "[1500ms]" in coalescing.console_query(RatioQuestion(bad="x", total="y", window_seconds=1.5))
    assert "[90s]" in coalescing.console_query(RatioQuestion(bad="x", total="y", window_seconds=90))


def test_no_questions_cost_nothing() -> None:
    assert queries_per_tick([], 200) == 0
    assert not coalescing.plan([], 200).queries
