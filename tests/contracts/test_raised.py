"""What was raised last, as memory and PostgreSQL tell it from the audit log."""

import time

import pytest
from msgspec.structs import replace

from controller.domain.rollout import Action
from controller.domain.selection import Raised
from controller.ports import Store
from controller.store.memory import MemoryStore
from tests.store.samples import FLAG, NOW, change, entry, kill, pending_run, plan, policy
from tests.support.postgres import database, postgres_server, store

__all__ = ["database", "postgres_server", "store"]


@pytest.fixture(params=["memory", "postgresql"])
def either(request: pytest.FixtureRequest) -> Store:
    if request.param == "memory":
        return MemoryStore(time.monotonic)
    found: Store = request.getfixturevalue("store")
    return found


async def carry_out(store: Store, *actions: Action) -> None:
    await store.save_policy(policy(), entry())
    await store.save_plan(plan(), entry())
    run = await store.create_run(pending_run(), entry("authorise"))
    for action in actions:
        step = change(run, action, raises=action in ("start", "advance", "resume", "take_over"))
        details = {"to": {"phase": "progressing", "stage": 0, "exposure": 1000}}
        await store.commit(replace(step, entry=replace(step.entry, details=details)))
        run = step.after


async def test_an_empty_log_raised_nothing(either: Store) -> None:
    assert await either.raises_after(0) == (0, [])


async def test_starts_advances_resumes_and_take_overs_are_told_in_their_order_and_nothing_else(
    either: Store,
) -> None:
    await carry_out(either, "start", "confirm", "advance", "pause", "resume")
    await either.record_kill(kill(), entry("kill"))
    head, raised = await either.raises_after(0)
    assert head == (await either.audit_head())[0]
    assert [one.action for one in raised] == ["start", "advance", "resume"]
    assert raised[0] == Raised(
        flag=FLAG, plan="checkout-v2", run="checkout-v2#1", action="start", at=NOW, exposure=1000
    )


async def test_what_was_read_is_not_told_again(either: Store) -> None:
    await carry_out(either, "start", "advance")
    head, _ = await either.raises_after(0)
    assert await either.raises_after(head) == (head, [])
    _, last = await either.raises_after(head - 1)
    assert [one.action for one in last] == ["advance"]


async def test_a_run_that_took_a_flag_over_raised_it(either: Store) -> None:
    await carry_out(either, "take_over")
    assert [one.action for one in (await either.raises_after(0))[1]] == ["take_over"]
