"""A kill meets ticks, commands, resets, merges and restarts in every order (promises I3, I6, I7, I8).

Every await of store, provider and source is a place at which anything else may happen first, and the answer of the
store may be lost there. What happens is drawn from a seed.
"""

import asyncio
import random
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog

from controller.domain.audit import AuditEntry, verify_chain
from controller.domain.flag import FlagChange, FlagState, TurnOn
from controller.domain.rollout import RAISING
from controller.errors import ProviderUnavailable, RampartError, StoreUnavailable
from controller.held import is_off
from controller.store.memory import MemoryStore
from controller.store.postgres import PostgresStore
from tests.support.engine import DANA, ModelProvider, VirtualClock, World
from tests.support.postgres import database, postgres_server, store
from tests.support.rollouts import make_plan, make_policy

__all__ = ["database", "postgres_server", "store"]

WORKERS = 4
STEPS = 12
LIVES = 3
ACTIONS = (
    ["tick"] * 12 + ["start"] * 4 + ["reset"] * 3 + ["kill", "resume", "pause", "advance", "step_back", "merge"]
)
PLAN = make_plan(
    stages=[
        {"name": "canary", "exposure": "1%", "bake": "15s"},
        {"name": "half", "exposure": "50%", "bake": "15s"},
        {"name": "everyone", "exposure": "100%", "bake": "15s"},
    ]
)


class Unreliable:
    """Each answer takes a while, now and then a long one; one in `loses` is lost, before or after the deed."""

    def __init__(self, inner: Any, chance: random.Random, *, loses: int = 0) -> None:
        self._inner = inner
        self._chance = chance
        self._loses = loses

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not asyncio.iscoroutinefunction(found):
            return found

        async def slowly(*arguments: Any, **named: Any) -> Any:
            await self._linger()
            answer = await found(*arguments, **named)
            await self._linger()
            return answer

        return slowly

    async def _linger(self) -> None:
        for _ in range(self._chance.choice((0, 0, 1, 2, 5, 20))):
            await asyncio.sleep(0)
        if self._loses and self._chance.randrange(self._loses) == 0:
            raise StoreUnavailable("the answer was lost")


class Watched(ModelProvider):
    """Notes what must never be: a write under a kill, of a run that was killed, or after a kill was confirmed."""

    world: "Storm"

    async def apply(self, change: FlagChange) -> None:
        run = change.comment.removeprefix("Rampart ").split(":", 1)[0]
        if self.world.killbook.holds(change.flag):
            self.world.faults.append(f"wrote under a kill: {change}")
        if run in self.world.ended:
            self.world.faults.append(f"wrote for a run that was killed: {change}")
        await self.linger()
        await super().apply(change)
        await self.linger()

    async def linger(self) -> None:
        for _ in range(self.world.chance.choice((0, 1, 5, 40))):
            await asyncio.sleep(0)

    def put(self, flag: Any, state: FlagState) -> None:
        if not is_off(state) and any(held.confirmed_at for held in self.world.killbook.in_force()):
            self.world.faults.append(f"raised after a kill was confirmed: {state}")
        super().put(flag, state)


class Storm(World):
    def __init__(self, folder: Path, seed: int, inner: Any = None) -> None:
        self.chance = random.Random(seed)
        self.faults: list[str] = []
        self.ended: set[str] = set()
        self.answered: set[str] = set()
        self.released: set[str] = set()
        clock = VirtualClock()
        self.inner = inner or MemoryStore(clock.monotonic)
        reliable: Any = Unreliable(self.inner, self.chance)
        super().__init__(folder, clock=clock, store=reliable)
        self.plan = PLAN
        self.provider = Watched()
        self.provider.world = self
        self.providers["main"] = self.provider
        self.restart()

    def entry(self, action: str) -> AuditEntry:
        return AuditEntry(
            id=f"{action}-{self.chance.random()}", at=self.clock.now(), actor="dana", action=action, cause="user",
            subject="test", environment="production", reason=action,
        )  # fmt: skip

    async def begin(self) -> None:
        await self.apply(PLAN, make_policy(every="15s", window="15s"))
        await self.commands.start("checkout-v2", DANA, "")
        unreliable: Any = Unreliable(self.inner, self.chance, loses=60)
        self.store = unreliable
        self.restart()

    async def worker(self) -> None:
        for _ in range(STEPS):
            try:
                await self.act(self.chance.choice(ACTIONS))
            except RampartError:
                continue  # refused, or lost: only what must never be is a fault

    async def act(self, action: str) -> None:
        match action:
            case "tick":
                self.clock.elapsed += 7
                await self.come_due()
                await self.tick()
            case "kill":
                known = await self.run_id()
                (receipt,) = await self.commands_kill()
                self.ended.add(known)
                self.answered.add(receipt.kill_id)
            case "reset":
                await self.reset(self.killbook.holds(PLAN.spec.flag))
            case "merge":
                await self.kill_ledger.merge()
                await self.killer.retry()
                await self.killer.sweep()
            case command:
                await getattr(self.commands, command)("checkout-v2", DANA, "")

    async def reset(self, kill_ids: list[str]) -> None:
        self.released.update(kill_ids)  # from here on either outcome is right
        await self.kill_ledger.reset(
            key="checkout-v2", environment=None, provider=None, kill_ids=kill_ids, actor=DANA, note=""
        )

    async def run_id(self) -> str:
        found: Any = await self.inner.latest_run("checkout-v2")
        return str(found[0].id)

    async def come_due(self) -> None:
        if isinstance(self.inner, PostgresStore):
            await self.inner._database.execute(
                "UPDATE runs SET next_check_at = now() WHERE id = $1", await self.run_id()
            )
        else:
            self.make_due(await self.run_id())

    async def life(self) -> None:
        """Some while of everything at once, and then the process dies in the middle of it."""
        workers = [asyncio.create_task(self.worker()) for _ in range(WORKERS)]
        await asyncio.wait(workers[:2])
        ours = asyncio.all_tasks() - {asyncio.current_task()}
        for task in ours:
            task.cancel()
        await asyncio.gather(*ours, return_exceptions=True)
        for worker in workers:
            if not worker.cancelled() and worker.exception():
                raise AssertionError("a worker failed") from worker.exception()
        self.journal.close()
        self.restart()

    async def calm(self) -> None:
        reliable: Any = self.inner
        self.store = reliable
        self.journal.close()
        self.restart()
        await self.kill_ledger.forgotten()
        for _ in range(3):
            await self.killer.retry()
            await self.killer.sweep()


async def weather(storm: Storm) -> None:
    with structlog.testing.capture_logs():
        await storm.begin()
        for _ in range(LIVES):
            await storm.life()
        await storm.calm()
    assert storm.faults == []
    flag = PLAN.spec.flag
    assert storm.answered - storm.released <= set(storm.killbook.holds(flag)), (
        "a kill that was answered outlives everything but a reset"
    )
    if storm.killbook.holds(flag):
        assert is_off(storm.flag)
    await check_records(storm)


async def check_records(storm: Storm) -> None:
    rows = await storm.inner.audit(limit=100_000)
    assert verify_chain(rows).problem is None
    entries = [msgspec.json.decode(row.body, type=AuditEntry) for row in rows]
    versions = Counter(entry.run for entry in entries if entry.run)
    for run, count in versions.items():
        found: Any = await storm.inner.run(run)
        assert found[0].version == count, f"{run}: one audit row for each version"
    killed: set[str] = set()
    for entry in entries:
        if entry.action == "kill" and entry.run:
            killed.add(entry.run)
        assert not (entry.action in RAISING and entry.run in killed), f"{entry.run} rose after its kill"


@pytest.mark.parametrize("first", range(0, 90, 30))
async def test_a_kill_holds_whatever_meets_it(tmp_path: Path, first: int) -> None:
    raises = kills = 0
    for seed in range(first, first + 30):
        storm = Storm(tmp_path / str(seed), seed)
        await weather(storm)
        raises += sum(not is_off(state) for _, state in storm.provider.history)
        kills += len(storm.ended)
    assert raises > 20, "the weather was too mild to tell anything"
    assert kills > 10


@pytest.mark.parametrize("seed", range(5))
async def test_a_kill_holds_whatever_meets_it_on_a_real_database(
    tmp_path: Path, store: PostgresStore, seed: int
) -> None:
    await weather(Storm(tmp_path, seed, store))


@pytest.mark.parametrize("began", ["before the kill", "between kill and reset"])
async def test_a_tick_that_began_before_a_reset_writes_nothing(tmp_path: Path, began: str) -> None:
    """A kill whose row is not in the database yet leaves its run to be claimed; the reset brings the row."""
    world = World(tmp_path)
    await world.started()
    world.provider.before_apply = lose
    await world.run_for(2115)
    assert ((await world.run()).exposure, world.flag.exposure) == (10_000, 1_000), "the raise was not applied"
    world.provider.before_apply = None
    for _ in range(2):
        world.clock.elapsed += 7
        await world.reconciler.renew()
    reached, go_on = asyncio.Event(), asyncio.Event()
    measure = world.source.measure

    async def stall(questions: Any) -> Any:
        reached.set()
        await go_on.wait()
        return await measure(questions)

    world.source.measure = stall  # type: ignore[method-assign]
    world.make_due((await world.run()).id)
    if began == "before the kill":
        ticking = asyncio.create_task(world.tick())
        await reached.wait()
        (receipt,) = await world.commands_kill()
    else:
        record_kill, world.store.record_kill = world.store.record_kill, away  # type: ignore[assignment,method-assign]
        world.provider.kill_fault = ProviderUnavailable(
            "not now"
        )  # so that the tick sees what it would apply again
        (receipt,) = await world.commands_kill()
        ticking = asyncio.create_task(world.tick())
        await reached.wait()
        world.provider.kill_fault = None
        await world.killer.retry()
        world.store.record_kill = record_kill  # type: ignore[method-assign]
    await world.kill_ledger.reset(
        key="checkout-v2", environment=None, provider=None, kill_ids=[receipt.kill_id], actor=DANA, note=""
    )
    go_on.set()
    await ticking
    assert world.flag == FlagState(enabled=False, exposure=0, off_serves="off")


async def test_a_kill_is_not_called_confirmed_while_the_flag_is_being_turned_on(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.apply()
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def stall(change: FlagChange) -> None:
        if isinstance(change, TurnOn):
            reached.set()
            await go_on.wait()

    world.provider.before_apply = stall
    await world.commands.start("checkout-v2", DANA, "")
    turning_on = asyncio.create_task(world.settle())
    await reached.wait()
    killing = asyncio.create_task(world.commands_kill())
    async with asyncio.timeout(5):
        while True:
            if killing.done() or any(held.durable for held in world.killbook.in_force()):
                break
            await asyncio.sleep(0.001)
    for _ in range(50):
        await asyncio.sleep(0)
    assert [held.confirmed_at for held in world.killbook.in_force()] == [None]
    go_on.set()
    (receipt,) = await killing
    await turning_on
    assert receipt.confirmed_at is not None
    assert is_off(world.flag)


async def lose(_: FlagChange) -> None:
    raise ProviderUnavailable("the connection was refused", not_applied=True)


async def away(*_: object) -> bool:
    raise StoreUnavailable("the answer was lost")
