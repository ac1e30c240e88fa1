"""Flags of LaunchDarkly: written through its REST API, seen as its SDKs show them.

Observing costs no requests while the SDK's stream says what the REST API said. Kills have connections and a part
of the rate limit of their own, and need nothing that was read before.
"""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from random import Random
from typing import Any

import structlog

from controller.domain.flag import FlagChange, FlagKill, Observation, ProviderLimits, SetShare, TurnOn
from controller.domain.plan import FlagRef, RolloutPlan
from controller.errors import Refused
from controller.providers.host import Host
from controller.providers.launchdarkly import faults, writing
from controller.providers.launchdarkly.budget import Budget, Purpose
from controller.providers.launchdarkly.faults import CONFLICT, Failed
from controller.providers.launchdarkly.fitting import Fitting
from controller.providers.launchdarkly.model import Config, RestFlag, essence
from controller.providers.launchdarkly.reader import Reader
from controller.providers.launchdarkly.reading import our_rules, own_release, running_release, state_of
from controller.providers.launchdarkly.record import Record, Sent
from controller.providers.launchdarkly.rest import RestApi, address
from controller.providers.launchdarkly.stream import Stream
from controller.settings import LaunchDarklyProviderSettings, secret_file
from controller.telemetry import hide

log = structlog.get_logger()

SHOWN_WITHIN_SECONDS = 0.5
"""How long a look waits for the SDK to show a write of ours that has just been answered."""
KILL_ROUNDS = 2
SWEEPS_WATCHED = 2
"""A flag that nobody asked for during so many sweeps is not swept any more."""
SPREAD = 0.25
"""Sweeps are so much further apart than asked for, at random: replicas should not come together."""


class LaunchDarklyProvider:
    def __init__(self, name: str, settings: LaunchDarklyProviderSettings, host: Host) -> None:
        """Raises SettingsError when a secret's file cannot be read or an address is none."""
        self.name = name
        self._settings = settings
        self._clock = host.clock
        self._metrics = host.metrics
        self._chance = Random()  # noqa: S311 - it spreads requests; nothing secret is drawn from it
        address(settings.stream_uri, f"providers.{name}.stream_uri")
        budget = Budget(
            clock=host.clock.monotonic,
            now=lambda: host.clock.now().timestamp(),
            chance=self._chance.random,
            reserve=settings.kill_reserve,
            window_seconds=settings.throttled_seconds,
        )
        self._rest = RestApi(name, settings, budget, partial(host.metrics.provider_request, name))
        self._reader = Reader(self._rest, clock=host.clock.monotonic, poll_seconds=settings.poll_seconds)
        self._streams = {environment: self._stream(environment) for environment in settings.sdk_key_files}
        self._records: dict[tuple[str, str], Record] = {}
        self._sweeping: asyncio.Task[None] | None = None

    def _stream(self, environment: str) -> Stream:
        sdk_key = secret_file(self._settings.sdk_key_files[environment])
        hide(sdk_key)
        return Stream(environment, sdk_key, self._settings, clock=self._clock.monotonic, arrived=self._arrived)

    @property
    def limits(self) -> ProviderLimits:
        return ProviderLimits(granularity=1, audience=True, settle_seconds=self._settings.settle_seconds)

    def start(self) -> None:
        for stream in self._streams.values():
            stream.start()
        self._sweeping = asyncio.create_task(self._sweep())

    async def close(self) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.wait([self._sweeping])
        await asyncio.gather(*(stream.close() for stream in self._streams.values()))
        await self._rest.close()

    # — what it can do —

    async def objections(self, plan: RolloutPlan) -> Sequence[str]:
        fitting = Fitting(self._rest, has_sdk_key=plan.spec.flag.environment in self._streams)
        return await fitting.objections(plan)

    async def problems(self, environments: Collection[str]) -> Sequence[str]:
        found = await asyncio.gather(*(self._problem(one) for one in sorted(environments)))
        return [problem for several in found for problem in several]

    async def _problem(self, environment: str) -> list[str]:
        problems = []
        try:
            await self._rest.look_at(environment)
        except Failed as failed:
            if failed.status == faults.NOT_FOUND:
                known = f"project {self._settings.project}, environment {environment}"
                problems.append(f"LaunchDarkly does not show this token {known}: check both keys and its role")
            else:
                problems.append(faults.explained(failed))
        stream = self._streams.get(environment)
        if stream is None:
            problems.append(f"no SDK key for {environment}: name its file in sdk_key_files")
        elif not stream.connected:
            problems.append(f"the SDK does not get the flags of {environment}: {stream.why_not}")
        return problems

    # — looking —

    async def observe(self, flags: Collection[FlagRef]) -> Mapping[FlagRef, Observation]:
        by_environment: defaultdict[str, list[Record]] = defaultdict(list)
        for flag in flags:
            record = self._record(flag)
            record.asked_at = self._clock.monotonic()
            by_environment[flag.environment].append(record)
        await asyncio.gather(
            *(self._look(environment, several) for environment, several in by_environment.items())
        )
        now, poll = self._clock.monotonic(), self._settings.poll_seconds
        return {
            record.flag: record.observation(now, poll) for several in by_environment.values() for record in several
        }

    async def _look(self, environment: str, records: Sequence[Record]) -> None:
        await self._reader.refresh(environment, records)
        stream = self._streams.get(environment)
        if stream is None:
            return
        if not stream.connected and self._rest.answers:
            stream.hurry(urgent=any(record.killing for record in records))
        recent = self._clock.monotonic() - SHOWN_WITHIN_SECONDS
        awaited = [one for one in records if one.sent is not None and one.sent.answered_at > recent]
        if not stream.connected or not awaited:
            return
        try:
            async with asyncio.timeout(SHOWN_WITHIN_SECONDS):
                while any(record.sent is not None for record in awaited):
                    await stream.change()
        except TimeoutError:
            return  # it is behind, and that is what the look says then
        await self._reader.refresh(environment, records)

    def _record(self, flag: FlagRef) -> Record:
        name = (flag.environment, flag.key)
        if name not in self._records:
            self._records[name] = Record(flag, self._streams.get(flag.environment))
        return self._records[name]

    def _arrived(self, environment: str, keys: frozenset[str]) -> None:
        for key in keys:
            if (record := self._records.get((environment, key))) is not None:
                self._note_arrival(record)

    def _note_arrival(self, record: Record) -> None:
        seconds = record.arrived()
        if seconds is not None:
            self._metrics.provider_delivered(self.name, record.flag.environment, seconds)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self._settings.sweep_seconds * (1 + SPREAD * self._chance.random()))
            since = self._clock.monotonic() - SWEEPS_WATCHED * self._settings.sweep_seconds
            watched: defaultdict[str, list[Record]] = defaultdict(list)
            for (environment, _), record in self._records.items():
                if record.asked_at >= since:
                    watched[environment].append(record)
            for environment, records in watched.items():
                try:
                    await self._reader.sweep(environment, records)
                except Exception:
                    # The next sweep comes in any case; a loop that ended would never be missed.
                    log.exception("launchdarkly_sweep_failed", environment=environment)

    # — writing —

    async def apply(self, change: FlagChange) -> None:
        """Reads the flag first: rules and order of variations are kept by it. Raises as the protocol says."""
        record = self._record(change.flag)
        try:
            async with record.writing:  # what one write removes and adds rests on what the one before left
                await self._apply(record, change)
        except Failed as failed:
            raise faults.of_raise(failed, change.flag.key) from failed

    async def _apply(self, record: Record, change: FlagChange) -> None:
        for last in (False, True):
            flag, config = await self._as_it_is(record)
            raises = _raises(flag, config, change)
            if raises and (where := running_release(config)) is not None:
                raise Refused(own_release(flag.key, where))
            instructions = _wanted(flag, config, change)
            if not instructions:
                return
            try:
                await self._write(record, instructions, change.comment, "raise" if raises else "lower")
            except Failed as failed:
                if failed.status != CONFLICT or last:
                    raise
                continue  # somebody else was first, so nothing happened: look at it once more
            return

    async def _as_it_is(self, record: Record) -> tuple[RestFlag, Config]:
        """Raises Failed, for sure before anything was written, and Refused."""
        try:
            flag = await self._reader.read(record)
        except Failed as failed:
            failed.certain = True
            raise
        config = record.config
        if config is None:
            raise Refused(f"LaunchDarkly has no environment {record.flag.environment} in this project")
        if flag.archived:
            raise Refused(f"the flag {record.flag.key} is archived at LaunchDarkly")
        return flag, config

    async def _write(
        self, record: Record, instructions: Sequence[Mapping[str, Any]], comment: str, purpose: Purpose
    ) -> RestFlag:
        """Raises Failed. What the flag is then is read back by the next look in any case."""
        flag, began = record.flag, self._clock.monotonic()
        record.sent = None
        try:
            answer = await self._rest.patch(flag.key, flag.environment, instructions, comment, purpose=purpose)
            record.take_in(answer, began, own=True)
        finally:
            record.written_at = self._clock.monotonic()
        config = answer.environments.get(flag.environment)
        if config is not None:
            record.sent = Sent(record.written_at, config.version, essence(config))
            self._note_arrival(record)
        return answer

    # — killing —

    async def kill(self, kill: FlagKill) -> Sequence[str]:
        """All at once, by what was read last; when that does not fit any more, off first and then the rest."""
        record = self._record(kill.flag)
        record.killing = True
        try:
            if kill.serve is not None and kill.serve.kill == "fallthrough":
                known = await self._reader.read(record, urgent=True)
            else:
                known = await self._turn_off(record, kill)
            await self._make_safe(record, kill, known)
        except Failed as failed:
            raise faults.of_kill(failed, kill.flag.key) from failed
        return [f"LaunchDarkly {kill.flag.environment}"]

    async def _turn_off(self, record: Record, kill: FlagKill) -> RestFlag:
        """With everything else that is known to be needed. Turning it off alone needs no knowledge."""
        if record.rest is not None:
            everything = _kill_of(record.rest, kill)
            if writing.TURN_OFF not in everything:
                everything = [writing.TURN_OFF, *everything]
            try:
                return await self._write(record, everything, kill.comment, "kill")
            except Failed as failed:
                if failed.status not in faults.MISFITS:
                    raise
                log.info("launchdarkly_kill_outdated", flag=str(record.flag), error=str(failed))
        return await self._write(record, [writing.TURN_OFF], kill.comment, "kill")

    async def _make_safe(self, record: Record, kill: FlagKill, known: RestFlag) -> None:
        """What is still to be done, so that nobody is exposed should anybody turn it on again."""
        for _ in range(KILL_ROUNDS):
            instructions = _kill_of(known, kill)
            if not instructions:
                return
            try:
                known = await self._write(record, instructions, kill.comment, "kill")
            except Failed as failed:
                config = known.environments.get(kill.flag.environment)
                if failed.status not in faults.MISFITS or config is None or config.on:
                    raise
                # It is off, and LaunchDarkly takes no more of us: a release of its own may be in the way.
                log.warning("launchdarkly_kill_incomplete", flag=str(record.flag), error=str(failed))
                return

    async def settle_kill(self, kill: FlagKill) -> None:
        """A kill is written for good: nothing of it is held here."""
        await self.kill(kill)

    async def forget_kill(self, kill: FlagKill) -> None:
        self._record(kill.flag).killing = False


def _wanted(flag: RestFlag, config: Config, change: FlagChange) -> list[writing.Instruction]:
    """Raises Refused for a change that does not fit."""
    match change:
        case SetShare():
            return writing.share(flag, config, change)
        case TurnOn():
            return [] if config.on else [writing.TURN_ON]


def _raises(flag: RestFlag, config: Config, change: FlagChange) -> bool:
    """Whether anybody could get the rollout who does not get it now."""
    match change:
        case SetShare(exposure=exposure, audience=audience):
            now = state_of(config, flag.labels, our_rules(flag, config))
            return exposure > now.effective_exposure or not {one.name for one in audience} <= {*now.audience}
        case TurnOn():
            return True


def _kill_of(flag: RestFlag, kill: FlagKill) -> list[writing.Instruction]:
    config = flag.environments.get(kill.flag.environment)
    return [] if config is None else writing.kill(flag, config, kill.serve)
