"""Whatever stands in Prometheus' place: its faults arrive as text in the readings they touch, and only there."""

import asyncio
import gzip
import json
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from controller.domain.evidence import QueryQuestion, Question, RatioQuestion, Reading
from controller.errors import SettingsError
from controller.settings import PrometheusSourceSettings
from controller.sources.prometheus import PrometheusSource
from tests.support.prometheus import free_port
from tests.support.sources import lent

NOW = datetime(2026, 3, 1, 12, 0, 0, 500_000, tzinfo=UTC)
ASKED = QueryQuestion(query="the_one")
OTHER = QueryQuestion(query="another")
RATIO = RatioQuestion(bad='hits{code="500"}', total="hits", window_seconds=60)

Handler = Callable[[str], Awaitable[web.StreamResponse] | web.StreamResponse]


class FixedClock:
    def now(self) -> datetime:
        return NOW

    def monotonic(self) -> float:
        return time.monotonic()


class Impostor:
    """Answers `the_one` and coalesced queries as it is told, and any other query with 7."""

    def __init__(self) -> None:
        self.handle: Handler = lambda query: vector(7)
        self.requests: list[tuple[dict[str, str], dict[str, str]]] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.requests.append((dict(request.headers), {"path": request.path, **form}))
        if form["query"] == OTHER.query:
            return vector(7)
        result = self.handle(form["query"])
        return await result if isinstance(result, Awaitable) else result


def vector(*values: float | str, at: datetime = NOW, **envelope: Any) -> web.Response:
    result = [
        {"metric": {"replica": str(rank)}, "value": [at.timestamp(), str(value)]}
        for rank, value in enumerate(values)
    ]
    return answer("vector", result, **envelope)


def answer(kind: str, result: Any, **envelope: Any) -> web.Response:
    return web.json_response({"status": "success", "data": {"resultType": kind, "result": result}, **envelope})


def text(body: str | bytes, status: int = 200, content_type: str = "application/json") -> web.Response:
    return web.Response(body=body, status=status, content_type=content_type)


def api_error(status: int, kind: str, message: str) -> web.Response:
    return text(json.dumps({"status": "error", "errorType": kind, "error": message}), status)


@asynccontextmanager
async def impostor() -> AsyncIterator[Impostor]:
    served = Impostor()
    app = web.Application(client_max_size=8 * 1024**2)
    app.router.add_post("/{path:.*}", served.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    served.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield served
    await runner.cleanup()


@pytest.fixture
async def server() -> AsyncIterator[Impostor]:
    async with impostor() as served:
        yield served


async def measure(url: str, *questions: Question, **settings: Any) -> list[Reading]:
    source = PrometheusSource("prod", PrometheusSourceSettings(url=url, **settings), lent(FixedClock()))
    try:
        readings = await source.measure(questions)
    finally:
        await source.close()
    return [readings[question] for question in questions]


BEGUN = '{"status":"success","data":{"resultType":"vector","result":['
LOG_IN = {"Location": "/login?key=hush-hush"}
FAULTS: dict[str, tuple[Callable[[], web.Response], str]] = {
    "html": (lambda: text("<html>Log in</html>", 200, "text/html"), "HTML: is a proxy"),
    "html 502": (lambda: text("<html>Bad gateway</html>", 502, "text/html"), "answered HTTP 502 with text/html"),
    "half json": (lambda: text(BEGUN + '{"met'), "not complete JSON"),
    "empty": (lambda: text(""), "not complete JSON"),
    "not utf-8": (lambda: text(b'{"status":"\xff\xfe"}'), "not complete JSON"),
    "deep": (lambda: text(BEGUN + "[" * 100_000), "not complete JSON"),
    "deep and closed": (lambda: text(BEGUN + "[" * 100_000 + "]" * 100_000 + "]}}"), "not "),
    "other json": (lambda: text("[1, 2]"), "not what the query API promises"),
    "no data": (lambda: text('{"status":"success"}'), "has no data"),
    "odd result": (lambda: answer("vector", [{"metric": {}, "value": 3}]), "not what the query API promises"),
    "garbled number": (lambda: vector("many"), "'many' where a number was expected"),
    "bad query": (lambda: api_error(400, "bad_data", "parse error: no end"), "bad_data: parse error"),
    "overload": (lambda: api_error(503, "timeout", "took too long"), "HTTP 503: timeout: took too long"),
    "401": (lambda: text("Unauthorized", 401, "text/plain"), "answered HTTP 401"),
    "redirect": (lambda: web.Response(status=302, headers=LOG_IN), "answered HTTP 302"),
    "error in 200": (lambda: api_error(200, "execution", "boom"), "execution: boom"),
    "warnings": (lambda: vector(1, warnings=["results truncated"]), "the source warns: results truncated"),
    "infos": (lambda: vector(1, infos=["metric might not be a counter"]), "might not be a counter"),
    "matrix": (lambda: answer("matrix", []), "gives a matrix"),
    "text": (lambda: answer("string", [1, "x"]), "gives a string"),
    "native": (lambda: answer("vector", [{"metric": {}, "histogram": [1, {}]}]), "native histograms"),
    "cached": (lambda: vector(1, at=NOW - timedelta(minutes=3)), "for another moment (-180 s)"),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_is_told_and_stays_with_its_own_question(server: Impostor, name: str) -> None:
    respond, complaint = FAULTS[name]
    server.handle = lambda query: respond()
    broken, sane = await measure(server.url, ASKED, OTHER)
    assert complaint in (broken.failure or "")
    assert broken.value is None
    assert "prod at http://127.0.0.1" in (broken.failure or "")
    assert "hush" not in (broken.failure or "")
    assert (sane.value, sane.failure) == (7, None)


@pytest.mark.parametrize("name", ["html", "half json", "overload", "warnings", "native", "cached"])
async def test_a_fault_of_a_coalesced_query_fails_its_questions(server: Impostor, name: str) -> None:
    respond, complaint = FAULTS[name]
    server.handle = lambda query: respond()
    broken, sane = await measure(server.url, RATIO, OTHER)
    assert complaint in (broken.failure or "")
    assert (broken.bad, broken.total, broken.age_seconds) == (None, None, None)
    assert sane.value == 7


async def test_nobody_listening_is_told() -> None:
    (reading,) = await measure(f"http://127.0.0.1:{free_port()}", ASKED)
    assert "cannot connect" in (reading.failure or "")
    (reading,) = await measure("http://no-such-host.invalid", ASKED)
    assert "cannot connect" in (reading.failure or "")


@pytest.mark.parametrize(("cut", "complaint"), [(True, "the connection broke"), (False, "no answer within 0.3 s")])
async def test_half_an_http_answer_is_told(cut: bool, complaint: str) -> None:
    async def half_an_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
        await writer.drain()
        if cut:
            writer.close()

    server = await asyncio.start_server(half_an_answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    (reading,) = await measure(f"http://127.0.0.1:{port}", ASKED, timeout_seconds=0.3)
    assert complaint in (reading.failure or "")
    server.close()


async def test_a_slow_query_fails_at_the_deadline_and_the_others_are_answered(server: Impostor) -> None:
    async def slow(query: str) -> web.StreamResponse:
        await asyncio.sleep(5)
        return vector(1)

    server.handle = slow
    began = time.monotonic()
    late, sane = await measure(server.url, ASKED, OTHER, timeout_seconds=0.3)
    assert time.monotonic() - began < 2
    assert "no answer within 0.3 s" in (late.failure or "")
    assert sane.value == 7


async def test_slow_raw_queries_never_take_the_turn_of_coalesced_ones(server: Impostor) -> None:
    async def slow_when_raw(query: str) -> web.StreamResponse:
        if query.startswith("raw"):
            await asyncio.sleep(5)
        return vector(1)

    server.handle = slow_when_raw
    raw = [QueryQuestion(query=f"raw{number}") for number in range(5)]
    *late, ratio = await measure(server.url, *raw, RATIO, timeout_seconds=0.5, max_concurrency=1)
    assert all(reading.failure for reading in late)
    assert ratio.failure is None


async def test_an_endless_body_is_refused_without_being_kept(server: Impostor) -> None:
    bomb = gzip.compress(b" " * (80 * 1024**2), compresslevel=1)
    server.handle = lambda query: web.Response(
        body=bomb, headers={"Content-Encoding": "gzip"}, content_type="application/json"
    )
    huge, sane = await measure(server.url, ASKED, OTHER)
    assert "larger than 64 MiB" in (huge.failure or "")
    assert sane.value == 7


@pytest.mark.parametrize(("text_value", "value"), [("+Inf", math.inf), ("-Inf", -math.inf), ("1e-3", 0.001)])
async def test_numbers_arrive_as_they_are(server: Impostor, text_value: str, value: float) -> None:
    server.handle = lambda query: vector(text_value)
    (reading,) = await measure(server.url, ASKED)
    assert reading.value == value


async def test_not_a_number_arrives_as_it_is(server: Impostor) -> None:
    server.handle = lambda query: vector("NaN")
    raw, ratio = await measure(server.url, ASKED, RATIO)
    assert raw.value is not None
    assert math.isnan(raw.value)
    assert ratio.total is not None
    assert math.isnan(ratio.total)


async def test_an_empty_answer_is_none_and_several_series_are_counted(server: Impostor) -> None:
    server.handle = lambda query: vector()
    empty, ratio = await measure(server.url, ASKED, RATIO)
    assert (empty.value, empty.failure) == (None, None)
    assert (ratio.bad, ratio.total, ratio.age_seconds, ratio.failure) == (None, None, None, None)
    server.handle = lambda query: vector(1, 2, 3)
    several, ratio = await measure(server.url, ASKED, RATIO)
    assert (several.value, several.series) == (None, 3)
    assert (ratio.total, ratio.series) == (None, 3)


async def test_a_scalar_answers_a_raw_query(server: Impostor) -> None:
    server.handle = lambda query: answer("scalar", [NOW.timestamp(), "3.5"])
    (reading,) = await measure(server.url, ASKED)
    assert reading.value == 3.5


async def test_all_queries_of_a_batch_are_about_the_same_moment_and_posted(server: Impostor) -> None:
    await measure(server.url + "/prefix/", RATIO, ASKED, OTHER)
    assert {form["time"] for _, form in server.requests} == {f"{NOW.timestamp():.3f}"}
    assert {form["path"] for _, form in server.requests} == {"/prefix/api/v1/query"}
    assert len(server.requests) == 5


async def test_with_our_clock_behind_old_samples_do_not_look_fresh(server: Impostor) -> None:
    def an_hour_later(query: str) -> web.Response:
        response = vector(2)
        response.headers["Date"] = format_datetime(NOW + timedelta(hours=1), usegmt=True)
        return response

    server.handle = an_hour_later
    (reading,) = await measure(server.url, RATIO)
    assert reading.age_seconds == pytest.approx(3602, abs=1)
    assert reading.total == 2


def test_an_address_that_is_none_is_refused_at_the_start() -> None:
    with pytest.raises(SettingsError, match=r"sources\.prod\.url"):
        PrometheusSource("prod", PrometheusSourceSettings(url="prometheus:9090"), lent(FixedClock()))


async def test_login_headers_are_sent_and_files_are_read_again(server: Impostor, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("first-secret\n")
    settings = PrometheusSourceSettings(
        url=server.url, headers={"X-Scope-OrgID": "shop"}, bearer_token_file=str(secret)
    )
    source = PrometheusSource("prod", settings, lent(FixedClock()))
    await source.measure([ASKED])
    secret.write_text("second-secret\n")
    await source.measure([ASKED])
    sent = [headers for headers, _ in server.requests]
    assert [headers["Authorization"] for headers in sent] == ["Bearer first-secret", "Bearer second-secret"]
    assert sent[0]["X-Scope-OrgID"] == "shop"
    secret.unlink()
    reading = (await source.measure([ASKED]))[ASKED]
    assert "cannot read the secret file" in (reading.failure or "")
    await source.close()


async def test_basic_auth_comes_from_settings_or_from_the_address(server: Impostor, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("hush-hush")
    await measure(server.url, ASKED, username="ann", password_file=str(password))
    await measure(server.url.replace("http://", "http://ann:hush-hush@"), ASKED)
    first, second = (headers["Authorization"] for headers, _ in server.requests)
    assert first == second == "Basic YW5uOmh1c2gtaHVzaA=="


@pytest.mark.parametrize("padding", [0, 370, 380])
async def test_no_secret_is_shown_even_when_the_server_echoes_it(
    server: Impostor, tmp_path: Path, capsys: pytest.CaptureFixture[str], padding: int
) -> None:
    token = tmp_path / "token"
    token.write_text("t0ken-of-the-realm")

    def echo(query: str) -> web.Response:
        headers, _ = server.requests[-1]
        return api_error(403, "forbidden", "." * padding + headers["Authorization"] + headers["X-Key"])

    server.handle = echo
    url = server.url.replace("http://", "http://ann:passw0rd@") + "?key=query-key"
    for settings in ({"bearer_token_file": str(token)}, {}):
        (reading,) = await measure(url, ASKED, headers={"X-Key": "header-key"}, **settings)
        shown = (reading.failure or "") + capsys.readouterr().out
        assert "forbidden" in shown
        for secret in ("t0ken", "passw0rd", "header-", "query-key", "YW5u"):
            assert secret not in shown
