"""What the cases of the provider contract share: the flag's ways, and which cases a back end takes part in."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

import pytest

from controller.domain.flag import FlagChange, FlagKill, FlagState, Observation, SetShare, TurnOn, Unknown
from controller.domain.plan import AttributeMatch, AudienceRule
from controller.errors import NotAsked, ProviderUnavailable, Refused
from controller.ports import FlagProvider
from tests.contracts.provider_world import FLAG, SERVE, Beyond, Edit, Fault, ProviderWorld

STAFF = AudienceRule(name="staff", match={"email": AttributeMatch(ends_with="@acme.example")})
BETA = AudienceRule(name="beta", match={"plan": AttributeMatch(in_=["beta"])})
OFF_STATES = ["fresh", "weighted"]
STATES = [*OFF_STATES, "canary", "everyone", "stepped_back"]
EVERY_SECONDS = 0.02
"""How often a test looks for what it waits for."""
TRIES = 5
PRESSED_EVERY_SECONDS = 0.25
"""How often a kill that is not confirmed is sent again; the killer begins with as much."""

Outcome = Literal["done", "unknown", "unwritten"]
Case = TypeVar("Case", bound=Callable[..., Any])


def share(exposure: int, *audience: AudienceRule) -> SetShare:
    return SetShare(
        flag=FLAG, serve=SERVE, exposure=exposure, audience=audience, bucket_by="user", comment="contract"
    )


TURN_ON = TurnOn(flag=FLAG, comment="contract")
KILL = FlagKill(flag=FLAG, kill_id="kill-1", serve=SERVE, comment="contract")


# — which cases a back end takes part in —


class Over(NamedTuple):
    """A case runs once for each of these that the back end can have."""

    argument: str
    values: Sequence[Beyond]


def over_faults(*faults: Fault) -> Callable[[Case], Case]:
    """The case's argument `fault` is each of these that the world can have; all, when none is named."""
    return _marked("over", Over("fault", faults or tuple(Fault)))


def over_edits(*edits: Edit) -> Callable[[Case], Case]:
    """The same of `edit`."""
    return _marked("over", Over("edit", edits))


def needs(*beyond: Beyond) -> Callable[[Case], Case]:
    """The case is about this, and not run on a back end that has not got it."""
    return _marked("needs", beyond)


def _marked(attribute: str, value: object) -> Callable[[Case], Case]:
    def mark(case: Case) -> Case:
        setattr(case, attribute, value)
        return case

    return mark


class Cases:
    """`kind`: the settings of the kind under test. `cannot`: what its back end has not got, and why."""

    kind: ClassVar[type[Any]]
    cannot: ClassVar[Mapping[Beyond, str]] = {}

    def __init_subclass__(cls) -> None:
        """Takes out what does not apply, so that a case is run or is not there, and never skipped."""
        super().__init_subclass__()
        for name in dir(cls):
            if name.startswith("test_") and _missing(getattr(cls, name), cls.cannot):
                setattr(cls, name, None)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        over: Over | None = getattr(metafunc.function, "over", None)
        if over is not None:
            metafunc.parametrize(over.argument, [one for one in over.values if one not in self.cannot])


def _missing(case: Any, cannot: Mapping[Beyond, str]) -> bool:
    over: Over | None = getattr(case, "over", None)
    if any(one in cannot for one in getattr(case, "needs", ())):
        return True
    return over is not None and all(one in cannot for one in over.values)


# — acting and looking —


async def observed(provider: FlagProvider) -> Observation:
    return (await provider.observe([FLAG]))[FLAG]


async def seen(
    world: ProviderWorld,
    wanted: Callable[[FlagState], bool] = lambda _: True,
    *,
    by: FlagProvider | None = None,
    seconds: float | None = None,
) -> FlagState:
    """What the provider shows, as soon as it is as wanted, and at the latest when it says it has settled.

    Or after `seconds`: what came about beside our own writes has the world's patience.
    """
    provider = by or world.provider
    deadline = time.monotonic() + (provider.limits.settle_seconds if seconds is None else seconds)
    while True:
        state = await observed(provider)
        if isinstance(state, FlagState) and wanted(state):
            return state
        assert time.monotonic() < deadline, f"in vain; the provider shows {state}"
        await asyncio.sleep(EVERY_SECONDS)


async def unknown(world: ProviderWorld) -> Unknown:
    """The provider noticed that it knows nothing of the flag."""
    deadline = time.monotonic() + world.patience
    while True:
        state = await observed(world.provider)
        if isinstance(state, Unknown):
            return state
        assert time.monotonic() < deadline, f"in vain; the provider shows {state}"
        await asyncio.sleep(EVERY_SECONDS)


async def bring_to(world: ProviderWorld, state: str) -> None:
    if state == "fresh":
        return
    await _applied(world, share(1_000, STAFF))
    if state == "weighted":
        return
    await _applied(world, TURN_ON)
    if state == "everyone":
        await _applied(world, share(100_000, STAFF, BETA))
    elif state == "stepped_back":
        await _applied(world, share(0))


async def _applied(world: ProviderWorld, change: FlagChange) -> None:
    """On the way to what a case is about: a machine that is slow for a moment is not its subject."""
    for _ in range(TRIES - 1):
        try:
            return await world.provider.apply(change)
        except ProviderUnavailable:
            await asyncio.sleep(EVERY_SECONDS)
    return await world.provider.apply(change)


async def canary(world: ProviderWorld) -> FlagState:
    """On, 1 % and staff; read back."""
    await bring_to(world, "canary")
    return await seen(world, is_canary)


async def attempt(world: ProviderWorld, change: FlagChange) -> Outcome:
    """One write as the engine makes it: its own deadline counts as an unknown outcome."""
    return await _outcome(world, world.provider.apply(change), (ProviderUnavailable, NotAsked, Refused))


async def attempt_kill(world: ProviderWorld, kill: FlagKill = KILL) -> Outcome:
    """A kill may fail in one way only: whoever presses on would be stopped by any other."""
    return await _outcome(world, world.provider.kill(kill), (ProviderUnavailable,))


async def _outcome(
    world: ProviderWorld, write: Awaitable[object], expected: tuple[type[Exception], ...]
) -> Outcome:
    try:
        async with asyncio.timeout(world.patience):
            await write
    except expected as error:
        if isinstance(error, ProviderUnavailable) and not error.not_applied:
            return "unknown"
        return "unwritten"
    except TimeoutError:
        return "unknown"
    return "done"


async def pressed_on(world: ProviderWorld, kill: FlagKill = KILL) -> FlagState:
    """The kill is sent again and again until the flag is read back as off; so soon that people may wait for it."""
    deadline = time.monotonic() + world.patience
    while True:
        await attempt_kill(world, kill)
        state = await observed(world.provider)
        if isinstance(state, FlagState) and off(state):
            return state
        assert time.monotonic() < deadline, f"not off in time; the provider shows {state}"
        await asyncio.sleep(PRESSED_EVERY_SECONDS)


async def written(world: ProviderWorld, change: FlagChange) -> None:
    """Sent until it is taken, as an engine does that applies again what it does not see."""
    deadline = time.monotonic() + world.patience
    while await attempt(world, change) != "done":
        assert time.monotonic() < deadline, "not taken in time"
        await asyncio.sleep(EVERY_SECONDS)


def is_canary(state: FlagState) -> bool:
    return (state.enabled, state.exposure, state.audience) == (True, 1_000, ("staff",))


def off(state: Observation) -> bool:
    return isinstance(state, FlagState) and not state.enabled and state.exposure == 0 and not state.audience


def exposes_nobody(state: FlagState) -> bool:
    return not state.enabled or (state.exposure == 0 and not state.audience)
