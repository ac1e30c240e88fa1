"""What is accepted or found happens in time: breaches, and rollouts after an outage."""

from pathlib import Path

import pytest

from controller.domain.flag import FlagChange
from controller.errors import ProviderUnavailable, StoreUnavailable
from tests.support.engine import World

POLL = 15.0
KILL_FOR = 120.0


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_a_breach_is_acted_on_within_one_poll_of_its_for(world: World) -> None:
    await world.started()
    await world.run_for(600)
    began = world.clock.elapsed
    world.source.sides["on"] = {"p95": 0.4}
    await world.until("killed")
    assert world.clock.elapsed - began <= KILL_FOR + POLL + 1
    assert not world.flag.enabled


async def test_after_every_kind_of_fault_at_once_a_rollout_converges_within_two_polls(world: World) -> None:
    await world.started()
    await world.run_for(2100)
    claim_due = world.store.claim_due

    async def away(*_: object, **__: object) -> None:
        raise StoreUnavailable("frozen")

    async def unreachable(_: FlagChange) -> None:
        raise ProviderUnavailable("refused", not_applied=True)

    world.store.claim_due = away  # type: ignore[assignment,method-assign]
    world.provider.unreadable, world.source.failure = "503", "connection refused"
    world.provider.before_apply = unreachable
    for _ in range(20):
        world.clock.elapsed += POLL
        with pytest.raises(StoreUnavailable):
            await world.tick()
    world.store.claim_due = claim_due  # type: ignore[method-assign]
    world.provider.unreadable = world.source.failure = world.provider.before_apply = None
    await world.run_for(2 * POLL)
    run, observations = await world.latest()
    assert run.confirmed
    assert world.flag.exposure == run.exposure
    assert observations.seen is not None
    assert {verdict.outcome for verdict in observations.seen.verdicts} == {"pass"}
