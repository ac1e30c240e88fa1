"""Measurements from any API that answers queries with JSON: Datadog, New Relic, CloudWatch, or one of your own.

The policy holds the queries, in that system's own language; the settings say how one is asked, and where its
number, its newest point's time and its errors stand. Each number is one request: nothing is known here that would
let several be asked together.
"""

import asyncio
import math
import re
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from email.utils import parsedate_to_datetime

import aiohttp
import msgspec
import yarl
from msgspec import Struct
from multidict import CIMultiDict

from controller.domain.evidence import (
    Examination,
    Examined,
    QuantileQuestion,
    QueryQuestion,
    Question,
    RatioQuestion,
    Reading,
)
from controller.errors import Invalid, SettingsError, SourceUnavailable
from controller.settings import HttpJsonSourceSettings, JsonAskSettings, secret_file
from controller.sources import addresses, aws_signature, inquiry, json_answer, json_request
from controller.sources.aws_signature import Credentials
from controller.sources.host import Host
from controller.sources.inquiry import Complaints
from controller.sources.json_answer import Found, Path, Paths
from controller.sources.json_request import IN_QUERIES, IN_REQUESTS, Ask, Json, Kind

MAX_BODY_BYTES = 4 * 1024 * 1024
# Larger answers are read in the worker, so that the event loop stays free.
SMALL_BODY_BYTES = 16 * 1024
HTTP_OK = 200
ASKED_TOO_OFTEN, AWAY = 429, 503
CLOSED = frozenset({301, 302, 303, 307, 308, 401, 403, 407})
AWAY_FROM = 500
USUAL_PAUSE_SECONDS = 15.0
LONGEST_PAUSE_SECONDS = 900.0
# Beyond it a number of a rate limit's header is a date, not a duration.
LEAST_DATE_SECONDS = 1e9
# Headers whose values are no secrets: hiding them would make holes in every log line.
PLAIN_HEADERS = frozenset({"accept", "content-type", "user-agent", "x-amz-target"})
TELLING_PARAMETER = re.compile(r"key|token|secret|pass|auth|sig", re.IGNORECASE)
# What is judged by most comes first: a slow raw query must not use up everybody's time.
ORDER: Mapping[Kind, int] = {"counter": 0, "sample": 1, "quantile": 2, "raw": 3}
PROBE_SECONDS = 300.0
NO_QUANTILE = "its settings do not say how it is asked for a quantile; add a section [sources.{name}.quantile]"
NO_TIME = (
    "its settings do not say where an answer tells the time of its newest point, so nobody knows how old it is"
)


class Failure(Struct, frozen=True):
    """Why there is no answer, for a person to read."""

    text: str


class Shape(Struct, frozen=True, kw_only=True):
    """How one kind of question is asked, and how its answers are read."""

    url: yarl.URL
    query: str
    params: Mapping[str, str]
    body: Json
    paths: Paths


class Access(Struct, frozen=True, kw_only=True):
    """What lets one batch in, read from its files; and the texts that must never be shown."""

    headers: Mapping[str, str]
    params: Mapping[str, str]
    keys: Credentials | None
    secrets: tuple[str, ...]


class Request(Struct, frozen=True):
    method: str
    url: yarl.URL
    headers: Mapping[str, str]
    body: bytes


class HttpJsonSource:
    def __init__(self, name: str, settings: HttpJsonSourceSettings, host: Host) -> None:
        self._name = name
        self._settings = settings
        self._clock = host.clock
        self._address = addresses.parse(settings.url, f"sources.{name}.url")
        self._shapes = _shapes(name, settings)
        self._permits = asyncio.Semaphore(settings.max_concurrency)
        # One thread: several would take turns with each other instead of with the event loop.
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"http-json-{name}")
        self._session: aiohttp.ClientSession | None = None
        self._complaints = Complaints(name)
        self._silent_until, self._why_silent = -math.inf, ""

    def start(self) -> None:
        """Nothing runs between measurements."""

    async def close(self) -> None:
        if self._session:
            await self._session.close()
            self._session = None
        self._worker.shutdown(wait=False)

    async def measure(self, questions: Collection[Question]) -> Mapping[Question, Reading]:
        """All answers within `timeout_seconds`; what has none by then fails alone."""
        if not questions:
            return {}
        needed = dict.fromkeys(ask for question in questions for ask in asks_of(question))
        asks = sorted(needed, key=lambda ask: ORDER[ask.kind])
        answers = dict(zip(asks, await self._answers(asks), strict=True))
        self._complaints.are({one.text for one in answers.values() if isinstance(one, Failure)})
        return {question: _reading(question, answers) for question in questions}

    async def problems(self) -> Sequence[str]:
        """What keeps it from answering now. Without a `probe`: whether somebody is there and lets us in."""
        try:
            access = await asyncio.to_thread(self._access)
        except SettingsError as error:
            return [str(error)]
        if not self._settings.probe:
            return await self._closed_doors(access)
        probe = Ask(kind="raw", text=self._settings.probe, window_seconds=PROBE_SECONDS)
        answer = await self._answer(probe, *self._now(), access)
        return [answer.text] if isinstance(answer, Failure) else []

    async def _closed_doors(self, access: Access) -> Sequence[str]:
        """A request without a question will be refused as such, which is an answer."""
        seconds = self._settings.timeout_seconds
        try:
            with inquiry.told_in_words(seconds):
                async with (
                    asyncio.timeout(seconds),
                    self._http().get(self._address.url, headers=access.headers, allow_redirects=False) as response,
                ):
                    body = await inquiry.content(response, most_bytes=MAX_BODY_BYTES)
        except SourceUnavailable as error:
            return [str(error)]
        if response.status not in CLOSED and response.status < AWAY_FROM:
            return []
        reason = json_answer.refusal(response.status, response.content_type, body, None)
        return [inquiry.shown(reason, access.secrets)]

    async def examine(self, questions: Collection[Question]) -> Examined:
        """Such an API tells numbers; of the series behind them nothing is known."""
        return Examined(found=dict.fromkeys(questions, Examination()))

    def _now(self) -> tuple[float, float]:
        """The moment that is asked about (Unix seconds), and the loop's time until which answers count."""
        deadline = asyncio.get_running_loop().time() + self._settings.timeout_seconds
        return self._clock.now().timestamp(), deadline

    async def _answers(self, asks: Sequence[Ask]) -> Sequence[Found | Failure]:
        try:
            access = await asyncio.to_thread(self._access)
        except SettingsError as error:
            return [Failure(f"{self._name}: {error}")] * len(asks)
        now = self._now()
        return await asyncio.gather(*(self._answer(ask, *now, access) for ask in asks))

    async def _answer(self, ask: Ask, at: float, deadline: float, access: Access) -> Found | Failure:
        """A fault is an answer, too: of this number only."""
        try:
            shape = self._shape(ask)
            body, now = await self._fetch(shape, ask, at, deadline, access)

            def read() -> Found:
                return json_answer.found(body, shape.paths, now=now, countable=ask.kind in ("counter", "sample"))

            if len(body) <= SMALL_BODY_BYTES:
                return read()
            return await asyncio.get_running_loop().run_in_executor(self._worker, read)
        except (Invalid, SettingsError, SourceUnavailable) as error:
            reason = inquiry.shown(str(error), access.secrets)
            return Failure(f"{self._name} at {self._address.url.origin()}: {reason}")

    def _shape(self, ask: Ask) -> Shape:
        """Raises SettingsError when such a question cannot be asked here."""
        shape = self._shapes.get(ask.kind)
        if shape is None:
            raise SettingsError(NO_QUANTILE.format(name=self._name))
        if ask.kind in ("counter", "sample") and shape.paths.time is None:
            raise SettingsError(f'{NO_TIME}; write sources.{self._name}.time = "…"')
        return shape

    async def _fetch(
        self, shape: Shape, ask: Ask, at: float, deadline: float, access: Access
    ) -> tuple[bytes, float]:
        """The answer, and the later of both clocks. Raises SourceUnavailable, with text that holds no secret."""
        with inquiry.told_in_words(self._settings.timeout_seconds):
            async with asyncio.timeout_at(deadline), self._permits:
                self._refuse_while_silent()
                request = self._request(shape, ask, at, access)
                # A redirect would carry the headers, secrets among them, to wherever it points.
                async with self._http().request(
                    request.method,
                    request.url,
                    headers=request.headers,
                    data=request.body or None,
                    allow_redirects=False,
                ) as response:
                    body = await inquiry.content(response, most_bytes=MAX_BODY_BYTES)
        if response.status != HTTP_OK:
            self._fall_silent(response)
            raise SourceUnavailable(
                json_answer.refusal(response.status, response.content_type, body, shape.paths.error)
            )
        # With our clock behind, we ask about the past, and would find it fresh.
        return body, max(at, inquiry.clock_of(response) or at)

    def _request(self, shape: Shape, ask: Ask, at: float, access: Access) -> Request:
        """Raises Invalid when the policy's text does not fit what the settings ask."""
        moments = json_request.moments(at - self._settings.delay_seconds, ask.window_seconds)
        values = json_request.request_values(json_request.query_of(shape.query, ask, moments), ask, moments)
        params = {name: json_request.filled(text, values) for name, text in shape.params.items()}
        url = shape.url.extend_query({**params, **access.params})
        body = b"" if shape.body is None else msgspec.json.encode(json_request.filled_json(shape.body, values))
        method = "POST" if body else "GET"
        headers = CIMultiDict(
            {"Accept": "application/json", **({"Content-Type": "application/json"} if body else {})}
        )
        headers.update(access.headers)
        if self._settings.aws is None or access.keys is None:
            return Request(method, url, headers, body)
        signed = aws_signature.signed(
            method,
            url,
            headers,
            body,
            keys=access.keys,
            region=self._settings.aws.region,
            service=self._settings.aws.service,
            now=self._clock.now(),
        )
        return Request(method, url, signed, body)

    def _refuse_while_silent(self) -> None:
        if self._clock.monotonic() < self._silent_until:
            raise SourceUnavailable(self._why_silent)

    def _fall_silent(self, response: aiohttp.ClientResponse) -> None:
        """Whoever wants to be left alone is, for as long as it says: each tick would make it worse."""
        if response.status == ASKED_TOO_OFTEN or (response.status == AWAY and "Retry-After" in response.headers):
            now = self._clock.now()
            seconds = _pause(response.headers, now.timestamp())
            self._silent_until = self._clock.monotonic() + seconds
            again = f"{now + timedelta(seconds=math.ceil(seconds)):%H:%M:%S} UTC"
            self._why_silent = (
                f"it wants to be left alone (HTTP {response.status}), and is not asked before {again}"
            )

    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
        return self._session

    def _access(self) -> Access:
        """Files are read for every batch, so that a rotated secret counts at once. Raises SettingsError."""
        settings = self._settings
        header, secrets = inquiry.authorization(
            self._address,
            username=settings.username,
            password_file=settings.password_file,
            bearer_token_file=settings.bearer_token_file,
        )
        headers = {name: secret_file(path) for name, path in settings.header_files.items()}
        params = {name: secret_file(path) for name, path in settings.param_files.items()}
        keys = aws_signature.credentials(settings.aws) if settings.aws else None
        secrets += [*headers.values(), *params.values(), *_written_secrets(settings, self._address.url)]
        secrets += [keys.secret_key, keys.session_token] if keys else []
        return Access(
            headers=settings.headers | header | headers, params=params, keys=keys, secrets=inquiry.hidden(secrets)
        )


# — what is asked —


def asks_of(question: Question) -> tuple[Ask, ...]:
    """Everything that one reading takes: of a ratio bad and total, of a quantile itself and its sample."""
    match question:
        case RatioQuestion(bad=bad, total=total, window_seconds=window):
            return (
                Ask(kind="counter", text=bad, window_seconds=window),
                Ask(kind="counter", text=total, window_seconds=window),
            )
        case QuantileQuestion(histogram=text, quantile=quantile, window_seconds=window):
            return (
                Ask(kind="quantile", text=text, window_seconds=window, quantile=quantile),
                Ask(kind="sample", text=text, window_seconds=window),
            )
        case QueryQuestion(query=text, window_seconds=window):
            return (Ask(kind="raw", text=text, window_seconds=window),)


def shown_query(question: Question) -> str:
    """The same question as the policy writes it: for a person to ask in that system's own console."""
    match question:
        case RatioQuestion(bad=bad, total=total):
            return f"{bad} / {total}"
        case QuantileQuestion(histogram=text, quantile=quantile):
            return f"p{quantile * 100:g} of {text}"
        case QueryQuestion(query=text):
            return text


def _reading(question: Question, answers: Mapping[Ask, Found | Failure]) -> Reading:
    query, found = shown_query(question), []
    for ask in asks_of(question):
        answer = answers[ask]
        if isinstance(answer, Failure):
            return Reading(query=query, failure=answer.text)
        found.append(answer)
    first, last = found[0], found[-1]
    results = max(one.results for one in found)
    match question:
        case RatioQuestion():
            return Reading(
                query=query, bad=first.value, total=last.value, age_seconds=last.age_seconds, series=results
            )
        case QuantileQuestion():
            return Reading(
                query=query, value=first.value, total=last.value, age_seconds=last.age_seconds, series=results
            )
        case QueryQuestion():
            return Reading(query=query, value=first.value, age_seconds=first.age_seconds, series=results)


# — what the settings say —


def _shapes(name: str, settings: HttpJsonSourceSettings) -> Mapping[Kind, Shape]:
    """Raises SettingsError for whatever could never be asked or understood."""
    counter = settings.counter
    own: dict[Kind, JsonAskSettings | None] = {
        "counter": counter,
        "sample": settings.sample or counter,
        "quantile": settings.quantile,
        "raw": settings.raw,
    }
    return {kind: _shape(f"sources.{name}", kind, settings, one) for kind, one in own.items() if one is not None}


def _shape(place: str, kind: Kind, settings: HttpJsonSourceSettings, own: JsonAskSettings) -> Shape:
    usual = _usual(settings, own)

    def path(key: str) -> Path | None:
        mine, text = f"{place}.{kind}.{key}", getattr(own, key)
        if not text:
            mine, text = f"{place}.{key}", getattr(usual, key)
        return json_answer.path(text, mine) if text else None

    value = path("value")
    if value is None:
        raise SettingsError(f'{place}.{kind}.value must say where an answer has it, as in value = "data.value"')
    params = own.params or usual.params
    for name, text in params.items():
        json_request.check_template(text, IN_REQUESTS, f"{place}.{kind}.params.{name}")
    return Shape(
        url=addresses.parse(own.url or settings.url, f"{place}.{kind}.url").url,
        query=json_request.check_template(own.query or "{{text}}", IN_QUERIES, f"{place}.{kind}.query"),
        params=params,
        body=json_request.body_template(own.body or usual.body, f"{place}.{kind}.body"),
        paths=Paths(
            results=path("results") or json_answer.WHOLE,
            value=value,
            # The age of a quantile is that of its sample.
            time=None if kind == "quantile" else path("time"),
            time_unit=settings.time_unit,
            error=path("error"),
        ),
    )


def _usual(settings: HttpJsonSourceSettings, own: JsonAskSettings) -> JsonAskSettings:
    """What a section leaves to the source. Another address answers in its own way, so it is left nothing."""
    if own.url:
        return JsonAskSettings()
    return JsonAskSettings(
        params=settings.params,
        body=settings.body,
        results=settings.results,
        value=settings.value,
        time=settings.time,
        error=settings.error,
    )


def _written_secrets(settings: HttpJsonSourceSettings, url: yarl.URL) -> list[str]:
    """What the settings themselves hold that may be secret: files are the better place."""
    headers = [text for name, text in settings.headers.items() if name.lower() not in PLAIN_HEADERS]
    own = [one.params for one in (settings.counter, settings.sample, settings.quantile, settings.raw) if one]
    written = [pair for params in (settings.params, *own) for pair in params.items()]
    return headers + [text for name, text in (*written, *url.query.items()) if TELLING_PARAMETER.search(name)]


def _pause(headers: Mapping[str, str], now: float) -> float:
    """Seconds for which nothing should be asked, by whatever the answer says of it. `now` in Unix seconds."""
    told = headers.get("Retry-After") or headers.get("X-RateLimit-Reset") or ""
    try:
        seconds = float(told)
    except ValueError:
        seconds = _until(told, now)
    if seconds > LEAST_DATE_SECONDS:
        seconds -= now
    if not math.isfinite(seconds) or seconds <= 0:
        seconds = USUAL_PAUSE_SECONDS
    return min(seconds, LONGEST_PAUSE_SECONDS)


def _until(date: str, now: float) -> float:
    try:
        return parsedate_to_datetime(date).timestamp() - now
    except ValueError:
        return 0.0
