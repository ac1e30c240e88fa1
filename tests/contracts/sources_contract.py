"""What every metric source promises, asked of each kind over the same counters."""

import math
from abc import abstractmethod
from collections.abc import Iterable
from typing import NamedTuple, Protocol

import pytest

from controller.domain.evidence import QuantileQuestion, QueryQuestion, Question, RatioQuestion, Reading
from controller.ports import MetricSource

REQUESTS_PER_SECOND = 40.0
ERRORS_PER_SECOND = 2.0
RESET_EVERY_SECONDS = 2.3
BUCKET_SHARES = {"0.1": 0.5, "0.2": 0.8, "0.5": 0.95, "1": 1.0, "+Inf": 1.0}
# Names that a regular expression or a careless join would take for each other.
HOSTILE = ("a.b", "aXb", "a|b", "a", "b", "a+", "(a", "a,b", 'q"uote', "back\\slash", "é", "$flag", "[a]", "")


class Written(NamedTuple):
    """How the same things are selected from a kind of source; `LABELS` stands for a flag's and a variation's.

    `rate` is in the query that is shown for a ratio, where `REQUESTS` is the counter's name; one for a quantile
    begins with `quantile`. `raw` gives one more than the idle counter.
    """

    failed: str
    requests: str
    latency: str
    rate: str = "/ sum(increase(REQUESTS{"
    quantile: str = "histogram_quantile(0.9, sum by (le) (increase("
    raw: str = 'max(http_requests_total{flag="idle"}) + 1'

    def select(self, what: str, labels: str) -> str:
        return str(getattr(self, what)).replace("LABELS", labels)


EXPOSED = Written(
    'http_requests_total{LABELS,code=~"5.."}', "http_requests_total{LABELS}", "latency_seconds_bucket{LABELS}"
)


class World(Protocol):
    """A source that has watched the traffic for longer than the window. `answers_queries`: raw ones, too.

    Those that are scraped have watched `exposition`; the others the same rates and shares.
    """

    source: MetricSource
    written: Written
    window_seconds: float
    tolerance: float
    quantile_tolerance: float
    answers_queries: bool

    @abstractmethod
    async def kill_target(self) -> None:
        """The target dies, and the source has had time to see it."""


def exposition(elapsed: float) -> str:
    lines = ["# TYPE http_requests_total counter"]
    for variation, errors in (("on", ERRORS_PER_SECOND), ("off", 0.0)):
        labels = f'flag="steady",variation="{variation}"'
        lines.append(
            f'http_requests_total{{{labels},code="200"}} {1000 + elapsed * (REQUESTS_PER_SECOND - errors)!r}'
        )
        if errors:
            lines.append(f'http_requests_total{{{labels},code="500"}} {1000 + elapsed * errors!r}')
    lines.append('http_requests_total{flag="idle",variation="on",code="200"} 7')
    since_reset = elapsed % RESET_EVERY_SECONDS
    lines.append(f'http_requests_total{{flag="resets",variation="on",code="200"}} {since_reset * 10!r}')
    for rank, name in enumerate(HOSTILE, start=1):
        lines.append(
            f'http_requests_total{{flag="{escaped(name)}",variation="odd",code="200"}} {rank * elapsed!r}'
        )
    lines.append('http_requests_total{flag="broken",variation="on",code="200"} NaN')
    lines.append("# TYPE latency_seconds histogram")
    for le, share in BUCKET_SHARES.items():
        for flag, rate in (("steady", REQUESTS_PER_SECOND), ("idle", 0.0)):
            lines.append(f'latency_seconds_bucket{{flag="{flag}",le="{le}"}} {500 + share * elapsed * rate!r}')
    return "\n".join(lines) + "\n"


def escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def ratio(world: World, flag: str, variation: str = "on", extra: str = "") -> RatioQuestion:
    labels = f'flag="{escaped(flag)}",variation="{variation}"{extra}'
    return RatioQuestion(
        bad=world.written.select("failed", labels),
        total=world.written.select("requests", labels),
        window_seconds=world.window_seconds,
    )


def latency(world: World, flag: str, quantile: float = 0.9) -> QuantileQuestion:
    return QuantileQuestion(
        histogram=world.written.select("latency", f'flag="{flag}"'),
        quantile=quantile,
        window_seconds=world.window_seconds,
    )


async def ask(world: World, question: Question) -> Reading:
    return (await world.source.measure([question]))[question]


def is_silent(reading: Reading) -> bool:
    return reading.value is None and reading.total is None and reading.failure is None


class SourceContract:
    async def test_a_ratio_is_two_increases_over_the_window_and_a_fresh_age(self, world: World) -> None:
        reading = await ask(world, ratio(world, "steady"))
        assert reading.failure is None
        assert reading.total == pytest.approx(REQUESTS_PER_SECOND * world.window_seconds, rel=world.tolerance)
        assert reading.bad == pytest.approx(ERRORS_PER_SECOND * world.window_seconds, rel=world.tolerance)
        assert reading.age_seconds is not None
        assert 0 <= reading.age_seconds <= 5

    async def test_a_missing_error_series_stays_missing_beside_its_traffic(self, world: World) -> None:
        reading = await ask(world, ratio(world, "steady", "off"))
        assert reading.bad is None
        assert reading.total == pytest.approx(REQUESTS_PER_SECOND * world.window_seconds, rel=world.tolerance)

    async def test_an_unknown_flag_is_silence_not_zero(self, world: World) -> None:
        for question in (ratio(world, "nobody-knows-me"), latency(world, "nobody-knows-me")):
            reading = await ask(world, question)
            assert is_silent(reading)
            assert reading.bad is None
            assert reading.age_seconds is None

    async def test_a_quantile_comes_with_the_number_of_requests_behind_it(self, world: World) -> None:
        reading = await ask(world, latency(world, "steady", 0.9))
        assert reading.total == pytest.approx(REQUESTS_PER_SECOND * world.window_seconds, rel=world.tolerance)
        assert reading.value == pytest.approx(0.2 + 0.3 * (0.90 - 0.80) / 0.15, rel=world.quantile_tolerance)
        assert reading.age_seconds is not None

    async def test_names_that_look_alike_are_never_confused(self, world: World) -> None:
        questions = [ratio(world, name, "odd") for name in HOSTILE]
        readings = await world.source.measure(questions)
        for rank, question in enumerate(questions, start=1):
            expected = rank * world.window_seconds
            # An empty label selects every series without one: here only its own.
            assert readings[question].total == pytest.approx(expected, rel=world.tolerance), question

    async def test_every_question_gets_its_own_answer_in_one_batch(self, world: World) -> None:
        questions: list[Question] = [
            ratio(world, "steady"),
            ratio(world, "steady", "off"),
            ratio(world, "nobody-knows-me"),
            latency(world, "steady"),
            latency(world, "steady", 0.5),
            ratio(world, "steady", extra="}, this is no selector{"),
            QueryQuestion(query="sum("),
        ]
        readings = await world.source.measure([*questions, *questions])
        assert set(readings) == set(questions)
        sane, broken = questions[:5], questions[5:]
        assert failures(readings[question] for question in sane) == [None] * 5
        assert all(failures(readings[question] for question in broken))
        assert readings[questions[4]].value == pytest.approx(0.1, rel=world.quantile_tolerance)

    async def test_a_raw_query_is_answered_or_refused_in_words(self, world: World) -> None:
        question = QueryQuestion(query=world.written.raw)
        reading = await ask(world, question)
        if world.answers_queries:
            assert reading.value == 8
            assert reading.failure is None
        else:
            assert reading.value is None
            assert "cannot answer a raw query" in (reading.failure or "")

    async def test_the_query_shown_asks_for_this_question_alone(self, world: World) -> None:
        readings = await world.source.measure([ratio(world, "steady"), latency(world, "steady")])
        texts = [reading.query for reading in readings.values()]
        rate = world.written.rate.replace("REQUESTS", world.written.requests.partition("{")[0])
        assert any(rate in text and "steady" in text for text in texts)
        assert any(text.startswith(world.written.quantile) for text in texts)

    async def test_nothing_asked_is_nothing_answered(self, world: World) -> None:
        assert not await world.source.measure([])

    async def test_a_dead_target_is_not_a_healthy_rate(self, world: World) -> None:
        await world.kill_target()
        for question in (ratio(world, "steady"), latency(world, "steady")):
            reading = await ask(world, question)
            assert reading.failure is None
            # The window still answers: only the age tells.
            assert reading.total is not None
            assert reading.age_seconds is None or reading.age_seconds > 5


class ExpositionContract(SourceContract):
    """Of those that read counters which somebody else keeps."""

    async def test_no_traffic_is_a_total_of_zero_and_a_quantile_that_is_not_a_number(self, world: World) -> None:
        assert (await ask(world, ratio(world, "idle"))).total == 0
        reading = await ask(world, latency(world, "idle"))
        assert reading.total == 0
        assert reading.value is not None
        assert math.isnan(reading.value)

    async def test_a_counter_that_starts_again_never_counts_backwards(self, world: World) -> None:
        reading = await ask(world, ratio(world, "resets"))
        assert reading.total is not None
        assert 0.5 * 10 * world.window_seconds < reading.total < 1.2 * 10 * world.window_seconds

    async def test_a_value_that_is_not_a_number_arrives_as_it_is(self, world: World) -> None:
        reading = await ask(world, ratio(world, "broken"))
        assert reading.total is not None
        assert math.isnan(reading.total)

    async def test_all_four_matchers_select_as_in_promql(self, world: World) -> None:
        whole = REQUESTS_PER_SECOND * world.window_seconds
        failed = ERRORS_PER_SECOND * world.window_seconds
        steady = 'flag="steady",variation="on"'
        for extra, expected in (
            ('code!="500"', whole - failed),
            ('code!~"5.."', whole - failed),
            ('code=~"5.."', failed),
            ('code=~"5"', None),
            ('code="500"', failed),
            ('code=~"(200|500)",absent=""', whole),
            ('absent=~".+"', None),
        ):
            selector = f"http_requests_total{{{steady},{extra}}}"
            question = RatioQuestion(bad=selector, total=selector, window_seconds=world.window_seconds)
            total = (await ask(world, question)).total
            assert total == (None if expected is None else pytest.approx(expected, rel=world.tolerance)), extra


def failures(readings: Iterable[Reading]) -> list[str | None]:
    return [reading.failure for reading in readings]
