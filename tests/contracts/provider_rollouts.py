"""Cases of the provider contract: the whole engine drives the flag, and people change it meanwhile."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from controller.domain.flag import FlagChange, FlagKill, FlagState, Observation, ProviderLimits, SetShare, TurnOn
from controller.domain.plan import FlagRef, RolloutPlan
from controller.domain.rollout import Run
from controller.ports import FlagProvider
from tests.contracts.provider_cases import (
    Cases,
    canary,
    needs,
    observed,
    off,
    over_edits,
    over_faults,
    seen,
    unknown,
)
from tests.contracts.provider_edits import SEEN_EDITS, shows
from tests.contracts.provider_world import FLAG, PERSON, Edit, Fault, Knowledge, ProviderWorld
from tests.support.engine import DANA, World
from tests.support.rollouts import make_plan, make_policy

POLL_SECONDS = 15.0
EVERY_SECONDS = 0.02
STAGES = [1_000, 10_000, 50_000, 100_000]
ROLLOUT_SECONDS = 20.0
"""How long a rollout may take here, of real time: its bakes are leapt over."""


def quick_plan(**spec: Any) -> RolloutPlan:
    stages = [
        {"name": "canary", "exposure": "1%", "bake": "1m"},
        {"name": "early", "exposure": "10%", "bake": "1m"},
        {"name": "half", "exposure": "50%", "bake": "1m"},
        {"name": "everyone", "exposure": "100%", "bake": "1m"},
    ]
    return make_plan(stages=stages, **spec)


class Recorded:
    """The provider, and all that the engine wrote to it."""

    def __init__(self, provider: FlagProvider) -> None:
        self._provider = provider
        self.writes: list[FlagChange | FlagKill] = []

    @property
    def limits(self) -> ProviderLimits:
        return self._provider.limits

    async def objections(self, plan: RolloutPlan) -> Sequence[str]:
        return await self._provider.objections(plan)

    async def observe(self, flags: Collection[FlagRef]) -> Mapping[FlagRef, Observation]:
        return await self._provider.observe(flags)

    async def apply(self, change: FlagChange) -> None:
        self.writes.append(change)
        await self._provider.apply(change)

    async def kill(self, kill: FlagKill) -> Sequence[str]:
        self.writes.append(kill)
        return await self._provider.kill(kill)

    async def settle_kill(self, kill: FlagKill) -> None:
        await self._provider.settle_kill(kill)

    async def forget_kill(self, kill: FlagKill) -> None:
        await self._provider.forget_kill(kill)

    async def close(self) -> None:
        """The world closes it."""

    def raises_above(self, exposure: int) -> list[FlagChange | FlagKill]:
        return [
            one
            for one in self.writes
            if isinstance(one, TurnOn) or (isinstance(one, SetShare) and one.exposure > exposure)
        ]


class Engine(World):
    """The unchanged engine on a real provider. Its clock follows real time, and leaps while a stage bakes."""

    def __init__(self, folder: Path, provider: FlagProvider) -> None:
        super().__init__(folder)
        self.recorded = Recorded(provider)
        self.providers["main"] = self.recorded
        self.journal.close()
        self.restart()

    async def looks(self, *, after: float = EVERY_SECONDS) -> Run:
        """Exactly one tick, so many seconds later."""
        self.clock.elapsed += after / 2
        await self.reconciler.renew()
        self.clock.elapsed += after / 2
        self.make_due((await self.run()).id)
        await self.tick()
        return await self.run()

    async def goes_on(self, until: Callable[[Run], bool], *, seconds: float = ROLLOUT_SECONDS) -> Run:
        deadline = time.monotonic() + seconds
        run = await self.run()
        while not until(run):
            assert time.monotonic() < deadline, f"in vain: {run}"
            if not run.confirmed or run.phase == "pending":
                await asyncio.sleep(EVERY_SECONDS)
                run = await self.looks()
            else:
                run = await self.looks(after=POLL_SECONDS)
        return run

    async def begin(self, plan: RolloutPlan, *, where_it_is: bool) -> None:
        await self.apply(plan, make_policy(window="30s"))
        if where_it_is:
            await self.commands.take_over(FLAG.key, None, DANA, "")
        else:
            await self.commands.start(plan.metadata.name, DANA, "")

    async def climb_to(self, exposure: int) -> Run:
        return await self.goes_on(lambda run: run.exposure == exposure and run.confirmed)

    async def confirmed_kill(self, *, seconds: float) -> None:
        (receipt,) = await self.commands_kill()
        deadline = time.monotonic() + seconds
        while (held := self.killbook.get(receipt.kill_id)) is None or held.confirmed_at is None:
            assert time.monotonic() < deadline, "the kill was not confirmed in time"
            await asyncio.sleep(EVERY_SECONDS)
            await self.killer.retry()


@asynccontextmanager
async def driving(
    world: ProviderWorld, folder: Path, plan: RolloutPlan, *, where_it_is: bool = False
) -> AsyncIterator[Engine]:
    """The plan as if it had been applied and started (or begun where its flag is), with a fresh engine."""
    assert list(await world.provider.objections(plan)) == []
    engine = Engine(folder, world.provider)
    try:
        await engine.begin(plan, where_it_is=where_it_is)
        yield engine
    finally:
        engine.journal.close()


class Rollouts(Cases):
    async def test_a_plan_climbs_stage_by_stage_and_completes(self, world: ProviderWorld, tmp_path: Path) -> None:
        async with driving(world, tmp_path, quick_plan()) as engine:
            run = await engine.goes_on(lambda run: run.phase == "completed")
            assert (run.exposure, run.confirmed) == (100_000, True)
            shares = [one.exposure for one in engine.recorded.writes if isinstance(one, SetShare)]
            assert list(dict.fromkeys(shares)) == STAGES
        state = await seen(world)
        assert (state.effective_exposure, state.audience) == (100_000, ("staff",))

    async def test_a_plan_is_killed_half_way(self, world: ProviderWorld, tmp_path: Path) -> None:
        async with driving(world, tmp_path, quick_plan()) as engine:
            await engine.climb_to(10_000)
            await engine.confirmed_kill(seconds=world.patience)
            assert off(await observed(world.provider))
            assert (await engine.goes_on(lambda run: run.phase == "killed")).phase == "killed"
            assert off(await observed(world.provider))

    async def test_a_plan_that_only_observes_writes_nothing_at_all(
        self, world: ProviderWorld, tmp_path: Path
    ) -> None:
        before = await world.everything()
        async with driving(world, tmp_path, quick_plan(mode="observe")) as engine:
            for _ in range(40):
                await engine.looks(after=POLL_SECONDS)
            assert engine.recorded.writes == []
        assert await world.everything() == before

    @over_faults(Fault.DOWN)
    async def test_a_back_end_that_is_away_stops_the_climb_and_nothing_else(
        self, world: ProviderWorld, tmp_path: Path, fault: Fault
    ) -> None:
        async with driving(world, tmp_path, quick_plan()) as engine:
            await engine.climb_to(10_000)
            before = await world.everything()
            async with world.fault(fault):
                for _ in range(12):
                    run = await engine.looks(after=POLL_SECONDS)
            assert (run.phase, run.confirmed_exposure) == ("progressing", 10_000)
            assert await world.everything() == before
            assert (await engine.goes_on(lambda run: run.phase == "completed")).confirmed

    @over_edits(Edit.ARCHIVED, Edit.RENAMED)
    async def test_a_flag_that_goes_away_stops_the_climb_and_is_not_called_off(
        self, world: ProviderWorld, tmp_path: Path, edit: Edit
    ) -> None:
        async with driving(world, tmp_path, quick_plan()) as engine:
            await engine.climb_to(10_000)
            engine.recorded.writes.clear()
            await world.edit(edit)
            await unknown(world)
            for _ in range(20):
                run = await engine.looks(after=POLL_SECONDS)
            assert (run.exposure, run.ended_at) == (10_000, None)
            assert engine.recorded.writes == []
            assert any(block.code == "unknown" for block in (await engine.commands.status("checkout-v2")).blocks)

    @needs(Edit.RAISED)
    async def test_what_people_do_to_a_flag_that_is_only_observed_is_reported(
        self, world: ProviderWorld, tmp_path: Path
    ) -> None:
        await canary(world)
        async with driving(world, tmp_path, quick_plan(mode="observe")) as engine:
            await engine.looks(after=POLL_SECONDS)
            await world.edit(Edit.RAISED)
            known = "" if Knowledge.WHO in self.cannot else PERSON
            told = lambda one: one.exposure == 50_000 and known in one.changed_by  # noqa: E731
            await seen(world, told, seconds=world.patience)
            before = await world.everything()
            for _ in range(10):
                await engine.looks(after=POLL_SECONDS)
            lines = [line.text for line in (await engine.commands.report("checkout-v2")).lines]
            (changed,) = [line for line in lines if line.startswith("people changed the flag from 1 % to 50 %")]
            assert known in changed
            assert any(line.startswith("would have") for line in lines)
            assert engine.recorded.writes == []
        assert await world.everything() == before

    async def test_a_plan_that_begins_where_people_brought_the_flag_writes_nothing_before_it_rises(
        self, world: ProviderWorld, tmp_path: Path
    ) -> None:
        before = await canary(world)
        kept = await world.everything()
        async with driving(world, tmp_path, quick_plan(), where_it_is=True) as engine:
            await engine.climb_to(1_000)
            assert (engine.recorded.writes, await world.everything()) == ([], kept)
            await engine.goes_on(lambda run: run.phase == "completed")
            shares = [one.exposure for one in engine.recorded.writes if isinstance(one, SetShare)]
            assert list(dict.fromkeys(shares)) == STAGES[1:]
        assert (await seen(world)).bucketing == before.bucketing

    @over_edits(*SEEN_EDITS)
    async def test_what_a_person_changes_is_noticed_within_one_tick_pauses_and_raises_nothing(
        self, world: ProviderWorld, tmp_path: Path, edit: Edit
    ) -> None:
        async with driving(world, tmp_path, quick_plan()) as engine:
            await engine.climb_to(10_000)
            before = await seen(world, lambda one: one.effective_exposure == 10_000)
            engine.recorded.writes.clear()
            await world.edit(edit)
            await seen(world, lambda one: shows(edit, before, one), seconds=world.patience)
            run = await engine.looks(after=POLL_SECONDS)
            assert (run.phase, "changed outside this run" in run.status) == ("paused", True), run
            await self._stays_paused(world, engine)

    async def _stays_paused(self, world: ProviderWorld, engine: Engine) -> None:
        deadline = time.monotonic() + world.provider.limits.settle_seconds
        while True:
            run = await engine.looks()
            state = await observed(world.provider)
            if isinstance(state, FlagState) and state.effective_exposure <= 10_000 and run.confirmed:
                break
            assert time.monotonic() < deadline, f"not lowered: {state}"
            await asyncio.sleep(EVERY_SECONDS)
        for _ in range(20):
            run = await engine.looks(after=POLL_SECONDS)
        state = await seen(world)
        assert (run.phase, state.effective_exposure <= 10_000) == ("paused", True)
        assert engine.recorded.raises_above(10_000) == []

    @needs(Knowledge.WHO)
    async def test_the_reason_of_the_pause_names_who_changed_it(
        self, world: ProviderWorld, tmp_path: Path
    ) -> None:
        async with driving(world, tmp_path, quick_plan()) as engine:
            await engine.climb_to(10_000)
            await world.edit(Edit.RAISED)
            told = lambda one: one.exposure == 50_000 and PERSON in one.changed_by  # noqa: E731
            await seen(world, told, seconds=world.patience)
            run = await engine.looks(after=POLL_SECONDS)
            assert (run.phase, PERSON in run.status) == ("paused", True), run.status

    @needs(Edit.TURNED_ON)
    async def test_what_a_person_turns_on_after_a_kill_is_lowered_by_the_next_look(
        self, world: ProviderWorld, tmp_path: Path
    ) -> None:
        async with driving(world, tmp_path, quick_plan()) as engine:
            await engine.climb_to(10_000)
            await engine.confirmed_kill(seconds=world.patience)
            engine.recorded.writes.clear()
            await world.edit(Edit.TURNED_ON)
            await world.edit(Edit.RAISED)
            if Knowledge.COME_BACK not in self.cannot:
                await seen(world, lambda one: one.effective_exposure == 50_000, seconds=world.patience)
            await engine.killer.sweep()
            assert off(await seen(world, off))
            assert engine.recorded.raises_above(0) == []
