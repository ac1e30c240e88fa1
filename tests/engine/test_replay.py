"""Recorded inputs give the same decision again, and each decision carries what it rests on."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from controller.domain.audit import AuditEntry
from tests.support.engine import World
from tests.support.replay import is_automatic, recorded_verdicts, replayed
from tests.support.rollouts import make_policy


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def completes(world: World) -> None:
    await world.until("completed")


async def is_paused(world: World) -> None:
    await world.until(10_000)
    world.source.sides["on"] = {"error_rate": 0.05}
    await world.until("paused")


async def is_killed(world: World) -> None:
    await world.until(10_000)
    world.source.sides["on"] = {"p95": 0.35}
    await world.until("killed")


async def falls_silent(world: World) -> None:
    await world.until(10_000)
    world.source.sides = {"on": {"p95": float("nan"), "total": None}}
    await world.until("paused")


async def is_changed_behind_our_back(world: World) -> None:
    await world.until(10_000)
    world.provider.put(world.plan.spec.flag, msgspec.structs.replace(world.flag, exposure=70_000))
    await world.until("paused")


STORIES = [completes, is_paused, is_killed, falls_silent, is_changed_behind_our_back]


async def automatic_decisions(world: World) -> list[AuditEntry]:
    rows = await world.store.audit(run=(await world.run()).id)
    entries = [msgspec.json.decode(row.body, type=AuditEntry) for row in rows]
    return [entry for entry in entries if is_automatic(entry)]


@pytest.mark.parametrize("story", STORIES)
async def test_recorded_inputs_give_the_same_decision_again(
    world: World, story: Callable[[World], Awaitable[None]]
) -> None:
    await world.started()
    await story(world)
    decisions = await automatic_decisions(world)
    assert len(decisions) >= 4
    for entry in decisions:
        again, verdicts = replayed(entry, world.plan, [make_policy()])
        assert (again.action, again.cause, again.text) == (entry.action, entry.cause, entry.reason)
        assert [(v.id, v.outcome) for v in verdicts] == [(v.id, v.outcome) for v in recorded_verdicts(entry)]


async def test_each_automatic_decision_carries_value_limit_baseline_sample_and_query(world: World) -> None:
    await world.started()
    await is_killed(world)
    for entry in await automatic_decisions(world):
        verdicts = recorded_verdicts(entry)
        assert len(verdicts) == len(make_policy().spec.rules)
        for verdict in verdicts:
            assert None not in (verdict.value, verdict.limit, verdict.baseline, verdict.sample), verdict
            assert verdict.query
