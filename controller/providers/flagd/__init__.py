"""flagd: flags in a file of their definitions, which Rampart may also serve over gRPC."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import structlog

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
from controller.errors import ProviderUnavailable, Refused, SettingsError
from controller.providers.flagd.definition import objections, turned_on, with_share
from controller.providers.flagd.environment import Environment
from controller.providers.flagd.file import FlagFile
from controller.providers.flagd.sync import SyncServer
from controller.providers.host import Host
from controller.settings import FlagdProviderSettings

log = structlog.get_logger()

LOOK_SECONDS = 0.5
"""How often a file that is served is looked at for changes of other people."""


class FlagdProvider:
    def __init__(
        self,
        name: str,
        settings: FlagdProviderSettings,
        host: Host,
        *,
        open_file: Callable[[Path], FlagFile] = FlagFile,
    ) -> None:
        """Raises SettingsError."""
        self.name = name
        self._settings = settings
        self._replica = host.replica
        self._board = host.board
        self._environments = {
            one: Environment(open_file(_path(name, path)), self._holding(one))
            for one, path in settings.files.items()
        }
        if not self._environments:
            raise SettingsError(f"providers.{name}.files names no file; write files = {{ production = PATH }}")
        self._sync: SyncServer | None = None
        if settings.sync_bind:
            self._sync = SyncServer(self._environments, settings.sync_bind, may_serve=lambda: self._board.ready)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def limits(self) -> ProviderLimits:
        return ProviderLimits(granularity=1, audience=True, settle_seconds=self._settings.settle_seconds)

    async def objections(self, plan: RolloutPlan) -> Sequence[str]:
        flag = plan.spec.flag
        environment = self._environments.get(flag.environment)
        if environment is None:
            return [self._no_file(flag.environment)]
        try:
            document, _ = await environment.look()
        except ProviderUnavailable as error:
            return [str(error)]
        found = document.flag(flag.key)
        if found is None:
            return [environment.not_here(flag.key)]
        return [f"the flag {flag.key} in {environment.file.path}: {why}" for why in objections(found, plan)]

    async def observe(self, flags: Collection[FlagRef]) -> Mapping[FlagRef, Observation]:
        found: dict[FlagRef, Observation] = {}
        for name in {flag.environment for flag in flags}:
            asked = [flag for flag in flags if flag.environment == name]
            environment = self._environments.get(name)
            if environment is None:
                found |= {flag: Unknown(self._no_file(name)) for flag in asked}
                continue
            states = await environment.observe([flag.key for flag in asked])
            found |= {flag: states[flag.key] for flag in asked}
        return found

    # — writing —

    async def apply(self, change: FlagChange) -> None:
        flag = change.flag
        environment = self._environments.get(flag.environment)
        if environment is None:
            raise Refused(self._no_file(flag.environment))
        match change:
            case SetShare():
                await environment.change(
                    flag.key, lambda found: with_share(found, change), fallback=change.serve.fallback
                )
            case TurnOn():
                await environment.change(flag.key, turned_on)
        log.info("flagd_written", flag=str(flag), comment=change.comment)

    async def kill(self, kill: FlagKill) -> Sequence[str]:
        """Whoever is served over gRPC is served the fallback at once; then the file is written."""
        environment = self._of_kill(kill)
        self._board.hold_down(kill.flag, kill.kill_id, kill.serve)
        environment.hold_down(kill)
        there = await environment.lower(kill)
        return [self._replica] if there else []

    async def settle_kill(self, kill: FlagKill) -> None:
        await self._of_kill(kill).lower(kill)

    async def forget_kill(self, kill: FlagKill) -> None:
        self._board.lift(kill.flag, kill.kill_id)
        self._of_kill(kill).lift(kill)

    def _holding(self, environment: str) -> Callable[[str], Sequence[str]]:
        """The board knows kills sooner than they are pressed on with: those of before a restart."""
        return lambda key: self._board.holds(FlagRef(provider=self.name, environment=environment, key=key))

    def _of_kill(self, kill: FlagKill) -> Environment:
        environment = self._environments.get(kill.flag.environment)
        if environment is None:
            raise ProviderUnavailable(self._no_file(kill.flag.environment), not_applied=True)
        return environment

    def _no_file(self, environment: str) -> str:
        known = ", ".join(self._environments)
        return f"the provider {self.name} has no file for the environment {environment}, it has {known}"

    # — beside the calls —

    def start(self) -> None:
        if self._sync is not None:
            watching = [self._watch(environment, self._sync) for environment in self._environments.values()]
            self._tasks = [asyncio.create_task(work) for work in (self._sync.start(), *watching)]
            for task in self._tasks:
                task.add_done_callback(_ended)

    async def _watch(self, environment: Environment, sync: SyncServer) -> None:
        """Each by itself: a disk that hangs takes none of the others' changes along."""
        said = ""
        while True:
            try:
                await environment.look()
                said = ""
            except ProviderUnavailable as error:
                if str(error) != said:
                    said = str(error)
                    log.warning("flagd_file_not_served", error=said)
            environment.refresh()
            sync.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def problems(self, environments: Collection[str]) -> Sequence[str]:
        found = [self._no_file(name) for name in environments if name not in self._environments]
        for name in sorted(set(environments) & set(self._environments)):
            environment = self._environments[name]
            try:
                await environment.look()
            except ProviderUnavailable as error:
                found.append(str(error))
            if obstacle := await asyncio.to_thread(environment.file.obstacle):
                found.append(f"{environment.file.path}: {obstacle}")
        if self._sync is not None and self._sync.problem:
            found.append(self._sync.problem)
        return found

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._sync is not None:
            await self._sync.close()
        for environment in self._environments.values():
            environment.close()


def _ended(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("flagd_sync_failed", exc_info=error)


def _path(name: str, path: str) -> Path:
    if not path.endswith(".json"):
        raise SettingsError(f"providers.{name}.files: {path} must be a JSON file and end in .json")
    return Path(path).expanduser()
