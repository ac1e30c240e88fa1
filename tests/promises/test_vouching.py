"""What one replica says of itself is relied on by the others, so it must be true when it is said (promise I3)."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from controller.domain.catalogue import ActiveKill, KillRecord, Roll
from controller.engine import quiet_seconds
from controller.errors import Conflict, StoreUnavailable
from controller.settings import Settings
from tests.support.cluster import Cluster, Member, cluster, soon
from tests.support.rollouts import FLAG

__all__ = ["cluster"]


async def test_a_kill_is_not_reset_while_a_raise_that_it_met_may_still_land(cluster: Cluster) -> None:
    _, b, _ = cluster
    cluster.cut_off.add("c")
    receipt = await b.kill()
    with pytest.raises(Conflict, match="not confirmed yet"):
        await b.reset(receipt)
    assert b.killbook.holds(FLAG) == [receipt.kill_id]
    assert [one.kill.id for one in await cluster.store.active_kills()] == [receipt.kill_id]
    cluster.clock.elapsed += quiet_seconds(Settings()) + 0.1
    await b.do("kill_retry")
    await b.reset(receipt)
    assert b.killbook.holds(FLAG) == []


async def test_a_replica_does_not_vouch_for_a_kill_that_its_disk_has_not_got_yet(cluster: Cluster) -> None:
    _, b, c = cluster
    cluster.cut_off.add("c")
    receipt = await b.kill()
    append, go_on = c.journal.append, asyncio.Event()

    async def hangs(record: Any) -> bool:
        await go_on.wait()
        return await append(record)

    c.journal.append = hangs  # type: ignore[method-assign]
    cluster.cut_off.clear()
    record = _record(b, receipt.kill_id)
    answer = await c.killer.hear([record])
    assert (answer.holds, answer.writing) == ((receipt.kill_id,), (receipt.kill_id,))
    await b.do("kill_retry")
    assert not b.confirmed(receipt), "a crash of c would lose it, and c might raise"
    go_on.set()
    await soon(lambda: c.killbook.in_force()[0].durable, "the journal of c")
    assert receipt.kill_id in c.journalled()
    assert (await c.killer.hear([record])).writing == ()
    await b.until_confirmed(receipt)


def _record(member: Member, kill_id: str) -> KillRecord:
    (held,) = [held for held in member.killbook.in_force() if held.kill.id == kill_id]
    return held.record


@pytest.mark.parametrize("lives_anew", [False, True], ids=["same life", "new life"])
async def test_nobody_is_present_with_a_kill_that_came_after_it_had_merged_all_others(
    cluster: Cluster, lives_anew: bool
) -> None:
    _, b, _ = cluster
    if lives_anew:
        cluster.restart_database()
    merges_before = int(lives_anew)  # in a new life everything is merged twice, and said twice
    asked = 0

    async def killed_meanwhile() -> Sequence[ActiveKill]:
        nonlocal asked
        asked += 1
        answer = await cluster.store.active_kills()
        if asked == merges_before + 1:
            await b.kill()
        return answer

    async def refuses(*_: Any, **__: Any) -> bool:
        raise StoreUnavailable("the database does not answer")

    counted = []

    async def checks_in(*arguments: Any, **named: Any) -> Roll:
        roll = await cluster.store.check_in(*arguments, **named)
        counted.append(roll.counted)
        return roll

    store: Any = b.link
    store.active_kills, store.record_kill, store.check_in = killed_meanwhile, refuses, checks_in
    await b.do("check_in")
    assert b.killbook.holds(FLAG), "the kill came in between"
    assert True not in counted, "the others would raise what b has killed"
