"""Cases of the provider contract: people change the flag beside us."""

from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from controller.domain.flag import FlagState, Unknown
from tests.contracts.provider_cases import (
    KILL,
    STAFF,
    Cases,
    attempt,
    attempt_kill,
    bring_to,
    canary,
    exposes_nobody,
    needs,
    observed,
    off,
    over_edits,
    pressed_on,
    seen,
    share,
    unknown,
)
from tests.contracts.provider_world import PERSON, SERVE, Edit, Knowledge, ProviderWorld
from tests.support.rollouts import make_plan

SEEN_EDITS = (Edit.RAISED, Edit.TURNED_OFF, Edit.SECOND_RULE, Edit.SWAPPED)
CLOCKS_DIFFER = timedelta(seconds=5)


def shows(edit: Edit, before: FlagState, now: FlagState) -> bool:
    """Whether what a person did is in what the provider shows."""
    match edit:
        case Edit.RAISED:
            return now.exposure == 50_000
        case Edit.TURNED_ON:
            return now.enabled
        case Edit.TURNED_OFF:
            return not now.enabled
        case Edit.SECOND_RULE:
            return len(now.foreign) > len(before.foreign)
        case Edit.SWAPPED:
            return now.bucketing != before.bucketing
        case Edit.ARCHIVED | Edit.RENAMED:
            raise AssertionError("then nothing is known of the flag")


class Edits(Cases):
    @over_edits(*SEEN_EDITS)
    async def test_what_a_person_changes_is_shown(self, world: ProviderWorld, edit: Edit) -> None:
        before = await canary(world)
        await world.edit(edit)
        state = await seen(world, lambda one: shows(edit, before, one), seconds=world.patience)
        if edit is not Edit.TURNED_OFF:
            assert state.enabled
        if edit is not Edit.RAISED:
            assert state.exposure in (1_000, 0)

    @needs(Edit.TURNED_ON)
    async def test_a_flag_that_a_person_turns_on_is_shown_as_on(self, world: ProviderWorld) -> None:
        await bring_to(world, "weighted")
        await seen(world, lambda one: one.exposure == 1_000)
        await world.edit(Edit.TURNED_ON)
        await seen(world, lambda one: one.enabled, seconds=world.patience)

    @needs(Knowledge.WHO)
    @over_edits(*SEEN_EDITS)
    async def test_who_changed_it_is_told(self, world: ProviderWorld, edit: Edit) -> None:
        before = await canary(world)
        assert PERSON not in before.changed_by
        await world.edit(edit)
        await seen(
            world, lambda one: shows(edit, before, one) and PERSON in one.changed_by, seconds=world.patience
        )

    @needs(Knowledge.WHEN)
    @over_edits(*SEEN_EDITS)
    async def test_when_it_was_changed_is_told(self, world: ProviderWorld, edit: Edit) -> None:
        before = await canary(world)
        earliest = datetime.now(UTC) - CLOCKS_DIFFER

        def told(state: FlagState) -> bool:
            at = state.changed_at
            return (
                shows(edit, before, state) and at is not None and earliest < at < datetime.now(UTC) + CLOCKS_DIFFER
            )

        await world.edit(edit)
        await seen(world, told, seconds=world.patience)

    @over_edits(Edit.ARCHIVED, Edit.RENAMED)
    async def test_a_flag_that_is_gone_is_unknown_and_cannot_be_raised(
        self, world: ProviderWorld, edit: Edit
    ) -> None:
        await canary(world)
        await world.edit(edit)
        assert (await unknown(world)).why
        before = await world.everything()
        assert await attempt(world, share(10_000, STAFF)) != "done"
        assert await world.everything() == before
        assert isinstance(await observed(world.provider), Unknown)

    @over_edits(Edit.ARCHIVED, Edit.RENAMED)
    async def test_a_kill_of_a_flag_that_is_gone_is_never_shown_as_off(
        self, world: ProviderWorld, edit: Edit
    ) -> None:
        await canary(world)
        await world.edit(edit)
        await unknown(world)
        for _ in range(2):
            await attempt_kill(world)
            assert isinstance(await observed(world.provider), Unknown)

    @over_edits(Edit.ARCHIVED, Edit.RENAMED)
    async def test_a_plan_for_a_flag_that_is_gone_is_told_why(self, world: ProviderWorld, edit: Edit) -> None:
        await world.edit(edit)
        await unknown(world)
        assert await world.provider.objections(make_plan())

    # — what is not ours —

    @needs(Edit.SECOND_RULE)
    async def test_what_is_not_ours_is_left_alone_by_every_step(self, world: ProviderWorld) -> None:
        await canary(world)
        await world.edit(Edit.SECOND_RULE)
        foreign = (await seen(world, lambda one: bool(one.foreign), seconds=world.patience)).foreign
        for exposure in (10_000, 0, 100_000):
            await world.provider.apply(share(exposure, STAFF))
            state = await seen(world, lambda one: one.exposure == exposure)  # noqa: B023
            assert (state.foreign, state.audience) == (foreign, ("staff",))

    @needs(Edit.SECOND_RULE)
    async def test_a_kill_turns_the_flag_off_whatever_else_is_in_it(self, world: ProviderWorld) -> None:
        await canary(world)
        await world.edit(Edit.SECOND_RULE)
        await seen(world, lambda one: bool(one.foreign), seconds=world.patience)
        await world.provider.kill(KILL)
        assert off(await seen(world, off))

    @needs(Edit.SECOND_RULE)
    async def test_a_kill_may_leave_on_what_is_not_ours(self, world: ProviderWorld) -> None:
        await canary(world)
        await world.edit(Edit.SECOND_RULE)
        foreign = (await seen(world, lambda one: bool(one.foreign), seconds=world.patience)).foreign
        gentle = replace(KILL, serve=replace(SERVE, kill="fallthrough"))
        for _ in range(2):
            assert await world.provider.kill(gentle)
            state = await seen(world, exposes_nobody)
            assert (state.enabled, state.exposure, state.audience) == (True, 0, ())
            assert state.foreign == foreign

    # — after a kill —

    @needs(Edit.TURNED_ON)
    async def test_a_flag_that_is_turned_on_after_a_kill_exposes_nobody_and_is_lowered_again(
        self, world: ProviderWorld
    ) -> None:
        await bring_to(world, "everyone")
        await pressed_on(world)
        await world.edit(Edit.TURNED_ON)
        if Knowledge.COME_BACK not in self.cannot:
            await seen(world, lambda one: one.enabled, seconds=world.patience)
        assert exposes_nobody(await seen(world))
        await pressed_on(world)

    @needs(Edit.TURNED_ON, Edit.RAISED)
    async def test_what_is_raised_after_a_kill_is_lowered_again(self, world: ProviderWorld) -> None:
        await bring_to(world, "everyone")
        await pressed_on(world)
        await world.edit(Edit.TURNED_ON)
        await world.edit(Edit.RAISED)
        await pressed_on(world)
        # Nothing of it comes back when the kill is released.
        await world.provider.settle_kill(KILL)
        await world.provider.forget_kill(KILL)
        assert off(await seen(world, off))
