"""Kills and the database: what merging may and may not do."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import pytest

from controller.domain.audit import AuditEntry
from controller.domain.catalogue import ActiveKill, Kill
from controller.domain.flag import FlagChange, FlagState, Observation
from controller.domain.plan import FlagRef
from controller.errors import StoreUnavailable
from controller.held import is_off
from controller.store.memory import MemoryStore
from tests.support.engine import DANA, VirtualClock, World, timed_out


class SlowToAnswer(MemoryStore):
    """A kill is recorded after the question for active kills and before its answer is read."""

    world: World

    async def active_kills(self) -> Sequence[ActiveKill]:
        answer = await super().active_kills()
        await self.world.commands_kill()
        return answer


class Away(MemoryStore):
    """Takes up no kill while it is away; counts how often it was asked to."""

    away = False
    asked: list[str]

    async def record_kill(self, kill: Kill, entry: AuditEntry) -> bool:
        if self.away:
            self.asked.append(kill.id)
            raise StoreUnavailable("the database did not answer within 5 s")
        return await super().record_kill(kill, entry)


async def test_a_kill_recorded_while_the_active_kills_are_read_stays_in_force(tmp_path: Path) -> None:
    clock = VirtualClock()
    store = SlowToAnswer(clock.monotonic)
    world = store.world = World(tmp_path, clock=clock, store=store)
    await world.started()
    await world.kill_ledger.merge()
    assert [one.flag for one in world.killbook.active()] == [world.plan.spec.flag]
    assert world.journal.kills, "a restart finds it, too"


async def test_while_the_database_is_away_each_merge_waits_for_one_kill_only_and_never_the_same(
    tmp_path: Path,
) -> None:
    clock = VirtualClock()
    store = Away(clock.monotonic)
    store.away, store.asked = True, []
    world = World(tmp_path, clock=clock, store=store)
    for key in ("one", "two", "three"):
        flag = FlagRef(provider="main", environment="production", key=key)
        await world.killer.kill_flag(flag, actor=DANA.name, reason="INC-1", cause="user")
    store.asked.clear()
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            await world.kill_ledger.merge()
    assert len(store.asked) == len(set(store.asked)) == 3
    store.away = False
    await world.kill_ledger.merge()
    assert all(held.merged for held in world.killbook.in_force())
    assert len(await store.active_kills()) == 3


async def test_a_restarted_database_that_still_has_the_kills_is_not_asked_to_record_each_again(
    tmp_path: Path,
) -> None:
    clock = VirtualClock()
    store = Away(clock.monotonic)
    store.asked = []
    world = World(tmp_path, clock=clock, store=store)
    for key in ("one", "two", "three"):
        flag = FlagRef(provider="main", environment="production", key=key)
        await world.killer.kill_flag(flag, actor=DANA.name, reason="INC-1", cause="user")
    await world.kill_ledger.merge()
    store.away = True
    await world.kill_ledger.forgotten()
    assert all(held.merged and held.confirmation_stored for held in world.killbook.in_force())


async def test_a_kill_is_not_confirmed_while_a_write_whose_connection_broke_may_still_land(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    await world.started()
    reached = asyncio.Event()

    async def breaks(_: FlagChange) -> None:
        reached.set()
        raise timed_out()

    world.provider.before_apply = breaks
    while not reached.is_set():
        await world.run_for(15.0)
    world.provider.before_apply = None
    (receipt,) = await world.commands_kill()
    assert is_off(world.flag)
    assert receipt.confirmed_at is None
    world.clock.elapsed += world.settings.provider_timeout_seconds
    await world.killer.retry()
    assert [held.confirmed_at is not None for held in world.killbook.in_force()] == [True]


async def test_a_sweep_that_looked_before_a_reset_lowers_nothing_after_it(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.started()
    (receipt,) = await world.commands_kill()
    served = FlagState(enabled=True, exposure=1_000, audience=(), off_serves="off")
    world.provider.put(world.plan.spec.flag, served)  # by hand, so that the sweep has something to do
    looking, go_on = asyncio.Event(), asyncio.Event()
    observe = world.provider.observe

    async def slowly(flags: Collection[FlagRef]) -> Mapping[FlagRef, Observation]:
        seen = await observe(flags)
        looking.set()
        await go_on.wait()
        return seen

    world.provider.observe = slowly  # type: ignore[method-assign]
    sweeping = asyncio.create_task(world.killer.sweep())
    await looking.wait()
    await world.kill_ledger.reset(
        key="checkout-v2", environment=None, provider=None, kill_ids=[receipt.kill_id], actor=DANA, note=""
    )
    world.provider.put(world.plan.spec.flag, served)  # as a new run would
    go_on.set()
    await sweeping
    assert world.flag == served
