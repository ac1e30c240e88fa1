"""The settings and policies of docs/http-json.md do what the page says, against what the vendors document."""

import re
import tomllib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from controller.domain.binding import Guardrail
from controller.domain.evidence import Question, Reading
from controller.domain.judge import settle
from controller.manifests.lint import lint
from controller.manifests.loader import load
from controller.rehearsal.running import rehearse
from controller.settings import Settings
from controller.sources.kinds import Source, build
from tests.manifests.surroundings import SURROUNDINGS
from tests.support.http_json_page import POLICIES, SETTINGS, guardrail, plan_text
from tests.support.json_api import JsonApi, Seen, json_api
from tests.support.sources import lent
from tests.support.vendors import INTERVAL_SECONDS, Datadog, NewRelic, Point

NOW = datetime(2026, 11, 21, 9, 0, 0, tzinfo=UTC)


class FixedClock:
    def now(self) -> datetime:
        return NOW

    def monotonic(self) -> float:
        return 100.0


@asynccontextmanager
async def page_source(
    name: str, answer: Callable[[Seen], web.Response], secrets: Mapping[str, str], folder: Path
) -> AsyncIterator[tuple[Source, JsonApi]]:
    """The source of the page, with its addresses and secret files exchanged and nothing else."""
    for file, secret in secrets.items():
        (folder / file).write_text(secret)
    async with json_api(answer) as api:
        api.now = lambda: NOW
        text = re.sub(r'"https?://[\w.-]+', f'"{api.url}', SETTINGS[name]).replace("/run/secrets", str(folder))
        settings = msgspec.convert(tomllib.loads(text), Settings)
        source = build(name, settings.sources[name], lent(FixedClock()))
        yield source, api
        await source.close()


async def measured(source: Source, asked: Sequence[Question]) -> list[Reading]:
    readings = await source.measure(asked)
    return [readings[question] for question in asked]


def test_every_source_of_the_page_has_its_policy_and_back() -> None:
    assert set(SETTINGS) == set(POLICIES) == {"reports", "datadog", "newrelic", "cloudwatch"}


@pytest.mark.parametrize("source", POLICIES)
def test_the_policies_apply_to_a_server_with_these_sources(source: str) -> None:
    surroundings = msgspec.structs.replace(SURROUNDINGS, sources=dict.fromkeys(POLICIES, "http_json"))
    files = [
        ("p.policy.yaml", POLICIES[source][1].encode()),
        ("checkout-v2.rollout.yaml", plan_text(source).encode()),
    ]
    assert lint(files, surroundings) == []


@pytest.mark.parametrize("source", POLICIES)
def test_the_policies_can_be_rehearsed(source: str) -> None:
    """`rampart test` needs no vendor: made-up numbers stand in for its answers."""
    name = POLICIES[source][0].metadata.name
    with_ = ", with: { service: checkout }" if POLICIES[source][0].spec.params else ""
    text = (
        "apiVersion: rampart/v1\nkind: RolloutTest\nmetadata: { name: vendor }\n"
        f"spec: {{ policy: {name}{with_}, tests: [{{ name: errors kill, control: {{ error_rate: 0.1% }}, "
        "rollout: { error_rate: 0.1% for 20m then 60% }, expect: [kill at 23m by errors-jump within 3m] }] }\n"
    )
    files = {"v.test.yaml": text, "p.policy.yaml": POLICIES[source][1]}
    (result,) = rehearse([one for file, text in files.items() for one in load(text.encode(), file).documents])
    assert [(finding.expected, finding.found) for finding in result.findings] == []


async def test_the_smallest_one_counts(tmp_path: Path) -> None:
    def answer(seen: Seen) -> web.Response:
        assert int(seen.params["to"]) - int(seen.params["from"]) == 300
        count = 9 if seen.params["q"].startswith("errors of checkout-v2 as on in production") else 900
        return web.json_response({"count": count, "newest": NOW.timestamp() - 20})

    async with page_source("reports", answer, {}, tmp_path) as (source, _):
        (reading,) = await measured(source, [guardrail("reports").question("error_rate", "on")])
    assert (reading.bad, reading.total, reading.age_seconds, reading.failure) == (9, 900, 20, None)


# — Datadog —

DATADOG_SECRETS = {"dd-api-key": "an-api-key", "dd-application-key": "an-application-key"}


def every_interval(value: float | None, *, until_ago: float = 20.0) -> list[Point]:
    """Points of the last ten minutes, as many as the window asks for and more."""
    first = NOW.timestamp() - 600
    return [
        Point(first + n * INTERVAL_SECONDS, value) for n in range(30) if 600 - n * INTERVAL_SECONDS >= until_ago
    ]


async def test_datadogs_points_are_added_up_over_the_window(tmp_path: Path) -> None:
    datadog, ask = Datadog(), guardrail("datadog")
    rate, latency = ask.question("error_rate", "on"), ask.question("latency_p95", "on")
    tags = "service:checkout,env:production,flag:checkout-v2,variation:on,cohort:share"
    datadog.points[f"sum:shop.requests{{{tags}}}.as_count()"] = [
        [*every_interval(40.0), Point(NOW.timestamp(), None)]
    ]
    datadog.points[f"sum:shop.requests{{{tags},code:5xx}}.as_count()"] = [every_interval(1.5)]
    datadog.points[f"count:shop.request.duration{{{tags}}}.as_count()"] = [every_interval(30.0, until_ago=60)]
    datadog.scalars[f"p95:shop.request.duration{{{tags}}}"] = [0.125]
    async with page_source("datadog", datadog.answer, DATADOG_SECRETS, tmp_path) as (source, api):
        errors, slow = await measured(source, [rate, latency])
        assert (errors.bad, errors.total, errors.age_seconds, errors.failure) == (15 * 1.5, 15 * 40, 20, None)
        assert (slow.value, slow.total, slow.age_seconds, slow.failure) == (0.125, 13 * 30, 60, None)
        assert len(api.seen) == 4


async def test_datadogs_silence_nulls_groups_and_errors_are_no_numbers(tmp_path: Path) -> None:
    datadog, ask = Datadog(), guardrail("datadog")
    asked = [ask.question("error_rate", "on"), ask.question("latency_p95", "on")]
    async with page_source("datadog", datadog.answer, DATADOG_SECRETS, tmp_path) as (source, api):
        nothing: Sequence[Sequence[Point]] = []
        for fill in (nothing, [every_interval(None)]):
            datadog.points = dict.fromkeys(_datadog_queries(ask), fill) if fill else {}
            datadog.scalars = {text: [None] for text in _datadog_queries(ask)} if fill else {}
            errors, slow = await measured(source, asked)
            assert (errors.bad, errors.total, errors.age_seconds, errors.failure) == (None, None, None, None)
            assert (slow.value, slow.total, slow.failure) == (None, None, None)
        datadog.points = {text: [every_interval(1), every_interval(2)] for text in _datadog_queries(ask)}
        datadog.scalars = {text: [0.1, 0.2] for text in _datadog_queries(ask)}
        assert [reading.series for reading in await measured(source, asked)] == [2, 2]
        # As documented for a query that fails with HTTP 200.
        api.handle = lambda seen: web.json_response({"status": "error", "error": "timed out", "series": []})
        errors, slow = await measured(source, asked)
        assert "an error: timed out" in (errors.failure or "")
        api.handle = datadog.answer
        datadog.keys = ("another", "another")
        assert "answered HTTP 403: Forbidden" in ((await measured(source, asked))[0].failure or "")
        assert "answered HTTP 403: Forbidden" in (await source.problems())[0]


def _datadog_queries(ask: Guardrail) -> list[str]:
    metrics = ask.metrics
    tags = "service:checkout,env:production,flag:checkout-v2,variation:on,cohort:share"
    assert metrics["latency_p95"].histogram
    names = (
        f"sum:shop.requests{{{tags}}}",
        f"sum:shop.requests{{{tags},code:5xx}}",
        f"count:shop.request.duration{{{tags}}}",
    )
    return [f"{name}.as_count()" for name in names] + [f"p95:shop.request.duration{{{tags}}}"]


# — New Relic —


def transactions(
    variation: str, count: int, *, failing: int = 0, newest_ago: float = 30.0
) -> list[dict[str, object]]:
    return [
        {
            "timestamp": int((NOW.timestamp() - newest_ago - index * 0.1) * 1000),
            "appName": "checkout", "env": "production", "flag": "checkout-v2", "variation": variation,
            "cohort": "share", "error": index < failing, "duration": (index + 1) / 1000,
        }
        for index in range(count)
    ]  # fmt: skip


async def test_new_relics_rows_count_events_and_tell_the_newest(tmp_path: Path) -> None:
    vendor, ask = NewRelic(), guardrail("newrelic")
    vendor.events["Transaction"] = [*transactions("on", 1000, failing=40), *transactions("off", 500)]
    asked = [ask.question(metric, side) for metric in ("error_rate", "latency_p95") for side in ("on", "off")]
    async with page_source("newrelic", vendor.answer, {"newrelic-user-key": vendor.key}, tmp_path) as (source, _):
        on, off, slow, fast = await measured(source, asked)
        assert (on.bad, on.total, on.age_seconds, on.failure) == (40, 1000, 30, None)
        assert (off.bad, off.total) == (None, 500)
        assert (slow.value, slow.total, slow.age_seconds) == (0.951, 1000, 30)
        assert (fast.value, fast.total) == (0.476, 500)
        assert await source.problems() == []


async def test_new_relics_silence_and_errors_are_no_numbers(tmp_path: Path) -> None:
    vendor, ask = NewRelic(), guardrail("newrelic")
    asked = [ask.question("error_rate", "on"), ask.question("latency_p95", "on")]
    async with page_source("newrelic", vendor.answer, {"newrelic-user-key": vendor.key}, tmp_path) as (source, _):
        for reading, shape in zip(await measured(source, asked), ("ratio", "quantile"), strict=True):
            assert reading.failure is None
            assert settle(reading, shape, min_sample=1, stale_after=180).problem == "no_data"  # type: ignore[arg-type]
        broken = msgspec.structs.replace(asked[0], total="FROM Transaction WHERE FACET")
        (reading,) = await measured(source, [msgspec.structs.replace(broken, bad="Transaction")])
        assert "an error: NRQL Syntax Error" in (reading.failure or "")
        vendor.events["Transaction"] = [*transactions("on", 10), *transactions("off", 10)]
        grouped = "FROM Transaction WHERE appName = 'checkout' FACET variation"
        (reading,) = await measured(source, [msgspec.structs.replace(asked[0], bad=grouped)])
        assert reading.series == 2
        vendor.key = "another"
        assert "answered HTTP 401: The API key" in ((await measured(source, asked))[0].failure or "")


# — CloudWatch; tests/peers/test_cloudwatch.py asks moto, which has no percentiles —

AWS_SECRETS = {"aws-access-key": "AKIDEXAMPLE", "aws-secret-key": "a-secret-key"}


def metric_data(statistics: Mapping[str, list[float]], **result: object) -> Callable[[Seen], web.Response]:
    """GetMetricData as documented; `statistics` are the points of each, from this minute back."""

    def answer(seen: Seen) -> web.Response:
        assert seen.headers["X-Amz-Target"] == "GraniteServiceVersion20100801.GetMetricData"
        assert seen.headers["Content-Type"] == "application/x-amz-json-1.0"
        assert seen.headers["Authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261121/")
        assert (seen.body["StartTime"], seen.body["EndTime"]) == (NOW.timestamp() - 600, NOW.timestamp())
        (query,) = seen.body["MetricDataQueries"]
        metric = query["MetricStat"]["Metric"]
        assert {one["Name"] for one in metric["Dimensions"]} == {"environment", "flag", "variation", "cohort"}
        values = statistics.get(f"{metric['MetricName']} {query['MetricStat']['Stat']}", [])
        period = query["MetricStat"]["Period"]
        times = [NOW.timestamp() - period * (index + 1) for index in range(len(values))]
        found = {"Id": "q", "Label": "", "Timestamps": times, "Values": values, "StatusCode": "Complete", **result}
        return web.json_response({"MetricDataResults": [found], "Messages": []})

    return answer


async def test_cloudwatchs_periods_are_added_up_and_the_worse_quantile_counts(tmp_path: Path) -> None:
    asked = [guardrail("cloudwatch").question(metric, "on") for metric in ("error_rate", "latency_p95")]
    known = {
        "Requests Sum": [40.0] * 10, "Errors Sum": [0.0] * 10, "Latency SampleCount": [39.0] * 10,
        "Latency p95": [0.25, 0.5],
    }  # fmt: skip
    async with page_source("cloudwatch", metric_data(known), AWS_SECRETS, tmp_path) as (source, _):
        errors, slow = await measured(source, asked)
    assert (errors.bad, errors.total, errors.age_seconds, errors.failure) == (0, 400, 60, None)
    assert (slow.value, slow.total, slow.age_seconds, slow.failure) == (0.5, 390, 60, None)


async def test_cloudwatchs_silence_and_what_is_not_complete_are_no_numbers(tmp_path: Path) -> None:
    asked = [guardrail("cloudwatch").question(metric, "on") for metric in ("error_rate", "latency_p95")]
    async with page_source("cloudwatch", metric_data({}), AWS_SECRETS, tmp_path) as (source, api):
        errors, slow = await measured(source, asked)
        assert (errors.bad, errors.total, errors.failure) == (None, None, None)
        assert (slow.value, slow.total, slow.failure) == (None, None, None)
        for status in ("PartialData", "InternalError", "Forbidden"):
            api.handle = metric_data({"Requests Sum": [40.0], "Errors Sum": [1.0]}, StatusCode=status)
            errors, _ = await measured(source, asked)
            assert f"an error: {status}" in (errors.failure or "")
            assert errors.total is None
