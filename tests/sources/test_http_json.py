"""Whatever an API answers, and whatever settings it is asked by: numbers only where there is exactly one."""

import asyncio
import gzip
import json
import math
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import msgspec
import pytest
from aiohttp import web

from controller.domain.evidence import QuantileQuestion, QueryQuestion, Question, RatioQuestion, Reading
from controller.domain.judge import settle
from controller.errors import SettingsError
from controller.settings import HttpJsonSourceSettings
from controller.sources.http_json import HttpJsonSource
from tests.support.json_api import JsonApi, Seen, json_api
from tests.support.prometheus import free_port
from tests.support.sources import lent

NOW = datetime(2026, 3, 1, 12, 0, 0, 500_000, tzinfo=UTC)
RATIO = RatioQuestion(bad="errors of on", total="requests of on", window_seconds=300)
QUANTILE = QuantileQuestion(histogram="latency of on", quantile=0.999, window_seconds=60)
RAW = QueryQuestion(query="depth", window_seconds=120)
OTHER = QueryQuestion(query="another", window_seconds=120)


class HandClock:
    def __init__(self) -> None:
        self.elapsed = 0.0

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.elapsed)

    def monotonic(self) -> float:
        return 100.0 + self.elapsed


def point(value: object, *, age: float | None = 10.0, results: int = 1) -> web.Response:
    """The shape that `SETTINGS` read."""
    at = None if age is None else NOW.timestamp() - age
    return web.json_response({"results": [{"value": value, "at": at}] * results})


def text(
    body: str | bytes, status: int = 200, content_type: str = "application/json", **headers: str
) -> web.Response:
    return web.Response(body=body, status=status, content_type=content_type, headers=headers)


SETTINGS: dict[str, Any] = {
    "params": {"q": "{{query}}", "from": "{{from}}", "to": "{{to}}"},
    "results": "results",
    "value": "value",
    "time": "at",
    "error": "problem",
    "quantile": {"query": "p{{percent}}({{text}})"},
}


@pytest.fixture
async def api() -> AsyncIterator[JsonApi]:
    async with json_api(lambda seen: point(7)) as served:
        served.now = lambda: NOW
        yield served


def source_of(url: str, clock: HandClock | None = None, **settings: Any) -> HttpJsonSource:
    decoded = msgspec.convert({"url": url, **SETTINGS, **settings}, HttpJsonSourceSettings)
    return HttpJsonSource("vendor", decoded, lent(clock or HandClock()))


async def measure(url: str, *questions: Question, **settings: Any) -> list[Reading]:
    source = source_of(url, **settings)
    try:
        readings = await source.measure(questions)
    finally:
        await source.close()
    return [readings[question] for question in questions]


# — how it is asked —


async def test_each_number_is_asked_for_with_the_policys_text_and_the_window(api: JsonApi) -> None:
    await measure(api.url + "/v1/query", RATIO, QUANTILE, RAW)
    until = int(NOW.timestamp())
    asked = {(seen.params["q"], until - int(seen.params["from"])) for seen in api.seen}
    assert asked == {
        ("errors of on", 300), ("requests of on", 300), ("p99.9(latency of on)", 60), ("latency of on", 60),
        ("depth", 120),
    }  # fmt: skip
    assert {(seen.method, seen.path, seen.params["to"]) for seen in api.seen} == {("GET", "/v1/query", str(until))}


async def test_what_several_questions_need_is_asked_once(api: JsonApi) -> None:
    other = RatioQuestion(bad="timeouts of on", total=RATIO.total, window_seconds=300)
    await measure(api.url, RATIO, other)
    assert sorted(seen.params["q"] for seen in api.seen) == ["errors of on", "requests of on", "timeouts of on"]


async def test_a_body_is_posted_with_numbers_as_numbers_and_texts_escaped(api: JsonApi) -> None:
    body = """{"query": "query($q: Nrql!) { nrql(query: $q) { results } }",
        "n": [{"from": "{{ from_ms }}"}, 7, null],
        "variables": {"q": "{{query}} SINCE {{from_iso}} UNTIL {{to_iso}}"}}"""
    nasty = QueryQuestion(query='a "quoted" \\ {{from}} text\n', window_seconds=60)
    await measure(api.url, nasty, params={}, body=body)
    (seen,) = api.seen
    assert seen.method == "POST"
    assert seen.headers["Content-Type"] == "application/json"
    assert seen.body["n"] == [{"from": (int(NOW.timestamp()) - 60) * 1000}, 7, None]
    assert seen.body["query"] == "query($q: Nrql!) { nrql(query: $q) { results } }"
    # What the policy's author wrote is text: it is never filled in again.
    assert seen.body["variables"]["q"] == f"{nasty.query} SINCE 2026-03-01T11:59:00Z UNTIL 2026-03-01T12:00:00Z"


async def test_a_kind_of_question_with_an_address_of_its_own_sends_only_its_own(api: JsonApi) -> None:
    quantile = {
        "url": api.url + "/v2/scalar",
        "query": "p{{percent}}:{{text}}",
        "body": '{"metric": "{{query}}", "q": "{{quantile}}"}',
        "results": "columns",
        "value": "values[0]",
    }
    api.handle = lambda seen: (
        point(7) if seen.path == "/v1" else web.json_response({"columns": [{"values": [0.25]}]})
    )
    (reading,) = await measure(api.url + "/v1", QUANTILE, quantile=quantile)
    assert (reading.value, reading.total, reading.age_seconds) == (0.25, 7, 10)
    (scalar,) = [seen for seen in api.seen if seen.path == "/v2/scalar"]
    assert (scalar.params, scalar.body) == ({}, {"metric": "p99.9:latency of on", "q": 0.999})


async def test_a_text_that_is_json_stands_as_json_in_the_body(api: JsonApi) -> None:
    metric = QueryQuestion(query='{"MetricName": "Requests"}', window_seconds=60)
    good, bad = await measure(api.url, metric, RAW, params={}, body='{"Metric": "{{query_json}}"}')
    assert api.seen[0].body == {"Metric": {"MetricName": "Requests"}}
    assert good.value == 7
    assert "the policy's text is no JSON" in (bad.failure or "")


async def test_the_window_ends_so_much_earlier_as_points_come_late(api: JsonApi) -> None:
    (reading,) = await measure(api.url, RATIO, delay_seconds=60)
    assert {int(seen.params["to"]) for seen in api.seen} == {int(NOW.timestamp()) - 60}
    assert reading.age_seconds == pytest.approx(10), "what comes late is old all the same"


async def test_nothing_asked_is_nothing_sent(api: JsonApi) -> None:
    source = source_of(api.url)
    assert not await source.measure([])
    assert api.seen == []


# — what is read —


async def test_a_ratio_is_two_counts_and_the_age_of_the_total(api: JsonApi) -> None:
    api.handle = lambda seen: point(3, age=1) if "errors" in seen.params["q"] else point(200.0, age=25)
    (reading,) = await measure(api.url, RATIO)
    assert reading == Reading(query="errors of on / requests of on", bad=3, total=200, age_seconds=25)


async def test_a_quantile_comes_with_its_sample_and_a_raw_query_with_its_age(api: JsonApi) -> None:
    api.handle = lambda seen: point(0.125) if seen.params["q"].startswith("p99.9") else point(5000, age=4)
    quantile, raw = await measure(api.url, QUANTILE, RAW)
    assert quantile == Reading(query="p99.9 of latency of on", value=0.125, total=5000, age_seconds=4)
    assert raw == Reading(query="depth", value=5000, age_seconds=4)


@pytest.mark.parametrize("empty", [lambda: web.json_response({"results": []}), lambda: point(None, age=None)])
async def test_no_result_and_null_are_silence(api: JsonApi, empty: Callable[[], web.Response]) -> None:
    api.handle = lambda seen: empty()
    ratio, quantile, raw = await measure(api.url, RATIO, QUANTILE, RAW)
    assert (ratio.bad, ratio.total, ratio.age_seconds, ratio.failure) == (None, None, None, None)
    assert (quantile.value, quantile.total, quantile.failure) == (None, None, None)
    assert (raw.value, raw.failure) == (None, None)


async def test_errors_that_are_missing_beside_traffic_stay_missing(api: JsonApi) -> None:
    api.handle = lambda seen: web.json_response({"results": []}) if "errors" in seen.params["q"] else point(9)
    (reading,) = await measure(api.url, RATIO)
    assert (reading.bad, reading.total) == (None, 9)


async def test_of_several_results_none_is_taken(api: JsonApi) -> None:
    api.handle = lambda seen: point(7, results=3)
    ratio, raw = await measure(api.url, RATIO, RAW)
    assert (ratio.bad, ratio.total, ratio.series) == (None, None, 3)
    assert (raw.value, raw.series) == (None, 3)
    assert settle(raw, "query", min_sample=0, stale_after=60).problem == "error"


@pytest.mark.parametrize("value", ["7", "NaN", [7], {"n": 7}, True, False])
async def test_what_is_no_number_is_told_and_never_made_into_one(api: JsonApi, value: object) -> None:
    api.handle = lambda seen: point(value)
    for reading in await measure(api.url, RATIO, QUANTILE, RAW):
        assert "sources.vendor.value gives" in (reading.failure or "")
        assert (reading.value, reading.bad, reading.total) == (None, None, None)


@pytest.mark.parametrize("told", ["nan", "inf", "-inf"])
async def test_what_is_not_finite_arrives_as_it_is_and_passes_nothing(api: JsonApi, told: str) -> None:
    api.handle = lambda seen: point(told)
    ratio, raw = await measure(
        api.url, RATIO, RAW, value="to_number(value)", counter={"value": "value == 'x' && `1`"}
    )
    assert raw.value is not None
    assert not math.isfinite(raw.value)
    assert settle(raw, "query", min_sample=0, stale_after=60).problem == "no_data"
    assert ratio.failure


async def test_a_count_below_zero_is_none(api: JsonApi) -> None:
    api.handle = lambda seen: point(-1)
    ratio, raw = await measure(api.url, RATIO, RAW)
    assert "a count is never less than 0" in (ratio.failure or "")
    assert raw.value == -1


async def test_numbers_as_text_count_when_the_settings_say_so(api: JsonApi) -> None:
    api.handle = lambda seen: point("12.5")
    (reading,) = await measure(api.url, RAW, value="to_number(value)")
    assert reading.value == 12.5


# — how old it is —


@pytest.mark.parametrize(
    ("unit", "told"),
    [
        ("seconds", NOW.timestamp() - 30),
        ("milliseconds", (NOW.timestamp() - 30) * 1000),
        ("rfc3339", "2026-03-01T11:59:30.5Z"),
        ("rfc3339", "2026-03-01T12:59:30.5+01:00"),
        ("rfc3339", "2026-03-01 11:59:30.5"),
    ],
)
async def test_the_newest_points_time_tells_the_age(api: JsonApi, unit: str, told: object) -> None:
    api.handle = lambda seen: web.json_response({"results": [{"value": 7, "at": told}]})
    (reading,) = await measure(api.url, RATIO, time_unit=unit)
    assert reading.age_seconds == pytest.approx(30, abs=0.01)


async def test_a_time_in_another_unit_is_told_and_never_fresh_for_ever(api: JsonApi) -> None:
    api.handle = lambda seen: web.json_response({"results": [{"value": 7, "at": NOW.timestamp() * 1000}]})
    (reading,) = await measure(api.url, RATIO)
    assert "is time_unit right (seconds)?" in (reading.failure or "")
    (reading,) = await measure(api.url, RATIO, time_unit="rfc3339")
    assert "gives no time as 2026-11-21T09:00:00Z" in (reading.failure or "")


async def test_a_point_a_little_ahead_is_as_fresh_as_can_be(api: JsonApi) -> None:
    api.handle = lambda seen: point(7, age=-59)
    (reading,) = await measure(api.url, RATIO)
    assert reading.age_seconds == 0
    api.handle = lambda seen: point(7, age=-61)
    (reading,) = await measure(api.url, RATIO)
    assert reading.failure


async def test_with_our_clock_behind_old_points_do_not_look_fresh(api: JsonApi) -> None:
    def an_hour_later(seen: Seen) -> web.Response:
        response = point(7)
        response.headers["Date"] = format_datetime(NOW + timedelta(hours=1), usegmt=True)
        return response

    api.handle = an_hour_later
    (reading,) = await measure(api.url, RATIO)
    assert reading.age_seconds == pytest.approx(3610, abs=1)


async def test_a_count_whose_age_nobody_could_tell_is_not_asked_for(api: JsonApi) -> None:
    ratio, raw = await measure(api.url, RATIO, RAW, time="")
    assert 'write sources.vendor.time = "…"' in (ratio.failure or "")
    assert (raw.value, raw.age_seconds) == (7, None)
    assert [seen.params["q"] for seen in api.seen] == ["depth"]


async def test_a_quantile_that_the_settings_do_not_know_is_refused_in_words(api: JsonApi) -> None:
    quantile, raw = await measure(api.url, QUANTILE, RAW, quantile=None)
    assert "[sources.vendor.quantile]" in (quantile.failure or "")
    assert raw.value == 7


# — what goes wrong —

DEEP = "[" * 100_000
FAULTS: dict[str, tuple[Callable[[], web.Response], str]] = {
    "html": (lambda: text("<html>Log in</html>", 200, "text/html"), "HTML: is a proxy"),
    "html 502": (lambda: text("<html>Bad</html>", 502, "text/html"), "HTTP 502 with text/html; is a proxy"),
    "half json": (lambda: text('{"results": [{"val'), "not complete JSON (cut off"),
    "empty": (lambda: text(""), "not complete JSON"),
    "not utf-8": (lambda: text(b'{"results": "\xff\xfe"}'), "not complete JSON"),
    "nan": (lambda: text('{"results": [{"value": NaN}]}'), "not complete JSON"),
    "deep": (lambda: text(DEEP), "not complete JSON"),
    "deep and closed": (lambda: text(DEEP + "]" * 100_000), "not "),
    "beyond": (lambda: text('{"results": [{"value": 1' + "0" * 400 + "}]}"), ""),
    "other json": (lambda: text('"fine"'), "nothing at sources.vendor.results (results)"),
    "no results": (lambda: text("{}"), "nothing at sources.vendor.results (results)"),
    "odd result": (lambda: text('{"results": [[1]]}'), ""),
    "error in 200": (lambda: text('{"problem": "no such metric", "results": []}'), "an error: no such metric"),
    "structured": (lambda: text('{"problem": [{"code": 7}]}'), 'an error: [{"code":7}]'),
    "400": (lambda: text('{"problem": "bad query"}', 400), "answered HTTP 400: bad query"),
    "403": (lambda: text('{"errors": ["Forbidden"]}', 403), "answered HTTP 403: Forbidden"),
    "graphql": (lambda: text('{"errors": [{"message": "denied"}]}', 401), "answered HTTP 401: denied"),
    "500": (lambda: text("{}", 500), "answered HTTP 500"),
    "204": (lambda: text("", 204), "answered HTTP 204"),
    "redirect": (lambda: text("", 302, Location="/login?key=hush-hush"), "answered HTTP 302"),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_is_told_and_stays_with_its_own_question(api: JsonApi, name: str) -> None:
    respond, complaint = FAULTS[name]
    api.handle = lambda seen: point(7) if seen.params["q"] == OTHER.query else respond()
    broken, ratio, sane = await measure(api.url, RAW, RATIO, OTHER)
    for reading in (broken, ratio):
        assert complaint in (reading.failure or ("" if not complaint else "passed"))
        assert (reading.value, reading.bad, reading.total) == (None, None, None)
        assert "hush-hush" not in (reading.failure or "")
    assert sane.value == 7


async def test_a_path_that_does_not_fit_the_answer_is_named(api: JsonApi) -> None:
    (reading,) = await measure(api.url, RAW, raw={"value": "sum(points[*][1])"})
    assert "sources.vendor.raw.value does not fit the answer" in (reading.failure or "")


async def test_nobody_listening_is_told() -> None:
    (reading,) = await measure(f"http://127.0.0.1:{free_port()}", RATIO)
    assert "vendor at http://127.0.0.1" in (reading.failure or "")
    assert "cannot connect" in (reading.failure or "")


async def test_a_slow_query_fails_at_the_deadline_and_the_others_are_answered(api: JsonApi) -> None:
    async def slow(seen: Seen) -> web.Response:
        if seen.params["q"] == RAW.query:
            await asyncio.sleep(5)
        return point(7)

    api.handle = slow
    began = time.monotonic()
    late, sane = await measure(api.url, RAW, RATIO, timeout_seconds=0.4)
    assert time.monotonic() - began < 2
    assert "no answer within 0.4 s" in (late.failure or "")
    assert sane.total == 7


async def test_no_more_are_asked_at_once_than_the_settings_allow(api: JsonApi) -> None:
    present = most = 0

    async def counted(seen: Seen) -> web.Response:
        nonlocal present, most
        present += 1
        most = max(most, present)
        await asyncio.sleep(0.01)
        present -= 1
        return point(7)

    api.handle = counted
    questions = [QueryQuestion(query=f"q{number}", window_seconds=60) for number in range(12)]
    assert [one.value for one in await measure(api.url, *questions, max_concurrency=3)] == [7] * 12
    assert most == 3


async def test_an_endless_body_is_refused_without_being_kept(api: JsonApi) -> None:
    bomb = gzip.compress(b" " * (20 * 1024**2), compresslevel=1)
    api.handle = lambda seen: web.Response(
        body=bomb, headers={"Content-Encoding": "gzip"}, content_type="application/json"
    )
    (reading,) = await measure(api.url, RAW)
    assert "larger than 4 MiB" in (reading.failure or "")


async def test_a_long_answer_is_read_as_a_short_one(api: JsonApi) -> None:
    points = [[index, 1] for index in range(20_000)]
    api.handle = lambda seen: web.json_response({"results": [{"points": points, "at": NOW.timestamp()}]})
    (reading,) = await measure(api.url, RATIO, value="sum(points[*][1])")
    assert reading.total == 20_000


# — asked too often —


@pytest.mark.parametrize(
    ("status", "headers", "silent_seconds"),
    [
        (429, {"Retry-After": "40"}, 40),
        (
            503,
            {"Retry-After": format_datetime(NOW.replace(microsecond=0) + timedelta(seconds=41), usegmt=True)},
            40.5,
        ),
        (429, {"X-RateLimit-Reset": "25"}, 25),
        (429, {"X-RateLimit-Reset": str(NOW.timestamp() + 33)}, 33),
        (429, {"X-RateLimit-Reset": str(NOW.timestamp() - 33)}, 15),
        (429, {"Retry-After": "soon"}, 15),
        (429, {"Retry-After": "nan"}, 15),
        (429, {"Retry-After": "86400"}, 900),
        (429, {}, 15),
    ],
)
async def test_whoever_was_asked_too_often_is_left_alone_for_as_long_as_it_says(
    api: JsonApi, status: int, headers: dict[str, str], silent_seconds: float
) -> None:
    api.handle = lambda seen: text('{"errors": ["Too many requests"]}', status, **headers)
    clock = HandClock()
    source = source_of(api.url, clock, max_concurrency=1)
    try:
        reading = (await source.measure([RATIO]))[RATIO]
        assert f"answered HTTP {status}: Too many requests" in (reading.failure or "")
        assert len(api.seen) == 1, "the rest of the batch is not sent either"
        api.handle = lambda seen: point(7)
        clock.elapsed = silent_seconds - 0.1
        reading = (await source.measure([RATIO]))[RATIO]
        assert f"left alone (HTTP {status}), and is not asked before 12:" in (reading.failure or "")
        assert len(api.seen) == 1
        clock.elapsed = silent_seconds
        assert (await source.measure([RATIO]))[RATIO].total == 7
    finally:
        await source.close()


async def test_a_server_that_is_only_away_is_asked_again_at_once(api: JsonApi) -> None:
    source = source_of(api.url)
    api.handle = lambda seen: text("", 503)
    assert "answered HTTP 503" in ((await source.measure([RATIO]))[RATIO].failure or "")
    api.handle = lambda seen: point(7)
    assert (await source.measure([RATIO]))[RATIO].total == 7
    await source.close()


# — secrets —


async def test_secrets_come_from_files_that_are_read_again_for_every_batch(api: JsonApi, tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("key", "app", "param")}
    for name, file in files.items():
        file.write_text(f"first-{name}\n")
    source = source_of(
        api.url,
        headers={"X-Org": "shop", "accept": "application/vnd.shop+json"},
        header_files={"DD-API-KEY": str(files["key"])},
        bearer_token_file=str(files["app"]),
        param_files={"sig": str(files["param"])},
    )
    await source.measure([RAW])
    files["key"].write_text("second-key")
    await source.measure([RAW])
    first = api.seen[0]
    assert [seen.headers["DD-API-KEY"] for seen in api.seen] == ["first-key", "second-key"]
    assert first.headers["Authorization"] == "Bearer first-app"
    assert (first.headers["X-Org"], first.params["sig"]) == ("shop", "first-param")
    assert first.headers["Accept"] == "application/vnd.shop+json"
    files["param"].unlink()
    assert "cannot read the secret file" in ((await source.measure([RAW]))[RAW].failure or "")
    assert "cannot read the secret file" in (await source.problems())[0]
    await source.close()


@pytest.mark.parametrize("padding", [0, 370, 380])
async def test_no_secret_is_shown_even_when_the_server_echoes_it(
    api: JsonApi, tmp_path: Path, capsys: pytest.CaptureFixture[str], padding: int
) -> None:
    for name in ("key", "param", "bearer"):
        (tmp_path / name).write_text(f"s3cret-{name}")

    def echo(seen: Seen) -> web.Response:
        sent = json.dumps([dict(seen.headers), seen.params])
        return text(json.dumps({"errors": ["." * padding + "denied " + sent]}), 403)

    api.handle = echo
    (reading,) = await measure(
        api.url.replace("http://", "http://ann:passw0rd@") + "?apikey=in-the-address",
        RAW,
        headers={"X-Key": "in-the-headers"},
        params={"q": "{{query}}", "token": "in-the-params"},
        header_files={"DD-API-KEY": str(tmp_path / "key")},
        param_files={"sig": str(tmp_path / "param")},
        **({"bearer_token_file": str(tmp_path / "bearer")} if padding else {}),
    )
    shown = (reading.failure or "") + capsys.readouterr().out
    assert "HTTP 403" in shown
    for secret in ("s3cret", "passw0rd", "in-the-", "YW5u"):
        assert secret not in shown


async def test_no_secret_is_shown_in_the_form_of_an_address_or_of_json(api: JsonApi, tmp_path: Path) -> None:
    (tmp_path / "param").write_text('s3cret/"pass" word+1')
    api.handle = lambda seen: text(
        json.dumps({"errors": [f"GET /?sig={quote(seen.params['sig'])} {quote_plus(seen.params['sig'])}", {}]}),
        403,
    )
    (reading,) = await measure(api.url, RAW, param_files={"sig": str(tmp_path / "param")})
    api.handle = lambda seen: web.json_response({"problem": {"sent": seen.params}})
    (structured,) = await measure(api.url, RAW, param_files={"sig": str(tmp_path / "param")})
    assert "HTTP 403: GET /?sig=" in (reading.failure or "")
    assert "answered with an error" in (structured.failure or "")
    assert "s3cret" not in f"{reading.failure} {structured.failure}"


async def test_no_redirect_takes_secrets_along(api: JsonApi) -> None:
    api.handle = lambda seen: point(7) if seen.path == "/elsewhere" else text("", 307, Location="/elsewhere")
    source = source_of(api.url, headers={"X-Key": "in-the-headers"})
    assert "answered HTTP 307" in ((await source.measure([RAW]))[RAW].failure or "")
    assert "answered HTTP 307" in (await source.problems())[0]
    assert {seen.path for seen in api.seen} == {"/"}
    await source.close()


# — settings —


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"url": "api.example"}, r"sources\.vendor\.url"),
        ({"value": "series[0"}, r"sources\.vendor\.value is no path"),
        ({"value": ""}, r"sources\.vendor\.counter\.value must say"),
        ({"quantile": {"url": "https://b.example"}}, r"sources\.vendor\.quantile\.value must say"),
        ({"params": {"q": "{{querry}}"}}, r"params\.q has \{\{querry\}\}, which is none of"),
        ({"body": '{"q": {{query}}}'}, r"body is no JSON.*names stand in quotes"),
        ({"body": '{"q": "{{text}}"}'}, r"body has \{\{text\}\}"),
        ({"quantile": {"query": "p95({{histogram}})"}}, r"sources\.vendor\.quantile\.query has \{\{histogram\}\}"),
        ({"counter": {"error": "errors[?"}}, r"sources\.vendor\.counter\.error is no path"),
        ({"raw": {"url": "ftp://x", "value": "n"}}, r"sources\.vendor\.raw\.url"),
    ],
)
def test_settings_that_could_never_work_are_refused_at_the_start(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        source_of(**{"url": "https://api.example", **settings})


async def test_a_probe_tells_whether_it_answers_at_all(api: JsonApi) -> None:
    source = source_of(api.url, probe="up")
    assert await source.problems() == []
    api.handle = lambda seen: text('{"errors": ["Forbidden"]}', 403)
    assert "answered HTTP 403: Forbidden" in (await source.problems())[0]
    assert {seen.params["q"] for seen in api.seen} == {"up"}
    await source.close()


async def test_without_a_probe_it_is_told_whether_somebody_is_there_and_lets_us_in(api: JsonApi) -> None:
    source = source_of(api.url)
    for status, complaint in (
        (200, ""),
        (400, ""),
        (405, ""),
        (302, "302"),
        (401, "401"),
        (403, "403"),
        (502, "502"),
    ):
        api.handle = lambda seen, status=status: text('{"errors": ["no query"]}', status)  # type: ignore[misc]
        problems = await source.problems()
        assert [complaint in problem for problem in problems] == ([True] if complaint else [])
    await source.close()
    nobody = source_of(f"http://127.0.0.1:{free_port()}")
    assert "cannot connect" in (await nobody.problems())[0]
    await nobody.close()


async def test_an_examination_knows_of_no_series(api: JsonApi) -> None:
    examined = await source_of(api.url).examine([RATIO, RAW])
    assert set(examined.found) == {RATIO, RAW}
    assert all(one.series == () and one.failure is None for one in examined.found.values())
    assert api.seen == []
