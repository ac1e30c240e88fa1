"""Several flags killed by one order: what is hit, each for itself, and with the database away (promise I4)."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from controller.access import Actor
from controller.domain.flag import FlagState
from controller.domain.plan import FlagRef, RolloutPlan
from controller.domain.selection import KillPreview, Raised, Selection
from controller.errors import StoreUnavailable
from tests.support.engine import DANA, World
from tests.support.rollouts import make_plan


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def named(name: str, *, environment: str = "production", owner: str = "", **labels: str) -> RolloutPlan:
    plan = make_plan(flag={"key": name, "environment": environment})
    return replace(plan, metadata=replace(plan.metadata, name=name, owner=owner, labels=labels))


async def apply(world: World, *plans: RolloutPlan) -> None:
    for plan in plans:
        await world.apply(plan)
    await world.engine.refresh()


async def start(world: World, *names: str) -> None:
    for name in names:
        await world.commands.start(name, DANA, "")
    await world.settle()


async def preview(world: World, actor: Actor = DANA, **wanted: Any) -> KillPreview:
    if minutes := wanted.pop("minutes", None):
        wanted["raised_since"] = world.clock.now() - timedelta(minutes=minutes)
    return await world.engine.kill_selector.preview(Selection(**wanted), actor)


def keys(found: KillPreview) -> list[str]:
    return [one.flag.key for one in found.targets]


async def away(*_: object, **__: object) -> Any:
    raise StoreUnavailable("frozen")


def take_away(world: World) -> None:
    for method in ("raises_after", "latest_runs", "record_kill", "active_kills", "plans", "commit", "claim_due"):
        setattr(world.store, method, away)


async def test_a_selector_hits_all_plans_that_have_the_labels_with_exposure_and_owner(world: World) -> None:
    await apply(
        world,
        named("one", tier="1", owner="team-a"),
        named("two", tier="1", owner="team-b"),
        named("other", tier="2"),
    )
    await start(world, "two")
    found = await preview(world, labels={"tier": "1"})
    assert [(one.flag.key, one.exposure, one.owner, one.phase) for one in found.targets] == [
        ("two", 1_000, "team-b", "progressing"),
        ("one", None, "team-a", None),
    ]
    assert found.doubts == []


async def test_raised_within_hits_what_rose_lately_also_by_a_run_that_has_ended(world: World) -> None:
    await apply(world, named("early"), named("late"))
    await start(world, "early")
    world.clock.elapsed += 3600
    await start(world, "late")
    await world.commands.abandon("late", DANA, "")
    assert keys(await preview(world, minutes=30)) == ["late"]
    assert sorted(keys(await preview(world, minutes=90))) == ["early", "late"]


async def test_what_is_killed_already_is_told_apart(world: World) -> None:
    await apply(world, named("one", tier="1"), named("two", tier="1"))
    await world.killer.kill(key="one", environment=None, provider=None, actor=DANA, reason="INC-1")
    found = await preview(world, labels={"tier": "1"})
    assert keys(found) == ["two"]
    assert [one.flag.key for one in found.killed] == ["one"]


async def test_all_are_off_and_each_has_its_own_kill(world: World) -> None:
    plans = [named(f"flag-{number}", tier="1") for number in range(40)]
    await apply(world, *plans)
    await start(world, *(plan.metadata.name for plan in plans))
    flags = [one.flag for one in (await preview(world, labels={"tier": "1"})).targets]
    done = await world.killer.kill_flags(flags, actor=DANA, reason="INC-1")
    assert len({one.kill_id for one in done.kills}) == 40
    assert all(one.confirmed_at and one.durable for one in done.kills)
    assert not any(world.provider.flags[flag].enabled for flag in flags)
    assert len(await world.store.active_kills()) == 40


async def test_what_is_refused_to_one_hinders_no_other(world: World) -> None:
    await apply(world, named("here"), named("there", environment="staging"))
    limited = Actor(name="kim", scopes=("kill",), environments=("production",))
    unknown = FlagRef(provider="nowhere", environment="production", key="lost")
    flags = [plan.spec.flag for plan in (named("there", environment="staging"), named("here"))]
    done = await world.killer.kill_flags([*flags, unknown], actor=limited, reason="INC-1")
    assert [one.flag.key for one in done.kills] == ["here"]
    assert [(one.flag.key, one.why.split("(")[0]) for one in done.refused] == [
        ("there", 'token "kim" lacks the scope "kill" in staging'),
        ("lost", 'the settings know no provider "nowhere", so that nothing can turn nowhere/production/lost off'),
    ]


async def test_one_provider_that_fails_leaves_its_flag_unconfirmed_and_the_others_off(world: World) -> None:
    await apply(world, named("one", tier="1"), named("two", tier="1"))
    await start(world, "one", "two")
    kill = world.provider.kill

    async def failing(order: Any) -> Sequence[str]:
        if order.flag.key == "one":
            raise RuntimeError("a bug")
        return await kill(order)

    world.provider.kill = failing  # type: ignore[method-assign, assignment]
    flags = [one.flag for one in (await preview(world, labels={"tier": "1"})).targets]
    done = await world.killer.kill_flags(flags, actor=DANA, reason="INC-1")
    confirmed = {one.flag.key: one.confirmed_at is not None for one in done.kills}
    assert confirmed == {"one": False, "two": True}
    assert all(world.killbook.holds(flag) for flag in flags)


async def test_with_the_database_away_memory_knows_what_rose_and_says_what_may_be_missing(world: World) -> None:
    await apply(world, named("one", tier="1"), named("two", tier="1"))
    await start(world, "one")
    take_away(world)
    found = await preview(world, minutes=30)
    assert keys(found) == ["one"]
    assert found.targets[0].exposure == 1_000
    assert "the database does not answer" in found.doubts[0]
    both = await preview(world, labels={"tier": "1"})
    done = await world.killer.kill_flags([one.flag for one in both.targets], actor=DANA, reason="INC-1")
    assert len(done.kills) == 2
    assert not world.provider.flags[done.kills[0].flag].enabled


async def test_a_raise_just_before_the_database_went_away_is_known(world: World) -> None:
    """It was never read from the log: whoever committed it remembers."""
    await apply(world, named("one"))
    await world.commands.start("one", DANA, "")
    await world.tick()
    take_away(world)
    assert keys(await preview(world, minutes=5)) == ["one"]


async def test_a_database_that_hangs_keeps_nobody_waiting(world: World) -> None:
    await apply(world, named("one"))
    await start(world, "one")

    async def hanging(*_: object) -> Any:
        await asyncio.Event().wait()

    world.store.raises_after = hanging  # type: ignore[method-assign, assignment]
    async with asyncio.timeout(20):
        assert keys(await preview(world, minutes=30)) == ["one"]


async def test_a_database_that_lost_history_is_read_from_its_beginning(world: World) -> None:
    await apply(world, named("one"))
    await start(world, "one")
    await world.engine.refresh()
    world.engine.raised._sequence = 10_000
    world.engine.raised._latest.clear()
    await world.engine.raised.read_on()
    assert [one.flag.key for one in world.engine.raised.all()] == ["one"]


async def test_what_the_disk_remembers_never_hides_a_later_raise(world: World) -> None:
    await apply(world, named("one"))
    await start(world, "one")
    flag, now = named("one").spec.flag, world.clock.now()
    old = Raised(flag=flag, plan="one", run="one#0", action="start", at=now - timedelta(days=1))
    world.engine.raised.recall([old])
    latest = world.engine.raised.of(flag)
    assert latest is not None
    assert latest.run == "one#1"


async def test_the_limit_of_automatic_kills_is_not_one_of_people(world: World) -> None:
    plans = [named(f"flag-{number}", tier="1") for number in range(6)]
    await apply(world, *plans)
    done = await world.killer.kill_flags([plan.spec.flag for plan in plans], actor=DANA, reason="INC-1")
    assert len(done.kills) == 6
    assert world.killbook.automatic_kills(3600) == 0
    assert world.provider.flags[plans[0].spec.flag] == FlagState(enabled=False, exposure=0, off_serves="off")


async def test_many_are_written_down_together_and_somebody_elses_kill_comes_in_between(world: World) -> None:
    plans = [named(f"flag-{number}") for number in range(270)]
    await apply(world, *plans, named("other"))
    writes: list[int] = []
    append = world.journal._disk.append

    async def counting(lines: bytes) -> bool:
        writes.append(lines.count(b"\n"))
        return await append(lines)

    world.journal._disk.append = counting  # type: ignore[method-assign, assignment]
    flags = [plan.spec.flag for plan in plans]
    many = asyncio.create_task(world.killer.kill_flags(flags, actor=DANA, reason="INC-1"))
    await asyncio.sleep(0)
    one = world.killer.kill(key="other", environment=None, provider=None, actor=DANA, reason="INC-2")
    await asyncio.gather(many, one)
    accepted = [held.kill.flag.key for held in world.killbook.in_force()]
    assert accepted.index("other") < 200
    assert sorted(writes) == [1, 20, 50, 50, 50, 50, 50]
    assert len(world.journal.kills) == 271
