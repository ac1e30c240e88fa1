"""What every flag provider promises. Subclass, give it a `world`, and it runs on the new one."""

import asyncio

import pytest
from msgspec.structs import replace

from controller.domain.flag import FlagState, Unknown
from controller.domain.plan import AttributeMatch
from controller.errors import RampartError
from tests.contracts.provider_cases import (
    BETA,
    KILL,
    OFF_STATES,
    STAFF,
    STATES,
    TURN_ON,
    bring_to,
    canary,
    is_canary,
    off,
    seen,
    share,
)
from tests.contracts.provider_edits import Edits
from tests.contracts.provider_failures import Failures
from tests.contracts.provider_rollouts import Rollouts
from tests.contracts.provider_world import FLAG, SERVE, ProviderWorld
from tests.support.rollouts import make_plan


class ProviderContract(Failures, Edits, Rollouts):
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
        when = {"version": 0, "changed_at": None, "delivered_seconds": None}
        assert replace(after, **when) == replace(before, **when)

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

    async def test_audience_rules_come_and_go_and_are_never_there_twice(self, world: ProviderWorld) -> None:
        await bring_to(world, "canary")
        moved = replace(STAFF, match={"email": AttributeMatch(ends_with="@acme.test")})
        for audience in ((STAFF, BETA), (BETA,), (moved,), (STAFF,), ()):
            for _ in range(2):
                await world.provider.apply(share(1_000, *audience))
            names = sorted(rule.name for rule in audience)
            state = await seen(world, lambda one: sorted(one.audience) == names)  # noqa: B023
            assert (state.enabled, state.exposure, state.foreign) == (True, 1_000, ())

    async def test_an_audience_rule_that_changed_is_written_anew(self, world: ProviderWorld) -> None:
        await canary(world)
        before = await world.everything()
        moved = replace(STAFF, match={"email": AttributeMatch(ends_with="@acme.test")})
        await world.provider.apply(share(1_000, moved))
        await seen(world, is_canary)
        assert await world.everything() != before

    async def test_who_is_in_a_share_is_decided_the_same_way_at_every_step(self, world: ProviderWorld) -> None:
        await bring_to(world, "weighted")
        bucketing = (await seen(world, lambda one: one.exposure == 1_000)).bucketing
        assert bucketing
        await world.provider.apply(TURN_ON)
        assert (await seen(world, is_canary)).bucketing == bucketing
        for exposure in (50_000, 100_000, 10_000, 0):
            await world.provider.apply(share(exposure, STAFF))
            state = await seen(world, lambda one: one.exposure == exposure)  # noqa: B023
            assert state.bucketing == bucketing

    async def test_of_two_shares_at_the_same_time_one_is_there(self, world: ProviderWorld) -> None:
        await bring_to(world, "canary")
        steps = (share(10_000, STAFF), share(50_000, BETA))
        await asyncio.gather(*(world.provider.apply(one) for one in steps), return_exceptions=True)
        state = await seen(world, lambda one: one.exposure != 1_000)
        assert (state.exposure, state.audience) in ((10_000, ("staff",)), (50_000, ("beta",)))

    async def test_looking_writes_nothing(self, world: ProviderWorld) -> None:
        await canary(world)
        before = await world.everything()
        for _ in range(3):
            await world.provider.observe([FLAG, replace(FLAG, key="nobody-made-this")])
            await world.provider.objections(make_plan())
            await world.provider.objections(make_plan(mode="observe"))
        assert await world.everything() == before

    async def test_a_provider_that_just_started_shows_what_another_wrote(self, world: ProviderWorld) -> None:
        before = await canary(world)
        async with world.another() as newcomer:
            state = await seen(world, is_canary, by=newcomer, seconds=world.patience)
            assert (state.bucketing, state.foreign) == (before.bucketing, ())

    async def test_a_provider_that_just_started_can_kill(self, world: ProviderWorld) -> None:
        """It has read nothing yet: neither ids nor what to lower."""
        await bring_to(world, "everyone")
        async with world.another() as newcomer:
            assert await newcomer.kill(KILL)
            assert off(await seen(world, off, by=newcomer, seconds=world.patience))

    async def test_a_kill_needs_no_plan(self, world: ProviderWorld) -> None:
        await bring_to(world, "everyone")
        assert await world.provider.kill(replace(KILL, serve=None))
        assert off(await seen(world, off))

    @pytest.mark.parametrize("state", STATES)
    async def test_a_kill_that_may_leave_the_flag_on_leaves_nobody_exposed(
        self, world: ProviderWorld, state: str
    ) -> None:
        await bring_to(world, state)
        gentle = replace(KILL, serve=replace(SERVE, kill="fallthrough"))
        for _ in range(2):
            assert await world.provider.kill(gentle)
            killed = await seen(world, lambda one: one.exposure == 0 and not one.audience)
            if state in OFF_STATES:
                assert not killed.enabled, "a kill turns nothing on"
