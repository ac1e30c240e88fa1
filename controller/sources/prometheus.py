"""Measurements from Prometheus' HTTP API, coalesced: one evaluation time and one deadline for the whole batch."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from typing import TypeVar

import aiohttp
import structlog
from msgspec import Struct

from controller.domain.evidence import Examination, Examined, QueryQuestion, Question, Reading, Series
from controller.errors import Invalid, SettingsError, SourceUnavailable
from controller.ports import Clock
from controller.settings import PrometheusSourceSettings, secret_file
from controller.sources import addresses, coalescing, query_api, selectors
from controller.sources.coalescing import Answers, Failure, Found, Key, Plan, Query, Sample
from controller.sources.selectors import Matcher, Selector
from controller.telemetry import hide

MAX_BODY_BYTES = 64 * 1024 * 1024
CHUNK_BYTES = 256 * 1024
# Larger answers are decoded in the worker, so that the event loop stays free.
SMALL_BODY_BYTES = 16 * 1024
HTTP_OK = 200
SHOWN_CHARACTERS = 400
REASONS_LOGGED = 3
# Anything shorter is no secret, and hiding it would make holes in every sentence.
SHORTEST_SECRET = 4

# Of the series behind one question, when an installation is examined: those of the largest values.
SERIES_SHOWN = 500
EXAMINED_AT_ONCE = 4
# Long enough for several samples at the slowest usual scrape interval.
SPAN_SECONDS = 900.0

# Answers of one query.
PartialAnswers = dict[Key, Found | Failure]
T = TypeVar("T")

log = structlog.get_logger()


class Login(Struct, frozen=True):
    """Headers of one batch, and the texts that must never be shown."""

    headers: Mapping[str, str]
    secrets: tuple[str, ...]


class Body(Struct, frozen=True):
    """A complete answer. `ahead_seconds`: how far the server's clock had passed the evaluation time, if known."""

    content: bytes
    ahead_seconds: float | None


class PrometheusSource:
    def __init__(self, name: str, settings: PrometheusSourceSettings, clock: Clock) -> None:
        self._name = name
        self._settings = settings
        self._clock = clock
        self._address = addresses.parse(settings.url, f"sources.{name}.url")
        self._endpoint = self._address.url.with_query(None) / "api/v1/query"
        self._permits = asyncio.Semaphore(settings.max_concurrency)
        # One thread: several would take turns with each other instead of with the event loop.
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"prometheus-{name}")
        self._session: aiohttp.ClientSession | None = None
        self._reasons: set[str] = set()
        self._last: tuple[frozenset[Question], Plan] | None = None

    def start(self) -> None:
        """Nothing runs between measurements."""

    async def measure(self, questions: Collection[Question]) -> Mapping[Question, Reading]:
        """All answers within `timeout_seconds`; a query that has none by then fails alone."""
        if not questions:
            return {}
        plan = await self._in_worker(lambda: self._plan(frozenset(questions)))
        try:
            login = await asyncio.to_thread(self._login)
        except SettingsError as error:
            failure = Failure(str(error))
            failed = [_all_failed(asked, failure) for asked in plan.queries]
            return await self._in_worker(lambda: self._concluded(plan, failed))
        at = round(self._clock.now().timestamp(), 3)
        deadline = asyncio.get_running_loop().time() + self._settings.timeout_seconds
        parts = await asyncio.gather(*(self._answer(asked, at, deadline, login) for asked in plan.queries))
        return await self._in_worker(lambda: self._concluded(plan, parts))

    async def problems(self) -> Sequence[str]:
        """What keeps it from answering now; empty when nothing does."""
        asked = QueryQuestion(query="vector(1)")
        failure = (await self.measure([asked]))[asked].failure
        return [failure] if failure else []

    async def examine(self, questions: Collection[Question]) -> Examined:
        """A few questions at a time, each under a deadline of its own: measuring goes on beside it."""
        try:
            login = await asyncio.to_thread(self._login)
        except SettingsError as error:
            return Examined(found=dict.fromkeys(questions, Examination(failure=str(error))))
        turns = asyncio.Semaphore(EXAMINED_AT_ONCE)

        async def in_turn(question: Question) -> Examination:
            async with turns:
                return await self._examination(question, login)

        ahead = await self._clock_ahead(login)
        found = await asyncio.gather(*map(in_turn, questions))
        return Examined(clock_ahead_seconds=ahead, found=dict(zip(questions, found, strict=True)))

    async def _examination(self, question: Question, login: Login) -> Examination:
        try:
            selector = coalescing.watched(question)
            if selector is None:
                return Examination()
            body, at = await self._fetch_now(f"topk({SERIES_SHOWN}, {selectors.render(selector)})", login)
            series = [_series(labels, value) for labels, value in query_api.samples(body.content, at)]
            if not series:
                return Examination()
            # The samples of one of them: their times tell how often the target is scraped.
            labels = tuple(Matcher(name, "=", text) for name, text in sorted(series[0].labels.items()))
            one = selectors.render(Selector(selector.metric, labels))
            body, _ = await self._fetch_now(f"{one}[{round(SPAN_SECONDS)}s]", login)
            return Examination(series=tuple(series), interval_seconds=query_api.interval(body.content))
        except (Invalid, SourceUnavailable) as error:
            return Examination(failure=_shown(str(error), login.secrets))

    async def _clock_ahead(self, login: Login) -> float | None:
        try:
            body, _ = await self._fetch_now("vector(1)", login)
        except SourceUnavailable:
            return None  # `problems` says so
        # The header tells whole seconds, which is half a second too early on average.
        return None if body.ahead_seconds is None else body.ahead_seconds + 0.5

    async def _fetch_now(self, query: str, login: Login) -> tuple[Body, float]:
        """The answer, and the moment it was asked for."""
        at = round(self._clock.now().timestamp(), 3)
        deadline = asyncio.get_running_loop().time() + self._settings.timeout_seconds
        return await self._fetch(QueryQuestion(query=query), at, deadline, login), at

    async def close(self) -> None:
        if self._session:
            await self._session.close()
            self._session = None
        self._worker.shutdown(wait=False)

    async def _in_worker(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)

    def _plan(self, questions: frozenset[Question]) -> Plan:
        # The same rollouts ask the same questions every tick.
        if self._last is None or self._last[0] != questions:
            self._last = (questions, coalescing.plan(questions, self._settings.flags_per_query))
        return self._last[1]

    def _concluded(self, plan: Plan, parts: Sequence[PartialAnswers]) -> Mapping[Question, Reading]:
        answers = {key: answer for part in parts for key, answer in part.items()}
        self._log_failures(answers)
        return coalescing.readings(plan, answers)

    async def _answer(self, asked: Query, at: float, deadline: float, login: Login) -> PartialAnswers:
        """What one query says about each of its terms. A fault is an answer, too: of this query only."""
        try:
            body = await self._fetch(asked, at, deadline, login)
            if len(body.content) <= SMALL_BODY_BYTES:
                return _understood(asked, body, at)
            return await self._in_worker(lambda: _understood(asked, body, at))
        except SourceUnavailable as error:
            reason = _shown(str(error), login.secrets)
            return _all_failed(asked, Failure(f"{self._name} at {self._endpoint.origin()}: {reason}"))

    def _log_failures(self, answers: Answers) -> None:
        """Only what changed: the same failure comes back every tick."""
        reasons = {answer.text for answer in answers.values() if isinstance(answer, Failure)}
        if reasons and reasons != self._reasons:
            log.warning("source_failed", source=self._name, reasons=sorted(reasons)[:REASONS_LOGGED])
        elif self._reasons and not reasons:
            log.info("source_recovered", source=self._name)
        self._reasons = reasons

    async def _fetch(self, asked: Query, at: float, deadline: float, login: Login) -> Body:
        """Raises SourceUnavailable, with text that holds neither the address nor what was sent."""
        query = asked.query if isinstance(asked, QueryQuestion) else coalescing.promql(asked)
        try:
            async with asyncio.timeout_at(deadline), self._permits:
                left = max(1, round((deadline - asyncio.get_running_loop().time()) * 1000))
                form = {"query": query, "time": f"{at:.3f}", "timeout": f"{left}ms"}
                # A redirect would carry the headers, secrets among them, to wherever it points.
                async with self._http().post(
                    self._endpoint, data=form, headers=login.headers, allow_redirects=False
                ) as response:
                    return await _read(response, at)
        except TimeoutError as error:
            raise SourceUnavailable(f"no answer within {self._settings.timeout_seconds:g} s") from error
        except aiohttp.ClientConnectorCertificateError as error:
            raise SourceUnavailable("cannot connect: its certificate is not trusted") from error
        except aiohttp.ClientConnectorError as error:
            reason = error.strerror or "no host answers at this address"
            raise SourceUnavailable(f"cannot connect: {reason}") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # Their text may hold the address or a header; the type is enough. ValueError: a header with a newline.
            raise SourceUnavailable(f"the connection broke ({type(error).__name__})") from error

    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
        return self._session

    def _login(self) -> Login:
        """Files are read for every batch, so that a rotated secret counts at once."""
        settings = self._settings
        headers = dict(settings.headers)
        secrets = list(settings.headers.values())
        user = settings.username or self._address.user
        if user:
            password = secret_file(settings.password_file) if settings.password_file else self._address.password
            headers["Authorization"] = addresses.basic_login(user, password)
            secrets += [password, headers["Authorization"].removeprefix("Basic ")]
        if settings.bearer_token_file:
            token = secret_file(settings.bearer_token_file)
            headers["Authorization"] = f"Bearer {token}"
            secrets.append(token)
        telling = tuple(secret for secret in secrets if len(secret) >= SHORTEST_SECRET)
        for secret in telling:
            hide(secret)
        return Login(headers, telling)


def _series(labels: Mapping[str, str], value: float) -> Series:
    return Series({name: text for name, text in labels.items() if name != "__name__"}, value)


def _all_failed(asked: Query, failure: Failure) -> PartialAnswers:
    return dict.fromkeys(coalescing.keys(asked), failure)


def _understood(asked: Query, body: Body, at: float) -> PartialAnswers:
    samples = query_api.samples(body.content, at)
    if isinstance(asked, QueryQuestion):
        return {asked: [("", value) for _, value in samples]}
    if asked.template.kind == "freshness":
        samples = _aged(samples, max(0.0, body.ahead_seconds or 0.0))
    return coalescing.assign(asked, samples)


def _aged(samples: list[Sample], seconds: float) -> list[Sample]:
    """Ages count from the server's clock: with ours behind, we would ask about the past and find it fresh."""
    return [(labels, age + seconds) for labels, age in samples]


async def _read(response: aiohttp.ClientResponse, at: float) -> Body:
    content = bytearray()
    async for chunk in response.content.iter_chunked(CHUNK_BYTES):
        content += chunk
        if len(content) > MAX_BODY_BYTES:
            raise SourceUnavailable(f"the answer is larger than {MAX_BODY_BYTES // 1024**2} MiB")
    if response.status != HTTP_OK:
        raise SourceUnavailable(query_api.refusal(response.status, response.content_type, content))
    date = _date(response)
    return Body(bytes(content), None if date is None else date - at)


def _date(response: aiohttp.ClientResponse) -> float | None:
    """The server's clock by its Date header, which HTTP lets it leave out."""
    try:
        return parsedate_to_datetime(response.headers["Date"]).timestamp()
    except (KeyError, ValueError):
        return None


def _shown(reason: str, secrets: tuple[str, ...]) -> str:
    # A server may echo what it was sent, so secrets go out before the text is cut.
    for secret in secrets:
        reason = reason.replace(secret, "…")
    line = " ".join(reason.split())
    return line if len(line) <= SHOWN_CHARACTERS else line[: SHOWN_CHARACTERS - 1] + "…"
