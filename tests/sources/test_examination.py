"""What a source shows of the series behind a question, for whoever checks an installation."""

from datetime import timedelta
from email.utils import format_datetime

import pytest
from aiohttp import web

from controller.domain.evidence import Examined, QuantileQuestion, QueryQuestion, Question, RatioQuestion
from controller.settings import PrometheusSourceSettings, ScrapeSourceSettings
from controller.sources.prometheus import PrometheusSource
from controller.sources.scrape import ScrapeSource
from tests.sources.test_prometheus_faults import NOW, FixedClock, Impostor, answer, api_error, impostor
from tests.support.prometheus import ExpositionServer
from tests.support.sources import lent

RATIO = RatioQuestion(bad='hits{flag="a",code=~"5.."}', total='hits{flag="a"}', window_seconds=60)
QUANTILE = QuantileQuestion(histogram='seconds_bucket{flag="a"}', quantile=0.9, window_seconds=60)
RAW = QueryQuestion(query="max(depth)")
TEXT = """\
hits{flag="a",code="200"} 7
hits{flag="a",code="500"} 2
hits{flag="b",code="200"} 9
seconds_bucket{flag="a",le="1"} 3
seconds_bucket{flag="a",le="+Inf"} 4
"""


async def test_a_scraped_source_shows_the_series_of_the_total_and_its_interval() -> None:
    with ExpositionServer(lambda: TEXT) as server:
        settings = ScrapeSourceSettings(targets=[server.address], every_seconds=7.0)
        source = ScrapeSource("shop", settings, lent(FixedClock()))
        assert (await source.examine([RATIO])).found[RATIO].series == ()
        await source.scrape()
        found = (await source.examine([RATIO, QUANTILE, RAW])).found
        await source.close()
    assert {(one.labels["code"], one.value) for one in found[RATIO].series} == {("200", 7.0), ("500", 2.0)}
    assert [(one.labels["le"], one.value) for one in found[QUANTILE].series] == [("+Inf", 4.0)]
    assert found[RATIO].interval_seconds == 7.0
    assert "cannot answer a raw query" in (found[RAW].failure or "")


# — Prometheus' API, answered by hand —


async def examine(server: Impostor, *questions: Question) -> Examined:
    source = PrometheusSource("prod", PrometheusSourceSettings(url=server.url), lent(FixedClock()))
    try:
        return await source.examine(questions)
    finally:
        await source.close()


def series(query: str) -> web.Response:
    """Two series, and samples of one of them: every 15 s, with one missed scrape."""
    if query.startswith("topk"):
        metrics = [{"__name__": "hits", "flag": "a", "code": code} for code in ("200", "500")]
        return answer("vector", [{"metric": one, "value": [NOW.timestamp(), "7"]} for one in metrics])
    times = [0, 15, 30, 60, 75]
    return answer("matrix", [{"metric": {}, "values": [[1000 + at, "1"] for at in times]}])


async def test_prometheus_shows_labels_and_the_usual_interval_of_one_series() -> None:
    async with impostor() as server:
        server.handle = series
        found = (await examine(server, RATIO)).found[RATIO]
        asked = [form["query"] for _, form in server.requests]
    assert [dict(one.labels) for one in found.series] == [
        {"flag": "a", "code": "200"}, {"flag": "a", "code": "500"},
    ]  # fmt: skip
    assert found.interval_seconds == 15.0
    assert sorted(asked) == ['hits{code="200",flag="a"}[900s]', 'topk(500, hits{flag="a"})', "vector(1)"]


async def test_what_prometheus_refuses_is_a_failure_of_that_question_alone() -> None:
    async with impostor() as server:
        server.handle = lambda query: (
            api_error(422, "execution", "too many") if "seconds" in query else series(query)
        )
        found = (await examine(server, RATIO, QUANTILE, RAW)).found
    assert found[RATIO].failure is None
    assert "too many" in (found[QUANTILE].failure or "")
    assert found[RAW].series == ()
    assert found[RAW].failure is None


@pytest.mark.parametrize("seconds", [0.0, 3600.0, -90.0])
async def test_the_clock_of_prometheus_is_read_from_its_answers(seconds: float) -> None:
    async def dated(_: str) -> web.Response:
        response = answer("vector", [])
        response.headers["Date"] = format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)
        return response

    async with impostor() as server:
        server.handle = dated
        ahead = (await examine(server)).clock_ahead_seconds
    assert ahead is not None
    assert abs(ahead - seconds) <= 0.5


async def test_a_prometheus_that_does_not_answer_has_no_clock() -> None:
    source = PrometheusSource("prod", PrometheusSourceSettings(url="http://127.0.0.1:9"), lent(FixedClock()))
    examined = await source.examine([RATIO])
    await source.close()
    assert examined.clock_ahead_seconds is None
    assert "cannot connect" in (examined.found[RATIO].failure or "")
