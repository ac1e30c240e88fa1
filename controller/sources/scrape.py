"""Measurements without a Prometheus: scrapes the targets itself and answers the same questions from memory.

The window is memory only: after a restart there is no data until it has filled again.
"""

import asyncio
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import aiohttp
import structlog
from msgspec import Struct

from controller.domain.evidence import Examination, Examined, Question, Reading, Series
from controller.errors import Invalid, SettingsError, SourceUnavailable
from controller.settings import ScrapeSourceSettings, secret_file
from controller.sources import addresses, coalescing, exposition, recollection, selectors
from controller.sources.addresses import Address
from controller.sources.coalescing import Batch, Failure, Found, Key
from controller.sources.host import Host
from controller.sources.sample_memory import SampleMemory
from controller.telemetry import hide

MAX_BODY_BYTES = 16 * 1024 * 1024
HTTP_OK = 200
# One missed scrape is no gap, two are.
LONGEST_GAP_SCRAPES = 2.5
# Of those behind one question, when an installation is examined.
SERIES_SHOWN = 500
NO_QUERIES = 'a "scrape" source cannot answer a raw query; use selectors, or a Prometheus'
ACCEPT = "text/plain;version=0.0.4;q=1,*/*;q=0.1"

log = structlog.get_logger()
T = TypeVar("T")


class TargetHealth(Struct, frozen=True, kw_only=True):
    """`age_seconds` since the last successful scrape (None: never); `problem` says why the latest failed."""

    address: str
    up: bool
    age_seconds: float | None
    problem: str | None


class Target:
    def __init__(self, address: Address, settings: ScrapeSourceSettings) -> None:
        self.shown = address.shown
        self.url = address.url if address.url.path not in {"", "/"} else address.url.with_path("/metrics")
        self.headers = {"Accept": ACCEPT}
        if address.user:
            self.headers["Authorization"] = addresses.basic_login(address.user, address.password)
        self.memory = SampleMemory(
            f"{self.url.host}:{self.url.port}",
            every_seconds=settings.every_seconds,
            retention_seconds=settings.retention_seconds,
        )
        self.problem: str | None = "not scraped yet"


class ScrapeSource:
    """Memory is touched only in one worker thread; parsing is not, so that no target waits for another."""

    def __init__(self, name: str, settings: ScrapeSourceSettings, host: Host) -> None:
        self._name = name
        self._settings = settings
        self._clock = host.clock
        self._targets = [
            Target(
                addresses.parse(text if "://" in text else f"http://{text}", f"sources.{name}.targets"), settings
            )
            for text in settings.targets
        ]
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"scrape-{name}")
        self._loops: list[asyncio.Task[None]] = []
        self._session: aiohttp.ClientSession | None = None

    def start(self) -> None:
        """Scrape from now on, each target on its own beat."""
        self._loops = [asyncio.create_task(self._scrape_forever(target)) for target in self._targets]
        for loop in self._loops:
            loop.add_done_callback(_report_end)

    async def scrape(self) -> None:
        """Scrape every target once, now."""
        await asyncio.gather(*(self._scrape(target) for target in self._targets))

    async def measure(self, questions: Collection[Question]) -> Mapping[Question, Reading]:
        return await self._in_worker(lambda: self._readings(questions, self._clock.monotonic()))

    async def targets(self) -> tuple[TargetHealth, ...]:
        now = self._clock.monotonic()
        return await self._in_worker(lambda: tuple(_health(target, now) for target in self._targets))

    async def problems(self) -> Sequence[str]:
        """What keeps it from answering now; empty when nothing does."""
        return [f"{one.address}: {one.problem or 'not scraped yet'}" for one in await self.targets() if not one.up]

    async def examine(self, questions: Collection[Question]) -> Examined:
        return await self._in_worker(lambda: Examined(found={one: self._examination(one) for one in questions}))

    async def close(self) -> None:
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        if self._session:
            await self._session.close()
            self._session = None
        self._worker.shutdown(wait=False)

    async def _in_worker(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)

    # — scraping —

    async def _scrape_forever(self, target: Target) -> None:
        loop = asyncio.get_running_loop()
        every = self._settings.every_seconds
        first = loop.time()
        while True:
            await self._scrape(target)
            # Beats stay multiples of the period from the first one; those missed are left out.
            beats = (loop.time() - first) // every + 1
            await asyncio.sleep(first + beats * every - loop.time())

    async def _scrape(self, target: Target) -> None:
        at = self._clock.monotonic()
        try:
            async with asyncio.timeout(self._settings.timeout_seconds):
                body = await self._fetch(target)
            samples = await asyncio.to_thread(exposition.samples, body)
        except TimeoutError:
            problem = f"no answer within {self._settings.timeout_seconds:g} s"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # The text of these may hold the address with its credentials; the type is enough.
            problem = f"cannot be reached ({type(error).__name__})"
        except (SourceUnavailable, SettingsError) as error:
            problem = str(error)
        else:
            await self._in_worker(lambda: target.memory.record(at, samples, room=self._room()))
            self._note(target, self._overflow(target))
            return
        await self._in_worker(target.memory.record_failure)
        self._note(target, problem)

    async def _fetch(self, target: Target) -> bytes:
        headers = target.headers
        if self._settings.bearer_token_file:
            token = await asyncio.to_thread(secret_file, self._settings.bearer_token_file)
            hide(token)
            headers = {**headers, "Authorization": f"Bearer {token}"}
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
        async with self._session.get(target.url, headers=headers, allow_redirects=False) as response:
            if response.status != HTTP_OK:
                raise SourceUnavailable(f"answered HTTP {response.status}")
            content = bytearray()
            async for chunk in response.content.iter_any():
                content += chunk
                if len(content) > MAX_BODY_BYTES:
                    raise SourceUnavailable(f"exposes more than {MAX_BODY_BYTES // 1024**2} MiB")
            return bytes(content)

    def _room(self) -> int:
        return self._settings.max_series - sum(target.memory.series_count for target in self._targets)

    def _overflow(self, target: Target) -> str | None:
        if not target.memory.refused:
            return None
        return f"the limit of {self._settings.max_series} series is reached; raise max_series or expose fewer"

    def _note(self, target: Target, problem: str | None) -> None:
        if problem != target.problem:
            log.info("scrape_target_changed", source=self._name, target=target.shown, problem=problem)
        target.problem = problem

    # — answering, in the worker —

    def _readings(self, questions: Collection[Question], now: float) -> Mapping[Question, Reading]:
        plan = coalescing.plan(questions, flags_per_query=sys.maxsize)
        answers: dict[Key, Found | Failure] = {question: Failure(NO_QUERIES) for question in plan.raw}
        memories = [target.memory for target in self._targets]
        for batch in plan.batches:
            failure = self._failure(batch)
            if failure:
                answers |= dict.fromkeys(coalescing.keys(batch), failure)
            else:
                longest_gap = LONGEST_GAP_SCRAPES * self._settings.every_seconds
                answers |= recollection.answer(batch, memories, now, longest_gap=longest_gap)
        return coalescing.readings(plan, answers)

    def _examination(self, question: Question) -> Examination:
        try:
            selector = coalescing.watched(question)
            if selector is None:
                return Examination(failure=NO_QUERIES)
            matches = selectors.predicate(selector.matchers)
        except Invalid as error:
            return Examination(failure=str(error))
        found = [
            Series(series.labels, series.last_value)
            for memory in (target.memory for target in self._targets)
            for series in memory.series(selector.metric)
            if matches(series.labels) and memory.newest_sample_at(series) is not None
        ]
        return Examination(series=tuple(found[:SERIES_SHOWN]), interval_seconds=self._settings.every_seconds)

    def _failure(self, batch: Batch) -> Failure | None:
        if batch.template.window_seconds > self._settings.retention_seconds:
            return Failure(
                f"{self._name}: the window of {batch.template.window_seconds:g} s is longer than the"
                f" {self._settings.retention_seconds:g} s kept; raise retention_seconds"
            )
        for target in self._targets:
            if batch.template.metric in target.memory.refused:
                return Failure(f"{self._name}: {target.shown}: {self._overflow(target)}")
        return None


def _report_end(loop: asyncio.Task[None]) -> None:
    """A loop ends by being cancelled; anything else is a defect, and its target stays stale."""
    if not loop.cancelled():
        log.error("scrape_loop_ended", error=repr(loop.exception()))


def _health(target: Target, now: float) -> TargetHealth:
    newest_at = target.memory.newest_at
    return TargetHealth(
        address=target.shown,
        up=target.memory.answering,
        age_seconds=None if newest_at is None else now - newest_at,
        problem=target.problem,
    )
