"""Flags of Unleash: one strategy of ours holds the share, one each an `always` rule; a kill turns the flag off.

Unleash has no off-variation: whoever fits no strategy is served false. Its writes know no versions and are not
atomic, so every write is absolute, one at a time for a flag, and what became of it is only ever read back.
"""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress

from msgspec import Struct
from msgspec.structs import replace

from controller.domain.flag import (
    FlagChange,
    FlagKill,
    Observation,
    ProviderLimits,
    SetShare,
    TurnOn,
    Unknown,
)
from controller.domain.plan import FlagRef, RolloutPlan
from controller.errors import NotFound, ProviderUnavailable, RampartError, Refused
from controller.providers.host import Host
from controller.providers.unleash import rights, steps
from controller.providers.unleash.admin import Admin
from controller.providers.unleash.authors import Authors
from controller.providers.unleash.objections import objections
from controller.providers.unleash.steps import Create, Patch, Remove, Step
from controller.providers.unleash.strategies import (
    PERCENT,
    Shown,
    Strategy,
    body,
    plain,
    rule_strategy,
    share_strategy,
)
from controller.providers.unleash.switch import Switch
from controller.settings import UnleashProviderSettings

FEW_FLAGS = 10
"""So many are read one by one, at once; more with one request for the whole project."""


class Environment(Struct, frozen=True):
    name: str
    enabled: bool
    strategies: tuple[Strategy, ...] = ()


class Feature(Struct, frozen=True):
    name: str
    environments: tuple[Environment, ...]


class Evaluated(Struct, frozen=True):
    data: tuple[Strategy, ...]


class Playing(Struct, frozen=True, rename="camel"):
    """A flag as the playground shows it: the only listing that says what the strategies are."""

    name: str
    is_enabled_in_current_environment: bool
    strategies: Evaluated


class Playground(Struct, frozen=True):
    features: tuple[Playing, ...]


class ResourceLimits(Struct, frozen=True, rename="camel"):
    constraint_values: int = 250


class Configuration(Struct, frozen=True, rename="camel"):
    resource_limits: ResourceLimits = ResourceLimits()


class UnleashProvider:
    def __init__(self, name: str, settings: UnleashProviderSettings, host: Host) -> None:
        """Raises SettingsError. Nothing of the host is needed: everything is Unleash's."""
        self._name = name
        self._settings = settings
        self._admin = Admin(name, settings)
        self._authors = Authors(self._admin, settings.project)
        self._switch = Switch(self._turn_off)
        self._turns: defaultdict[FlagRef, asyncio.Lock] = defaultdict(asyncio.Lock)

    @property
    def limits(self) -> ProviderLimits:
        return ProviderLimits(granularity=PERCENT, audience=True, settle_seconds=self._settings.settle_seconds)

    def start(self) -> None:
        """Nothing runs beside the calls: Unleash tells nobody of changes."""

    async def problems(self, environments: Collection[str]) -> Sequence[str]:
        theirs = [self._environment(one) for one in environments]
        return await rights.problems(self._admin, self._settings.project, theirs)

    async def close(self) -> None:
        await self._admin.close()

    # — reading —

    async def objections(self, plan: RolloutPlan) -> Sequence[str]:
        try:
            shown = await self._read(plan.spec.flag)
            limits = (await self._admin.get("api/admin/ui-config", Configuration)).resource_limits
        except RampartError as error:
            return [str(error)]
        return objections(plan, shown, limits.constraint_values)

    async def observe(self, flags: Collection[FlagRef]) -> Mapping[FlagRef, Observation]:
        by_environment: defaultdict[str, list[FlagRef]] = defaultdict(list)
        for flag in flags:
            by_environment[flag.environment].append(flag)
        parts = await asyncio.gather(*(self._observe_in(*each) for each in by_environment.items()))
        return {flag: observation for part in parts for flag, observation in part.items()}

    async def _observe_in(self, environment: str, flags: Collection[FlagRef]) -> Mapping[FlagRef, Observation]:
        found = await self._look_at(environment, flags)
        shown = {flag.key: one for flag, one in found.items() if isinstance(one, Shown)}
        changes = await self._authors.of(self._environment(environment), shown)

        def observation(flag: FlagRef, one: Shown | Unknown) -> Observation:
            if isinstance(one, Unknown):
                return one
            change = changes[flag.key]
            return replace(one.state(), changed_by=change.by, changed_at=change.at)

        return {flag: observation(flag, one) for flag, one in found.items()}

    async def _look_at(self, environment: str, flags: Collection[FlagRef]) -> Mapping[FlagRef, Shown | Unknown]:
        if len(flags) <= FEW_FLAGS:
            return dict(zip(flags, await asyncio.gather(*map(self._look_at_one, flags)), strict=True))
        try:
            found = await self._list(environment)
        except RampartError as error:
            return dict.fromkeys(flags, Unknown(str(error)))
        return {flag: found.get(flag.key) or Unknown(self._not_here(flag)) for flag in flags}

    async def _look_at_one(self, flag: FlagRef) -> Shown | Unknown:
        try:
            return await self._read(flag)
        except RampartError as error:
            return Unknown(str(error))

    async def _read(self, flag: FlagRef) -> Shown:
        """Raises NotFound, naming the flag; Refused, ProviderUnavailable."""
        try:
            feature = await self._admin.get(self._feature(flag.key), Feature)
        except NotFound as error:
            raise NotFound(f"{self._not_here(flag)}: {error}") from error
        environment = self._environment(flag.environment)
        for one in feature.environments:
            if one.name == environment:
                return Shown(one.enabled, one.strategies)
        raise NotFound(f'the project {self._settings.project} has no environment "{environment}" for {flag}')

    async def _list(self, environment: str) -> Mapping[str, Shown]:
        asked = {
            "environment": self._environment(environment),
            "projects": [self._settings.project],
            "context": {"appName": "rampart"},
        }
        found = await self._admin.search("api/admin/playground", asked, Playground)
        return {
            one.name: Shown(one.is_enabled_in_current_environment, tuple(map(plain, one.strategies.data)))
            for one in found.features
        }

    def _not_here(self, flag: FlagRef) -> str:
        return f"there is no flag {flag.key} in Unleash's project {self._settings.project}"

    # — writing —

    async def apply(self, change: FlagChange) -> None:
        """Reads first, and writes only what differs. Raises Refused also for a flag that is not there."""
        try:
            async with self._turns[change.flag]:
                shown = await self._read(change.flag)
                match change:
                    case SetShare():
                        await self._take(change.flag, steps.towards(shown, *_wanted(change)))
                    case TurnOn():
                        await self._turn_on(change.flag, shown)
        except NotFound as error:
            raise Refused(str(error)) from error

    async def _turn_on(self, flag: FlagRef, shown: Shown) -> None:
        if shown.enabled:
            return
        if all(one.disabled for one in shown.shares):
            # Unleash would give it a strategy of its own that serves everybody.
            raise Refused(f"{flag} has no enabled strategy of ours: it is not turned on without one")
        await self._admin.post(f"{self._environment_of(flag)}/on")

    async def kill(self, kill: FlagKill) -> Sequence[str]:
        """Off first, then nobody through our strategies either, so that turning it on again exposes nobody."""
        try:
            if kill.serve is None or kill.serve.kill == "off":
                await self._switch.off(self._environment(kill.flag.environment), kill.flag.key)
            await self._take(kill.flag, steps.down(await self._read(kill.flag), kill.flag.key))
        except (NotFound, Refused) as error:
            raise ProviderUnavailable(str(error)) from error
        return [self._name]

    async def settle_kill(self, kill: FlagKill) -> None:
        await self.kill(kill)

    async def forget_kill(self, kill: FlagKill) -> None:
        """Nothing is held here: what is off at Unleash stays off."""

    async def _turn_off(self, environment: str, keys: Sequence[str]) -> None:
        if len(keys) == 1:
            await self._admin.post(f"{self._feature(keys[0])}/environments/{environment}/off")
        else:
            path = f"api/admin/projects/{self._settings.project}/bulk_features/environments/{environment}/off"
            await self._admin.post(path, {"features": keys})

    async def _take(self, flag: FlagRef, several: Sequence[Step]) -> None:
        """One after the other. Once something was written, no failure is a refusal of the whole any more."""
        path = f"{self._environment_of(flag)}/strategies"
        for number, step in enumerate(several):
            try:
                await self._step(path, step)
            except (NotFound, Refused, ProviderUnavailable) as error:
                if number == 0:
                    raise
                raise ProviderUnavailable(f"{flag} is only partly written: {error}") from error

    async def _step(self, path: str, step: Step) -> None:
        match step:
            case Create(strategy=strategy):
                await self._admin.post(path, body(strategy))
            case Patch(id=found, operations=operations):
                await self._admin.patch(f"{path}/{found}", operations)
            case Remove(id=found):
                # Not found: somebody else removed it since it was read, which is what we want.
                with suppress(NotFound):
                    await self._admin.delete(f"{path}/{found}")

    # — where things are —

    def _environment(self, ours: str) -> str:
        return self._settings.environments.get(ours, ours)

    def _feature(self, key: str) -> str:
        return f"api/admin/projects/{self._settings.project}/features/{key}"

    def _environment_of(self, flag: FlagRef) -> str:
        return f"{self._feature(flag.key)}/environments/{self._environment(flag.environment)}"


def _wanted(change: SetShare) -> tuple[Strategy, Mapping[str, Strategy]]:
    """Raises Refused for a share that Unleash has no number for."""
    if change.exposure % PERCENT:
        raise Refused(f"{change.flag}: Unleash takes whole percents only")
    key, bucket_by = change.flag.key, change.bucket_by
    rules = {rule.name: rule_strategy(key, bucket_by, rule) for rule in change.audience}
    return share_strategy(key, bucket_by, change.exposure), rules
