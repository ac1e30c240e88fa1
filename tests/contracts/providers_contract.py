"""What every flag provider promises. Subclass, give it a `world`, and it runs on the new one."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest
from msgspec.structs import replace

from controller.domain.flag import FlagKill, FlagState, Observation, SetShare, TurnOn, Unknown
from controller.domain.plan import AttributeMatch, AudienceRule
from controller.errors import RampartError
from tests.contracts.provider_world import FLAG, SERVE, Beyond, ProviderWorld
from tests.support.rollouts import make_plan

STAFF = AudienceRule(name="staff", match={"email": AttributeMatch(ends_with="@acme.example")})
BETA = AudienceRule(name="beta", match={"plan": AttributeMatch(in_=["beta"])})
STATES = ["fresh", "weighted", "canary", "everyone", "stepped_back"]


def share(exposure: int, *audience: AudienceRule) -> SetShare:
    return SetShare(
        flag=FLAG, serve=SERVE, exposure=exposure, audience=audience, bucket_by="user", comment="contract"
    )


TURN_ON = TurnOn(flag=FLAG, comment="contract")
KILL = FlagKill(flag=FLAG, kill_id="kill-1", serve=SERVE, comment="contract")


async def seen(world: ProviderWorld, wanted: Callable[[FlagState], bool] = lambda _: True) -> FlagState:
    """What the provider shows, as soon as it is as wanted, and at the latest when it says it has settled."""
    async with asyncio.timeout(world.provider.limits.settle_seconds):
        while True:
            state = (await world.provider.observe([FLAG]))[FLAG]
            if isinstance(state, FlagState) and wanted(state):
                return state
            await asyncio.sleep(0.01)


async def bring_to(world: ProviderWorld, state: str) -> None:
    apply = world.provider.apply
    if state == "fresh":
        return
    await apply(share(1_000, STAFF))
    if state == "weighted":
        return
    await apply(TURN_ON)
    if state == "everyone":
        await apply(share(100_000, STAFF, BETA))
    elif state == "stepped_back":
        await apply(share(0))


class ProviderContract:
    """`kind`: the settings of the kind under test. `cannot`: what its back end has not got, and why."""

    kind: ClassVar[type[Any]]
    cannot: ClassVar[Mapping[Beyond, str]] = {}

    async def test_what_was_applied_is_observed(self, world: ProviderWorld) -> None:
        await world.provider.apply(share(1_000, STAFF, BETA))
        state = await seen(world, lambda one: one.exposure == 1_000)
        assert (state.enabled, set(state.audience), state.off_serves) == (False, {"staff", "beta"}, "off")
        await world.provider.apply(TURN_ON)
        state = await seen(world, lambda one: one.enabled)
        assert (state.effective_exposure, state.foreign) == (1_000, ())

    @pytest.mark.parametrize("exposure", [0, 100, 1_000, 50_000, 100_000])
    async def test_every_exposure_within_its_granularity_reads_back_exactly(
        self, world: ProviderWorld, exposure: int
    ) -> None:
        granularity = world.provider.limits.granularity
        representable = -(-exposure // granularity) * granularity
        await world.provider.apply(share(representable))
        await seen(world, lambda one: one.exposure == representable)

    async def test_applying_again_changes_nothing(self, world: ProviderWorld) -> None:
        await bring_to(world, "canary")
        before = await seen(world, lambda one: one.enabled)
        for _ in range(2):
            await world.provider.apply(share(1_000, STAFF))
            await world.provider.apply(TURN_ON)
        after = await seen(world)
        assert replace(after, version=0) == replace(before, version=0)

    async def test_a_share_is_absolute(self, world: ProviderWorld) -> None:
        await bring_to(world, "everyone")
        await world.provider.apply(share(10_000, BETA))
        state = await seen(world, lambda one: one.exposure == 10_000)
        assert (state.enabled, state.audience) == (True, ("beta",))

    async def test_an_unknown_flag_is_unknown_and_not_off(self, world: ProviderWorld) -> None:
        missing = replace(FLAG, key="nobody-made-this")
        observed = await world.provider.observe([missing, FLAG])
        assert set(observed) == {missing, FLAG}
        assert isinstance(observed[missing], Unknown)
        assert isinstance(observed[FLAG], FlagState)

    async def test_an_unknown_flag_cannot_be_raised(self, world: ProviderWorld) -> None:
        with pytest.raises(RampartError, match="nobody-made-this"):
            await world.provider.apply(replace(share(1_000), flag=replace(FLAG, key="nobody-made-this")))

    @pytest.mark.parametrize("state", STATES)
    async def test_a_kill_leaves_nobody_exposed(self, world: ProviderWorld, state: str) -> None:
        await bring_to(world, state)
        for _ in range(2):
            assert await world.provider.kill(KILL), "it names whom it reached"
            killed = await seen(world, lambda one: not one.enabled)
            assert (killed.exposure, killed.audience, killed.off_serves) == (0, (), "off")

    async def test_a_raise_that_lands_after_the_kill_leaves_it_off(self, world: ProviderWorld) -> None:
        await bring_to(world, "canary")
        async with world.held_write() as held:
            raising = asyncio.create_task(world.provider.apply(share(100_000, STAFF)))
            await held.reached.wait()
            await world.provider.kill(KILL)
            held.let_go.set()
            await asyncio.gather(raising, return_exceptions=True)
        # The killer presses on after every write that was in flight.
        await world.provider.kill(KILL)
        assert off(await seen(world, off))

    async def test_a_released_kill_leaves_the_flag_off_until_it_is_turned_on(self, world: ProviderWorld) -> None:
        await bring_to(world, "everyone")
        await world.provider.kill(KILL)
        await world.provider.settle_kill(KILL)
        assert off(await seen(world, off))
        await world.provider.forget_kill(KILL)
        assert off(await seen(world, off))
        await bring_to(world, "canary")
        state = await seen(world, lambda one: one.enabled)
        assert (state.exposure, state.audience) == (1_000, ("staff",))

    async def test_forgetting_a_kill_late_leaves_what_rose_since_as_it_is(self, world: ProviderWorld) -> None:
        """A replica that was away when another reset the kill, and a new run began."""
        await bring_to(world, "everyone")
        await world.provider.kill(KILL)
        await world.provider.settle_kill(KILL)
        await world.provider.forget_kill(KILL)
        await bring_to(world, "canary")
        before = await seen(world, lambda one: one.enabled)
        await world.provider.forget_kill(KILL)
        assert await seen(world, lambda one: one.enabled) == before

    async def test_a_kill_that_was_settled_still_holds_the_flag_down(self, world: ProviderWorld) -> None:
        """Its reset was lost on the way to the database: settling is no release."""
        await bring_to(world, "everyone")
        await world.provider.kill(KILL)
        await world.provider.settle_kill(KILL)
        await asyncio.gather(bring_to(world, "canary"), return_exceptions=True)
        await world.provider.kill(KILL)
        assert off(await seen(world, off))

    async def test_releasing_one_kill_does_not_lift_another(self, world: ProviderWorld) -> None:
        await bring_to(world, "everyone")
        await world.provider.kill(KILL)
        await world.provider.kill(replace(KILL, kill_id="kill-2"))
        await world.provider.settle_kill(KILL)
        await world.provider.forget_kill(KILL)
        assert off(await seen(world, off))

    async def test_a_plan_that_fits_meets_no_objection(self, world: ProviderWorld) -> None:
        assert list(await world.provider.objections(make_plan())) == []

    async def test_a_plan_that_does_not_fit_is_told_why(self, world: ProviderWorld) -> None:
        swapped = make_plan(serve={"rollout": "off", "fallback": "on"})
        stranger = make_plan(serve={"rollout": "green", "fallback": "off"})
        missing = make_plan(flag={"key": "nobody-made-this"})
        for plan, word in ((swapped, "off"), (stranger, "green"), (missing, "nobody-made-this")):
            objections = await world.provider.objections(plan)
            assert objections
            assert word in " ".join(objections)


def off(state: Observation) -> bool:
    return isinstance(state, FlagState) and not state.enabled and state.exposure == 0 and not state.audience
