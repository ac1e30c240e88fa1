"""Cases of the provider contract: the back end fails, and nobody is told what is not so."""

import asyncio

from controller.domain.flag import FlagState, Unknown
from tests.contracts.provider_cases import (
    KILL,
    STAFF,
    Cases,
    attempt,
    attempt_kill,
    bring_to,
    canary,
    is_canary,
    observed,
    off,
    over_faults,
    pressed_on,
    seen,
    share,
    written,
)
from tests.contracts.provider_world import Fault, ProviderWorld

LOOKS = 10
WRITES_FAIL = (Fault.LOST_BEFORE, Fault.LOST_AFTER, Fault.CONFLICT, Fault.GATEWAY)
READS_FAIL = [one for one in Fault if one not in WRITES_FAIL]
MAY_BE_WRITTEN = (Fault.LOST_AFTER, Fault.HALF, Fault.GATEWAY)
TEN_PERCENT = share(10_000, STAFF)


class Failures(Cases):
    @over_faults()
    async def test_a_raise_that_fails_is_not_called_done_and_what_is_called_unwritten_is_not_there(
        self, world: ProviderWorld, fault: Fault
    ) -> None:
        await canary(world)
        before = await world.everything()
        async with world.fault(fault):
            outcome = await attempt(world, TEN_PERCENT)
        if outcome == "unwritten" or fault not in MAY_BE_WRITTEN:
            assert outcome != "done"
            assert await world.everything() == before
        if outcome == "done":
            await seen(world, lambda one: one.exposure == 10_000)

    @over_faults()
    async def test_a_raise_that_failed_can_be_made_again(self, world: ProviderWorld, fault: Fault) -> None:
        await canary(world)
        async with world.fault(fault):
            await attempt(world, TEN_PERCENT)
        await written(world, TEN_PERCENT)
        state = await seen(world, lambda one: one.exposure == 10_000)
        assert (state.enabled, state.audience, state.foreign) == (True, ("staff",), ())

    @over_faults(Fault.LOST_AFTER, Fault.GATEWAY)
    async def test_a_change_whose_answer_was_lost_is_settled_by_reading_back(
        self, world: ProviderWorld, fault: Fault
    ) -> None:
        await canary(world)
        async with world.fault(fault):
            assert await attempt(world, TEN_PERCENT) != "unwritten"
        await seen(world, lambda one: one.exposure == 10_000)

    @over_faults(*READS_FAIL)
    async def test_while_it_cannot_be_read_a_flag_is_unknown_or_as_it_is_and_never_off(
        self, world: ProviderWorld, fault: Fault
    ) -> None:
        await canary(world)
        async with world.fault(fault):
            for _ in range(LOOKS):
                async with asyncio.timeout(world.patience):
                    state = await observed(world.provider)
                assert isinstance(state, Unknown) or is_canary(state), state
        await seen(world, is_canary, seconds=world.patience)

    @over_faults(Fault.DOWN)
    async def test_a_provider_that_starts_while_the_back_end_is_away_knows_nothing(
        self, world: ProviderWorld, fault: Fault
    ) -> None:
        await canary(world)
        async with world.fault(fault), world.another() as newcomer:
            for _ in range(LOOKS):
                async with asyncio.timeout(world.patience):
                    assert isinstance(await observed(newcomer), Unknown)

    @over_faults()
    async def test_a_kill_that_fails_is_confirmed_soon_after_the_fault_is_over(
        self, world: ProviderWorld, fault: Fault
    ) -> None:
        await bring_to(world, "everyone")
        await seen(world, lambda one: one.effective_exposure == 100_000)
        async with world.fault(fault):
            for _ in range(2):
                await attempt_kill(world)
        await pressed_on(world)

    @over_faults()
    async def test_off_is_shown_only_when_it_stays_so_without_another_kill(
        self, world: ProviderWorld, fault: Fault
    ) -> None:
        await bring_to(world, "everyone")
        await seen(world, lambda one: one.effective_exposure == 100_000)
        async with world.fault(fault):
            await attempt_kill(world)
            shown = await observed(world.provider)
        if off(shown):
            async with world.another() as newcomer:
                assert off(await seen(world, off)), "as it was shown"
                await newcomer.kill(KILL)
                assert off(await seen(world, off, by=newcomer))

    @over_faults(Fault.LOST_BEFORE, Fault.DOWN)
    async def test_what_was_never_written_is_not_written_later(self, world: ProviderWorld, fault: Fault) -> None:
        """Nobody in the provider tries a raise again by itself: it would land after a decision to the contrary."""
        await canary(world)
        before = await world.everything()
        async with world.fault(fault):
            await attempt(world, TEN_PERCENT)
        for _ in range(LOOKS):
            state = await observed(world.provider)
            assert not isinstance(state, FlagState) or is_canary(state)
            await asyncio.sleep(world.patience / LOOKS / 4)
        assert await world.everything() == before
