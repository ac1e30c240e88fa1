"""Looking outside: what sources measured and providers show, for many runs at once, each under its deadline."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Literal, TypeVar

import structlog
from msgspec import Struct

from controller.breaker import Breaker
from controller.domain.assess import poll_seconds, questions
from controller.domain.binding import Guardrail
from controller.domain.evidence import Question, Reading
from controller.domain.flag import Observation, Unknown
from controller.domain.plan import FlagRef, RolloutPlan
from controller.domain.rollout import Run
from controller.errors import NotAsked
from controller.faultpoints import reach
from controller.ports import Clock, FlagProvider, MetricSource
from controller.settings import EngineSettings
from controller.telemetry import Metrics

log = structlog.get_logger()
T = TypeVar("T")

Dependency = Literal["source", "provider"]

LONGEST_EVERY_SECONDS = 60.0
"""Taken for those who ask without a rhythm of their own, such as a list that somebody looks at."""


class Looked(Struct, frozen=True, kw_only=True):
    """What one look outside brought back for one run.

    `again_in`: somebody was not asked; seconds until it may. `fault`: what the run's own questions raised.
    """

    readings: list[tuple[Question, Reading]]
    observed: Observation
    asked_at: float
    again_in: float | None = None
    fault: Exception | None = None


class Measured(Struct, frozen=True):
    readings: Mapping[Question, Reading]
    again_in: float | None = None


class Observed(Struct, frozen=True):
    states: Mapping[FlagRef, Observation]
    again_in: float | None = None


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
        chance: Callable[[], float],
    ) -> None:
        self._sources = sources
        self._providers = providers
        self._clock = clock
        self._metrics = metrics
        self._settings = settings
        self._chance = chance
        self._circuits: dict[tuple[Dependency, str], Breaker] = {}
        for name in sources:
            self.circuit("source", name)
        for name in providers:
            self.circuit("provider", name)

    def circuit(self, kind: Dependency, name: str) -> Breaker:
        found = self._circuits.get((kind, name))
        if found is None:
            found = self._circuits[kind, name] = Breaker(
                f"{kind} {name}",
                clock=self._clock.monotonic,
                chance=self._chance,
                opened=lambda is_open: self._metrics.circuit(kind, name, is_open=is_open),
            )
        return found

    async def look(
        self, runs: Sequence[tuple[Run, RolloutPlan, tuple[Guardrail, ...]]], *, insist: bool = False
    ) -> dict[str, Looked]:
        """Measure and observe at the same time, each source and provider under its own deadline."""
        reach("observe.before")
        asked_at = self._clock.monotonic()
        wanted: dict[str, dict[str, list[Question]]] = {}
        faults: dict[str, Exception] = {}
        every = LONGEST_EVERY_SECONDS
        by_source: defaultdict[str, dict[str, list[Question]]] = defaultdict(dict)
        async for run, plan, guardrails in in_turns(runs):
            try:
                wanted[run.id] = questions(run, plan, guardrails)
                every = min(every, poll_seconds(guardrails))
            except Exception as error:  # noqa: BLE001 - whoever judges the run raises it again (promise I16)
                wanted[run.id], faults[run.id] = {}, error
            for source, several in wanted[run.id].items():
                by_source[source][run.id] = several
        measured, observed = await asyncio.gather(
            asyncio.gather(*(self._measure(source, each, every, insist) for source, each in by_source.items())),
            self._observe_all({run.flag for run, _, _ in runs}, every, insist),
        )
        reach("observe.after")
        by_name = dict(zip(by_source, measured, strict=True))
        return {
            run.id: Looked(
                readings=[(q, by_name[s].readings[q]) for s, several in wanted[run.id].items() for q in several],
                observed=observed[run.flag.provider].states[run.flag],
                asked_at=asked_at,
                again_in=_soonest([observed[run.flag.provider], *(by_name[s] for s in wanted[run.id])]),
                fault=faults.get(run.id),
            )
            async for run, _, _ in in_turns(runs)
        }

    async def _measure(
        self, source: str, asked: Mapping[str, list[Question]], every: float, insist: bool
    ) -> Measured:
        """`asked` is by run: one whose questions nobody can answer speaks for itself alone."""
        every_question = {question for several in asked.values() for question in several}
        if source not in self._sources:
            return Measured(_failed(every_question, f'the settings know no source "{source}"'))
        within = self._settings.measure_timeout_seconds
        circuit = self.circuit("source", source)
        try:
            async with circuit.asking(asked, within=within, every=every, insist=insist) as ask:
                readings = await self._readings(source, every_question)
                failures = [reading.failure for reading in readings.values() if reading.failure is not None]
                answered = [run for run, several in asked.items() if _answered(readings, several)]
                ask.heard(answered, failures[0] if failures else "")
        except NotAsked as error:
            self._metrics.source_request(source, "not_asked")
            return Measured(_failed(every_question, str(error)), error.again_in)
        if answered:
            self._metrics.source_answered(source, self._clock.now())
        return Measured(readings)

    async def _readings(self, source: str, asked: set[Question]) -> Mapping[Question, Reading]:
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
        unanswered = asked.difference(readings)
        return {**readings, **_failed(unanswered, "not answered")} if unanswered else readings

    async def _observe(self, provider: str, flags: set[FlagRef], every: float, insist: bool) -> Observed:
        if provider not in self._providers:
            return Observed(_unknown(flags, f'the settings know no provider "{provider}"'))
        within = self._settings.provider_timeout_seconds
        circuit = self.circuit("provider", provider)
        try:
            async with circuit.asking(flags, within=within, every=every, insist=insist) as ask:
                states = await self._states(provider, flags)
                unknown = [state.why for state in states.values() if isinstance(state, Unknown)]
                known = [flag for flag, state in states.items() if not isinstance(state, Unknown)]
                ask.heard(known, unknown[0] if unknown else "")
        except NotAsked as error:
            self._metrics.provider_request(provider, "observe", "not_asked")
            return Observed(_unknown(flags, str(error)), error.again_in)
        return Observed(states)

    async def _states(self, provider: str, flags: set[FlagRef]) -> Mapping[FlagRef, Observation]:
        why, result = "the provider did not answer for it", "ok"
        states: Mapping[FlagRef, Observation] = {}
        try:
            async with asyncio.timeout(self._settings.provider_timeout_seconds):
                states = await self._providers[provider].observe(flags)
        except TimeoutError:
            why, result = "the provider did not answer for it in time", "timeout"
        except Exception as error:
            # As with sources: what is wrong with one provider is not the others' problem.
            log.exception("provider_failed", provider=provider)
            why, result = f"the provider failed with {type(error).__name__}", "error"
        if result == "ok" and all(isinstance(state, Unknown) for state in states.values()):
            result = "unknown"
        self._metrics.provider_request(provider, "observe", result)
        return {**_unknown(flags, why), **states}

    async def observe(self, flags: Iterable[FlagRef], *, insist: bool = False) -> Mapping[FlagRef, Observation]:
        """What the providers show now, each under its own deadline. `insist` for a person who waits for it."""
        observed = await self._observe_all(set(flags), LONGEST_EVERY_SECONDS, insist)
        return {flag: state for one in observed.values() for flag, state in one.states.items()}

    async def _observe_all(self, flags: Iterable[FlagRef], every: float, insist: bool) -> dict[str, Observed]:
        by_provider: defaultdict[str, set[FlagRef]] = defaultdict(set)
        for flag in flags:
            by_provider[flag.provider].add(flag)
        asking = (self._observe(name, several, every, insist) for name, several in by_provider.items())
        return dict(zip(by_provider, await asyncio.gather(*asking), strict=True))


def _failed(asked: Iterable[Question], why: str) -> dict[Question, Reading]:
    return {question: Reading(query="", failure=why) for question in asked}


def _answered(readings: Mapping[Question, Reading], several: Iterable[Question]) -> bool:
    return any(readings[question].failure is None for question in several)


def _unknown(flags: Iterable[FlagRef], why: str) -> dict[FlagRef, Observation]:
    return {flag: Unknown(why) for flag in flags}


def _soonest(those: Iterable[Measured | Observed]) -> float | None:
    return min((one.again_in for one in those if one.again_in is not None), default=None)
