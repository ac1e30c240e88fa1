"""Measurements from Prometheus' HTTP API, coalesced: one evaluation time and one deadline for the whole batch."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import aiohttp
from msgspec import Struct

from controller.domain.evidence import Examination, Examined, QueryQuestion, Question, Reading, Series
from controller.errors import Invalid, SettingsError, SourceUnavailable
from controller.settings import PrometheusSourceSettings
from controller.sources import addresses, coalescing, inquiry, query_api, selectors
from controller.sources.coalescing import Failure, Found, Key, Plan, Query, Sample
from controller.sources.host import Host
from controller.sources.inquiry import Complaints
from controller.sources.selectors import Matcher, Selector

MAX_BODY_BYTES = 64 * 1024 * 1024
# Larger answers are decoded in the worker, so that the event loop stays free.
SMALL_BODY_BYTES = 16 * 1024
HTTP_OK = 200

# Of the series behind one question, when an installation is examined: those of the largest values.
SERIES_SHOWN = 500
EXAMINED_AT_ONCE = 4
# Long enough for several samples at the slowest usual scrape interval.
SPAN_SECONDS = 900.0

# Answers of one query.
PartialAnswers = dict[Key, Found | Failure]
T = TypeVar("T")


class Login(Struct, frozen=True):
    """Headers of one batch, and the texts that must never be shown."""

    headers: Mapping[str, str]
    secrets: tuple[str, ...]


class Body(Struct, frozen=True):
    """A complete answer. `ahead_seconds`: how far the server's clock had passed the evaluation time, if known."""

    content: bytes
    ahead_seconds: float | None


class PrometheusSource:
    def __init__(self, name: str, settings: PrometheusSourceSettings, host: Host) -> None:
        self._name = name
        self._settings = settings
        self._clock = host.clock
        self._address = addresses.parse(settings.url, f"sources.{name}.url")
        self._endpoint = self._address.url.with_query(None) / "api/v1/query"
        self._permits = asyncio.Semaphore(settings.max_concurrency)
        # One thread: several would take turns with each other instead of with the event loop.
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"prometheus-{name}")
        self._session: aiohttp.ClientSession | None = None
        self._complaints = Complaints(name)
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
            return Examination(failure=inquiry.shown(str(error), login.secrets))

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
        self._complaints.are({answer.text for answer in answers.values() if isinstance(answer, Failure)})
        return coalescing.readings(plan, answers)

    async def _answer(self, asked: Query, at: float, deadline: float, login: Login) -> PartialAnswers:
        """What one query says about each of its terms. A fault is an answer, too: of this query only."""
        try:
            body = await self._fetch(asked, at, deadline, login)
            if len(body.content) <= SMALL_BODY_BYTES:
                return _understood(asked, body, at)
            return await self._in_worker(lambda: _understood(asked, body, at))
        except SourceUnavailable as error:
            reason = inquiry.shown(str(error), login.secrets)
            return _all_failed(asked, Failure(f"{self._name} at {self._endpoint.origin()}: {reason}"))

    async def _fetch(self, asked: Query, at: float, deadline: float, login: Login) -> Body:
        """Raises SourceUnavailable, with text that holds neither the address nor what was sent."""
        query = asked.query if isinstance(asked, QueryQuestion) else coalescing.promql(asked)
        with inquiry.told_in_words(self._settings.timeout_seconds):
            async with asyncio.timeout_at(deadline), self._permits:
                left = max(1, round((deadline - asyncio.get_running_loop().time()) * 1000))
                form = {"query": query, "time": f"{at:.3f}", "timeout": f"{left}ms"}
                # A redirect would carry the headers, secrets among them, to wherever it points.
                async with self._http().post(
                    self._endpoint, data=form, headers=login.headers, allow_redirects=False
                ) as response:
                    return await _read(response, at)

    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
        return self._session

    def _login(self) -> Login:
        """Files are read for every batch, so that a rotated secret counts at once."""
        settings = self._settings
        header, secrets = inquiry.authorization(
            self._address,
            username=settings.username,
            password_file=settings.password_file,
            bearer_token_file=settings.bearer_token_file,
        )
        return Login(settings.headers | header, inquiry.hidden([*settings.headers.values(), *secrets]))


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
    found = await inquiry.content(response, most_bytes=MAX_BODY_BYTES)
    if response.status != HTTP_OK:
        raise SourceUnavailable(query_api.refusal(response.status, response.content_type, found))
    now = inquiry.clock_of(response)
    return Body(found, None if now is None else now - at)
