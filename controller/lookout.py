"""Looking outside: what sources measured and providers show, for many runs at once, each under its deadline."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import TypeVar

import structlog
from msgspec import Struct

from controller.domain.assess import questions
from controller.domain.binding import Guardrail
from controller.domain.evidence import Question, Reading
from controller.domain.flag import Observation, Unknown
from controller.domain.plan import FlagRef, RolloutPlan
from controller.domain.rollout import Run
from controller.faultpoints import reach
from controller.ports import Clock, FlagProvider, MetricSource
from controller.settings import EngineSettings
from controller.telemetry import Metrics

log = structlog.get_logger()
T = TypeVar("T")


class Looked(Struct, frozen=True, kw_only=True):
    """What one look outside brought back for one run."""

    readings: list[tuple[Question, Reading]]
    observed: Observation
    asked_at: float


async def in_turns(items: Iterable[T]) -> AsyncIterator[T]:
    """One at a time, the event loop free in between: a kill waits for the work on one run, not on a thousand."""
    for item in items:
        yield item
        await asyncio.sleep(0)


class Lookout:
    """Never raises for a source's or a provider's faults: they come back as readings and as Unknown."""

    def __init__(
        self,
        *,
        sources: Mapping[str, MetricSource],
        providers: Mapping[str, FlagProvider],
        clock: Clock,
        metrics: Metrics,
        settings: EngineSettings,
    ) -> None:
        self._sources = sources
        self._providers = providers
        self._clock = clock
        self._metrics = metrics
        self._settings = settings

    async def look(self, runs: Sequence[tuple[Run, RolloutPlan, tuple[Guardrail, ...]]]) -> dict[str, Looked]:
        """Measure and observe at the same time, each source and provider under its own deadline."""
        reach("observe.before")
        asked_at = self._clock.monotonic()
        wanted = {}
        by_source: defaultdict[str, set[Question]] = defaultdict(set)
        async for run, plan, guardrails in in_turns(runs):
            asked = wanted[run.id] = questions(run, plan, guardrails)
            for source, several in asked.items():
                by_source[source].update(several)
        measured, states = await asyncio.gather(
            asyncio.gather(*(self._measure(source, several) for source, several in by_source.items())),
            self.observe(run.flag for run, _, _ in runs),
        )
        reach("observe.after")
        readings = dict(zip(by_source, measured, strict=True))
        return {
            run.id: Looked(
                readings=[(q, readings[s][q]) for s, several in wanted[run.id].items() for q in several],
                observed=states[run.flag],
                asked_at=asked_at,
            )
            async for run, _, _ in in_turns(runs)
        }

    async def _measure(self, source: str, asked: set[Question]) -> Mapping[Question, Reading]:
        if source not in self._sources:
            return _failed(asked, f'the settings know no source "{source}"')
        try:
            async with asyncio.timeout(self._settings.measure_timeout_seconds):
                readings = await self._sources[source].measure(asked)
        except TimeoutError:
            self._metrics.source_request(source, "timeout")
            return _failed(asked, f"no answer within {self._settings.measure_timeout_seconds:g} s")
        except Exception as error:
            # A source says in its readings what went wrong. One that raises must not take the others with it.
            log.exception("source_failed", source=source)
            self._metrics.source_request(source, "error")
            return _failed(asked, f"failed with {type(error).__name__}")
        answered = any(reading.failure is None for reading in readings.values())
        self._metrics.source_request(source, "ok" if answered or not asked else "error")
        if answered:
            self._metrics.source_answered(source, self._clock.now())
        unanswered = asked.difference(readings)
        return {**readings, **_failed(unanswered, "not answered")} if unanswered else readings

    async def _observe(self, provider: str, flags: set[FlagRef]) -> Mapping[FlagRef, Observation]:
        if provider not in self._providers:
            return {flag: Unknown(f'the settings know no provider "{provider}"') for flag in flags}
        try:
            async with asyncio.timeout(self._settings.provider_timeout_seconds):
                states = await self._providers[provider].observe(flags)
        except TimeoutError:
            states = {}
        except Exception as error:
            # As with sources: what is wrong with one provider is not the others' problem.
            log.exception("provider_failed", provider=provider)
            states = {flag: Unknown(f"the provider failed with {type(error).__name__}") for flag in flags}
        self._metrics.provider_request(provider, "observe", "ok" if states else "timeout")
        return {flag: states.get(flag, Unknown("the provider did not answer for it in time")) for flag in flags}

    async def observe(self, flags: Iterable[FlagRef]) -> Mapping[FlagRef, Observation]:
        """What the providers show now, each under its own deadline."""
        by_provider: defaultdict[str, set[FlagRef]] = defaultdict(set)
        for flag in flags:
            by_provider[flag.provider].add(flag)
        observed = await asyncio.gather(*(self._observe(name, several) for name, several in by_provider.items()))
        return {flag: state for several in observed for flag, state in several.items()}


def _failed(asked: Iterable[Question], why: str) -> dict[Question, Reading]:
    return {question: Reading(query="", failure=why) for question in asked}
