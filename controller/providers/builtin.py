"""The built-in provider: flags in the store, shown to SDKs by the board, killed on the board alone."""

from collections.abc import Collection, Mapping, Sequence

from controller.domain.catalogue import FlagConfig
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
from controller.domain.sdkflag import killed, state_of, turned_on, with_share
from controller.errors import Conflict, ProviderUnavailable, Refused, StoreUnavailable
from controller.providers.host import Host
from controller.settings import BuiltinProviderSettings


class BuiltinProvider:
    def __init__(self, name: str, settings: BuiltinProviderSettings, host: Host) -> None:
        self.name = name
        self._settings = settings
        self._store = host.store
        self._board = host.board
        self._replica = host.replica

    @property
    def limits(self) -> ProviderLimits:
        return ProviderLimits(granularity=1, audience=True, settle_seconds=self._settings.settle_seconds)

    async def objections(self, plan: RolloutPlan) -> Sequence[str]:
        flag, serve = plan.spec.flag, plan.spec.serve
        config = self._board.stored(flag)
        if config is None or config.archived:
            return [self._not_here(flag)]
        names = list(config.variations)
        wrong = [name for name in (serve.rollout, serve.fallback) if name not in names]
        if wrong:
            has = ", ".join(names)
            return [f'the flag {flag.key} has no variation "{name}", it has {has}' for name in wrong]
        return _off_objections(config, plan)

    async def observe(self, flags: Collection[FlagRef]) -> Mapping[FlagRef, Observation]:
        return {flag: self._observation(flag) for flag in flags}

    def _observation(self, flag: FlagRef) -> Observation:
        config = self._board.shown(flag)
        # Shown or not, before everything is loaded a kill may still be missing from what we see.
        if config is None or not self._board.ready:
            return Unknown(self._not_here(flag))
        return state_of(config)

    def _not_here(self, flag: FlagRef) -> str:
        if not self._board.ready:
            return "the built-in flags are not loaded yet; try again"
        return f"there is no built-in flag {flag.key} in {flag.environment}; make it with `rampart flag create`"

    # — writing —

    async def apply(self, change: FlagChange) -> None:
        """Raises Refused while a kill holds the flag, and when the flag cannot be so. Tries once."""
        if held_by := self._board.holds(change.flag):
            raise Refused(f"{change.flag} is killed", blocks=[f"{kill_id} is in force" for kill_id in held_by])
        config = await self._stored(change.flag)
        if config is None:
            raise Refused(self._not_here(change.flag))
        await self._save(change.flag, _changed(config, change, self._version_above(config, change.flag)))

    async def settle_kill(self, kill: FlagKill) -> None:
        """What is stored becomes killed while the kill still holds, so that nothing of before shows after it.

        Written even if it looks killed: the new version shuts out a raise that is still on its way to the store.
        """
        config = await self._stored(kill.flag)
        if config is not None:
            leave_on = kill.serve is not None and kill.serve.kill == "fallthrough"
            await self._save(kill.flag, killed(config, self._version_above(config, kill.flag), leave_on=leave_on))

    async def forget_kill(self, kill: FlagKill) -> None:
        """Reads what was settled first: what this replica knew of the flag may be older than the kill."""
        config = await self._stored(kill.flag)
        if config is not None:
            self._board.put(config)
        self._board.lift(kill.flag, kill.kill_id)

    def _version_above(self, config: FlagConfig, flag: FlagRef) -> int:
        return max(self._board.next_version(flag), config.version + 1)

    async def _stored(self, flag: FlagRef) -> FlagConfig | None:
        try:
            config = await self._store.flag_config(flag.environment, flag.key)
        except StoreUnavailable as error:
            raise ProviderUnavailable(f"cannot read {flag}: {error}", not_applied=True) from error
        return None if config is None or config.archived else config

    async def _save(self, flag: FlagRef, config: FlagConfig) -> None:
        # A version is served only once no later process can issue it again.
        if not await self._board.versions.secure():
            raise ProviderUnavailable("the local journal cannot be written; free its disk", not_applied=True)
        try:
            await self._store.save_flag_config(config)
        except Conflict as error:
            raise ProviderUnavailable(f"{flag} was changed meanwhile: {error}", not_applied=True) from error
        except StoreUnavailable as error:
            raise ProviderUnavailable(f"whether {flag} was written is unknown: {error}") from error
        self._board.put(config)

    # — killing —

    async def kill(self, kill: FlagKill) -> Sequence[str]:
        """On the board only: no store, no disk, no waiting. While the flag is not on it nobody is reached."""
        self._board.hold_down(kill.flag, kill.kill_id, kill.serve)
        return [self._replica] if self._board.shown(kill.flag) is not None else []

    def start(self) -> None:
        """The board is filled by whoever made it."""

    async def problems(self, environments: Collection[str]) -> Sequence[str]:
        return [] if self._board.ready else ["the built-in flags are not loaded yet; try again"]

    async def close(self) -> None:
        """Nothing is held open: store and board belong to whoever made them."""


def _changed(config: FlagConfig, change: FlagChange, version: int) -> FlagConfig:
    match change:
        case SetShare():
            try:
                return with_share(config, change, version)
            except ValueError as error:
                raise Refused(str(error)) from error
        case TurnOn():
            return turned_on(config, version)


def _off_objections(config: FlagConfig, plan: RolloutPlan) -> list[str]:
    serve = plan.spec.serve
    off = state_of(config).off_serves
    objections = []
    if serve.rollout == serve.fallback:
        objections.append(f'serve: rollout and fallback are both "{serve.rollout}"')
    if serve.fallback != off:
        objections.append(
            f'the flag {config.key} serves "{off}" when it is off, the plan\'s fallback is "{serve.fallback}"'
        )
    return objections
