"""What several replicas on one database promise together (promises I3, I4, I5, I11)."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from controller.domain.audit import AuditEntry
from controller.domain.catalogue import ActiveKill, Barrier, PeerAnswer, Roll, Transition
from controller.domain.evidence import Question, Reading
from controller.domain.flag import FlagChange, FlagState
from controller.domain.message import Message
from controller.engine import ANNOUNCE_LEASE_SECONDS, quiet_seconds
from controller.errors import ProviderUnavailable, RaisesBlocked, Refused, StoreUnavailable
from controller.held import is_off
from controller.killer import DOUBTFUL_SECONDS
from controller.settings import Settings
from tests.support.cluster import STAGES, Cluster, Member, cluster, soon
from tests.support.engine import DANA
from tests.support.rollouts import FLAG, make_plan
from tests.support.sdk_door import make_flag, raised

__all__ = ["cluster"]

QUIET_SECONDS = quiet_seconds(Settings())


# — a kill reaches everybody —


async def test_a_kill_told_to_peers_holds_there_at_once_with_the_database_away(cluster: Cluster) -> None:
    cluster.take_away()
    a, b, c = cluster
    receipt = await b.kill()
    assert set(receipt.replicas) >= {"a", "c"}
    for member in (a, b, c):
        assert member.killbook.holds(FLAG) == [receipt.kill_id]
        await soon(lambda m=member: m.journalled() == {receipt.kill_id}, f"the journal of {member.name}")  # type: ignore[misc]
    assert await cluster.entries("kill") == []
    cluster.give_back()
    await cluster.run_for(3)
    assert [entry.id for entry in await cluster.entries("kill")] == [receipt.kill_id], "three merged it, once"
    assert (await cluster.run()).phase == "killed"


async def test_a_kill_that_was_told_outlives_the_replica_that_accepted_it(cluster: Cluster) -> None:
    cluster.take_away()
    a, b, _ = cluster
    receipt = await b.kill()
    await soon(lambda: a.journalled() == {receipt.kill_id}, "the journal of a")
    cluster.crash("b")
    cluster.crash("c")
    cluster.restart("a")
    cluster.give_back("a")
    await cluster.run_for(3)
    assert [entry.id for entry in await cluster.entries("kill")] == [receipt.kill_id]


async def test_a_kill_is_not_confirmed_while_another_replica_still_writes(cluster: Cluster) -> None:
    _, b, _ = cluster
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def stall(change: FlagChange) -> None:
        reached.set()
        await go_on.wait()

    cluster.provider.before_apply = stall
    rising = asyncio.create_task(until_written(cluster, reached))
    await reached.wait()
    receipt = await b.kill()
    for member in cluster:
        await soon(lambda m=member: m.killbook.in_force()[0].durable, "every disk")  # type: ignore[misc]
    await b.do("kill_retry")
    assert is_off(cluster.flag), "it was lowered at once, and yet"
    assert not b.confirmed(receipt)
    go_on.set()
    await rising
    assert [state.exposure for _, state in cluster.provider.history].count(50_000) == 1, "the write did land"
    await b.do("kill_retry")
    assert b.confirmed(receipt)
    assert is_off(cluster.flag)


async def until_written(cluster: Cluster, reached: asyncio.Event) -> None:
    """Seconds of `a` alone, until a write is on its way, and that one to its end."""
    (a, *_) = cluster
    while not reached.is_set():
        for member in cluster:
            await member.do("check_in")
        await a.do("renew", "tick")
        cluster.clock.elapsed += 1.0


async def test_a_kill_is_not_confirmed_while_a_replica_cannot_be_reached_until_it_can_write_no_more(
    cluster: Cluster,
) -> None:
    _, b, _ = cluster
    cluster.cut_off.add("c")
    receipt = await b.kill()
    assert is_off(cluster.flag)
    await b.do("kill_retry")
    cluster.clock.elapsed += QUIET_SECONDS - 0.1
    await b.do("kill_retry")
    assert not b.confirmed(receipt)
    cluster.clock.elapsed += 0.2
    await b.until_confirmed(receipt)


async def test_a_kill_is_confirmed_as_soon_as_the_last_replica_was_reached(cluster: Cluster) -> None:
    _, b, _ = cluster
    cluster.cut_off.add("c")
    receipt = await b.kill()
    assert not b.confirmed(receipt)
    cluster.cut_off.clear()
    await b.until_confirmed(receipt)


async def test_a_replica_that_comes_back_late_is_told_of_a_kill_that_is_confirmed_already(
    cluster: Cluster,
) -> None:
    _, b, c = cluster
    cluster.take_away()
    cluster.cut_off.add("c")
    receipt = await b.kill()
    cluster.clock.elapsed += QUIET_SECONDS + 1
    await b.until_confirmed(receipt)
    cluster.cut_off.clear()
    await b.do("kill_sweep")
    await soon(lambda: c.killbook.holds(FLAG) == [receipt.kill_id], "c to hold it")


async def test_a_peer_that_hangs_puts_no_attempt_at_the_provider_off(cluster: Cluster) -> None:
    _, b, _ = cluster
    cluster.provider.kill_fault = ProviderUnavailable("not now")
    await b.kill()
    cluster.provider.kill_fault = None
    hanging = asyncio.Event()

    async def tell(_: object) -> AsyncIterator[PeerAnswer]:
        await hanging.wait()
        yield PeerAnswer(replica="a")

    b.peers.tell = tell  # type: ignore[method-assign, assignment]
    (held,) = b.killbook.in_force()
    held.landed.clear()
    retrying = asyncio.create_task(b.do("kill_retry"))
    await soon(lambda: is_off(cluster.flag), "the provider to be asked")
    hanging.set()
    await retrying


# — nothing rises before everybody has merged —


async def silent(cluster: Cluster) -> None:
    cluster.crash("c")


async def not_merged(cluster: Cluster) -> None:
    cluster.restart_database()
    cluster.take_away("c")


async def failed_over(cluster: Cluster) -> None:
    past = cluster.copy_database()
    await cluster.members["a"].store.save_plan(make_plan(), cluster.members["a"].entry("save_plan"))
    await cluster.check_in()
    cluster.fail_over(past)


async def comes_back(cluster: Cluster) -> None:
    cluster.give_back()
    if "c" in cluster.down:
        cluster.restart("c")


async def is_released(cluster: Cluster) -> None:
    assert await cluster.release_raises()


OBSTACLES: list[tuple[Any, Any, str]] = [
    (silent, comes_back, "replica c has not checked in since"),
    (silent, is_released, "replica c has not checked in since"),
    (not_merged, comes_back, "replica c has not checked in since"),
    (not_merged, is_released, "replica c has not checked in since"),
    (failed_over, is_released, "the database lost history"),
]
Step = Callable[[Cluster], Awaitable[None]]


@pytest.mark.parametrize(("happens", "ends", "told"), OBSTACLES)
async def test_no_run_rises_while_a_replica_may_know_of_a_kill_that_the_database_does_not(
    cluster: Cluster, happens: Step, ends: Step, told: str
) -> None:
    await happens(cluster)
    await cluster.run_for(120)
    assert cluster.exposure == 1_000
    explained = await cluster.explained()
    assert "replicas: no run may rise: " + told in explained
    await ends(cluster)
    await cluster.until(lambda: cluster.exposure == 50_000, what="the next stage")


@pytest.mark.parametrize(("happens", "ends", "told"), OBSTACLES)
async def test_nobody_raises_by_hand_what_waits_for_a_replica(
    cluster: Cluster, happens: Step, ends: Step, told: str
) -> None:
    a, _, _ = cluster
    await happens(cluster)
    await cluster.run_for(10)
    with pytest.raises(Refused) as refused:
        await a.advance()
    assert any(told in block for block in refused.value.blocks)
    await a.pause()
    with pytest.raises(RaisesBlocked, match=told):
        await a.resume()
    assert ((await cluster.run()).phase, cluster.exposure) == ("paused", 1_000)
    await ends(cluster)
    await cluster.check_in()
    await a.resume()
    assert (await cluster.run()).phase == "progressing"


@pytest.mark.parametrize("happens", [silent, not_merged])
async def test_the_database_itself_refuses_a_raise_of_a_replica_that_does_not_know_of_an_obstacle(
    cluster: Cluster, happens: Step
) -> None:
    a, b, _ = cluster
    await happens(cluster)
    cluster.clock.elapsed += 6.0
    await b.do("check_in")
    await a.do("check_in")
    a.presence.obstacles = ()
    await minute_without_knowing(cluster, a)
    assert cluster.exposure == 1_000
    assert [entry.action for entry in await cluster.entries("advance")] == []


async def minute_without_knowing(cluster: Cluster, a: Member) -> None:
    """A minute in which `a` never hears of an obstacle and the others are as they are."""
    for _ in range(60):
        for member in cluster.up():
            await member.do("check_in")
        a.presence.obstacles = ()
        await a.do("renew", "tick")
        cluster.clock.elapsed += 1.0


async def test_whoever_was_present_before_a_failover_is_not_present_after_it(cluster: Cluster) -> None:
    a, _, _ = cluster
    await a.pause()
    await cluster.check_in()
    cluster.restart_database()
    await a.do("check_in")
    with pytest.raises(RaisesBlocked, match=r"replica b has not checked in since .*replica c has not"):
        await a.resume()
    await cluster.check_in()
    await a.resume()


async def test_a_replica_that_was_stopped_is_waited_for_by_nobody(cluster: Cluster) -> None:
    _, _, c = cluster
    await c.engine.leave()
    cluster.crash("c")
    await cluster.until(lambda: cluster.exposure == 50_000, what="the next stage")


async def test_while_raises_are_blocked_a_run_is_paused_stepped_back_and_killed(cluster: Cluster) -> None:
    a, _, _ = cluster
    await cluster.until(lambda: cluster.exposure == 50_000, what="the next stage")
    await silent(cluster)
    await cluster.run_for(10)
    await a.commands.step_back("checkout-v2", DANA, "")
    assert cluster.exposure == 1_000
    await a.kill()
    assert is_off(cluster.flag)


# — what is written again, or late —


async def lost(_: FlagChange) -> None:
    raise ProviderUnavailable("the connection was refused", not_applied=True)


async def test_a_raise_that_is_applied_again_waits_for_every_replica(cluster: Cluster) -> None:
    cluster.provider.before_apply = lost
    await cluster.until(lambda: committed(cluster) == 50_000, what="the advance to be committed")
    cluster.provider.before_apply = None
    cluster.crash("c")
    cluster.clock.elapsed += 6.0
    await cluster.run_for(30)
    assert cluster.exposure == 1_000
    cluster.restart("c")
    await cluster.until(lambda: cluster.exposure == 50_000, what="the write to be made again")


async def test_a_raise_is_not_applied_again_when_the_database_was_not_heard(cluster: Cluster) -> None:
    cluster.provider.before_apply = lost
    await cluster.until(lambda: committed(cluster) == 50_000, what="the advance to be committed")
    cluster.provider.before_apply = None
    for member in cluster:
        member.store.check_raise = away  # type: ignore[method-assign]
    await cluster.run_for(30)
    assert cluster.exposure == 1_000


async def away(*_: object, **__: object) -> Any:
    raise StoreUnavailable("the database does not answer")


async def test_a_step_back_is_applied_again_without_asking_anybody(cluster: Cluster) -> None:
    a, _, _ = cluster
    await cluster.until(lambda: cluster.exposure == 50_000, what="the next stage")
    await cluster.run_for(10)
    cluster.provider.before_apply = lost
    await a.commands.step_back("checkout-v2", DANA, "")
    assert (committed(cluster), cluster.exposure) == (1_000, 50_000)
    cluster.provider.before_apply = None
    cluster.crash("c")
    for member in cluster:
        member.store.check_raise = away  # type: ignore[method-assign]
    await cluster.until(lambda: cluster.exposure == 1_000, seconds=30, what="the step back to be made again")


def committed(cluster: Cluster) -> int:
    return cluster.store.rows["checkout-v2#1"].run.exposure


async def test_a_write_that_was_decided_before_a_long_sleep_is_not_sent(cluster: Cluster) -> None:
    a, _, _ = cluster

    async def falls_asleep(change: Transition) -> int:
        sequence = await cluster.store.commit(change)
        if change.raises:
            cluster.clock.elapsed += a.settings.lease_seconds / 2 + 0.1
        return sequence

    a.store.commit = falls_asleep  # type: ignore[method-assign]
    await cluster.until(lambda: committed(cluster) == 50_000, what="the advance to be committed")
    assert cluster.exposure == 1_000
    assert 50_000 not in [state.exposure for _, state in cluster.provider.history]
    await cluster.until(lambda: cluster.exposure == 50_000, what="a decision of the present")


async def test_whoever_slept_since_its_claim_raises_nothing_that_another_lowered_meanwhile(
    cluster: Cluster,
) -> None:
    a, b, _ = cluster
    await cluster.until(lambda: cluster.exposure == 100_000, what="the last stage")
    await cluster.run_for(10)
    cluster.provider.before_apply = lost
    await a.commands.step_back("checkout-v2", DANA, "")
    cluster.provider.before_apply = None
    cluster.clock.elapsed += 6.0
    measure = cluster.source.measure

    async def falls_asleep(questions: Collection[Question]) -> Mapping[Question, Reading]:
        for _ in range(5):
            await asyncio.sleep(0)
        cluster.source.measure = measure  # type: ignore[method-assign]
        cluster.clock.elapsed += 20.0
        await b.commands.step_back("checkout-v2", DANA, "")
        return await measure(questions)

    cluster.source.measure = falls_asleep  # type: ignore[method-assign]
    a.make_due("checkout-v2#1")
    await a.do("tick")
    assert cluster.source.measure == measure, "it did look"
    assert (committed(cluster), cluster.exposure) == (1_000, 1_000)
    assert 50_000 not in [state.exposure for _, state in cluster.provider.history[-2:]]


# — resets —


async def test_a_late_word_of_a_kill_that_was_reset_does_not_bring_it_back(cluster: Cluster) -> None:
    a, b, _ = cluster
    receipt = await b.kill()
    (held,) = b.killbook.in_force()
    await cluster.run_for(3)
    await a.reset(receipt)
    await cluster.run_for(3)
    await cluster.start()
    answer = await a.killer.hear([held.record])
    assert (answer.holds, a.killbook.holds(FLAG)) == ((), [])
    await cluster.run_for(3)
    assert cluster.exposure == 1_000


async def test_a_reset_through_one_replica_ends_the_kill_on_all_of_them(cluster: Cluster) -> None:
    a, b, c = cluster
    receipt = await b.kill()
    await cluster.run_for(3)
    await a.reset(receipt)
    await cluster.run_for(3)
    for member in (a, b, c):
        assert member.killbook.holds(FLAG) == []
        await soon(lambda m=member: not m.journalled(), f"the journal of {member.name}")  # type: ignore[misc]


async def test_an_answer_from_before_a_reset_does_not_bring_the_kill_back(cluster: Cluster) -> None:
    a, b, _ = cluster
    receipt = await b.kill()
    await cluster.run_for(3)

    async def answers_late() -> Sequence[ActiveKill]:
        answer = await cluster.store.active_kills()
        await a.reset(receipt)
        return answer

    a.store.active_kills = answers_late  # type: ignore[method-assign]
    pressed = len(cluster.provider.history)
    await a.kill_ledger.merge()
    assert a.killbook.holds(FLAG) == []
    assert len(cluster.provider.history) == pressed + 1, "the reset settled the flag, and nobody pressed on"


async def restarted_after_a_reset(cluster: Cluster) -> Member:
    """`c` stops in good order; its kill is reset through `a`, and a new run begins; `c` starts again."""
    a, _, c = cluster
    receipt = await c.kill()
    await cluster.run_for(3)
    await c.engine.leave()
    cluster.crash("c")
    await a.reset(receipt)
    await cluster.run_for(3)
    await cluster.start()
    cluster.restart("c")
    assert c.killbook.holds(FLAG) == [receipt.kill_id], "nothing rises through it before it has asked"
    return c


async def test_a_replica_that_starts_again_lowers_no_run_for_a_kill_that_was_reset_meanwhile(
    cluster: Cluster,
) -> None:
    c = await restarted_after_a_reset(cluster)
    await c.do("kill_retry", "check_in", "kill_retry")
    assert c.killbook.holds(FLAG) == []
    assert cluster.exposure == 1_000
    await cluster.until(lambda: cluster.exposure == 50_000, what="the next stage")


async def test_a_replica_that_starts_again_without_a_database_presses_on_with_its_kills(cluster: Cluster) -> None:
    c = await restarted_after_a_reset(cluster)
    cluster.take_away("c")
    await c.do("check_in", "kill_retry")
    assert cluster.exposure == 1_000
    cluster.clock.elapsed += DOUBTFUL_SECONDS
    await c.do("check_in", "kill_retry")
    assert is_off(cluster.flag), "it cannot know of the reset, and a kill needs no database"


async def test_a_replica_that_starts_again_presses_on_at_once_with_a_kill_the_database_never_had(
    cluster: Cluster,
) -> None:
    _, _, c = cluster
    cluster.take_away()
    cluster.cut_off.add("c")
    cluster.provider.kill_fault = ProviderUnavailable("not now")
    await c.kill()
    await soon(lambda: bool(c.journalled()), "the journal of c")
    cluster.restart("c")
    assert cluster.exposure == 1_000
    cluster.provider.kill_fault = None
    await c.do("kill_retry")
    assert is_off(cluster.flag)


async def test_a_replica_that_starts_again_presses_on_once_the_database_says_that_the_kill_is_in_force(
    cluster: Cluster,
) -> None:
    a, _, c = cluster
    await c.kill()
    await cluster.run_for(3)
    await c.engine.leave()
    cluster.crash("c")
    for member in (a, *cluster.up()):
        await member.do("check_in")
    cluster.provider.put(FLAG, FlagState(enabled=True, exposure=1_000, off_serves="off"))
    cluster.restart("c")
    await c.do("kill_retry")
    assert cluster.exposure == 1_000
    await c.do("check_in", "kill_retry")
    assert is_off(cluster.flag)


async def test_a_kill_is_counted_once_however_many_replicas_read_it_back(cluster: Cluster) -> None:
    _, b, _ = cluster
    await b.kill()
    await cluster.run_for(3)
    assert all(held.confirmed_at for member in cluster for held in member.killbook.in_force())
    cluster.restart("a")
    await cluster.run_for(3)
    assert [counted(member) for member in cluster] == [0, 1, 0]


def counted(member: Member) -> float:
    lines = member.metrics.render().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("rampart_kills_total"))


# — history that was lost —


async def lose_history(cluster: Cluster) -> None:
    """The latest audit row is known to `a` alone, and then gone."""
    a, _, _ = cluster
    await cluster.check_in()
    past = cluster.copy_database()
    await cluster.store.save_plan(make_plan(), a.entry("save_plan"))
    await a.do("check_in")
    cluster.fail_over(past)


async def test_whoever_remembers_what_the_database_lost_blocks_all_raises_until_a_person_releases_them(
    cluster: Cluster,
) -> None:
    await lose_history(cluster)
    await cluster.run_for(10)
    (entry,) = await cluster.entries("block_raises")
    assert "a remembers audit row" in entry.reason
    for name in "abc":
        cluster.restart(name)
    await cluster.run_for(120)
    assert cluster.exposure == 1_000
    assert await cluster.release_raises() == [entry.subject]
    await cluster.until(lambda: cluster.exposure == 50_000, what="the next stage")
    assert len(await cluster.entries("block_raises")) == 1, "and it is not raised again"


async def test_what_was_answered_since_the_last_check_in_is_missed_too(cluster: Cluster) -> None:
    """A person was told that the run is paused; the failover comes before anybody looked at the log again."""
    _, b, _ = cluster
    await cluster.check_in()
    before = cluster.copy_database()
    await b.pause()
    cluster.fail_over(to=before)
    await cluster.check_in()
    (entry,) = await cluster.entries("block_raises")
    assert "b remembers an entry that was recorded since its last check-in" in entry.reason
    await cluster.run_for(120)
    assert cluster.exposure == 1_000


async def test_several_that_remember_the_same_raise_one_barrier(cluster: Cluster) -> None:
    await failed_over(cluster)
    await cluster.run_for(5)
    assert len(await cluster.entries("block_raises")) == 1


async def test_a_replica_that_was_stopped_remembers_on_disk_how_far_history_went(cluster: Cluster) -> None:
    past = cluster.copy_database()
    a, _, _ = cluster
    await cluster.store.save_plan(make_plan(), a.entry("save_plan"))
    await a.do("check_in")
    await a.engine.leave()
    cluster.fail_over(past)
    cluster.restart("a")
    await a.do("check_in")
    (entry,) = await cluster.entries("block_raises")
    assert "a remembers audit row" in entry.reason


@pytest.mark.parametrize("lost_writes", [0, 1])
async def test_nobody_counts_in_a_new_life_before_its_barrier_stands(cluster: Cluster, lost_writes: int) -> None:
    a, _, _ = cluster
    await lose_history(cluster)
    losses = iter([None] * lost_writes)

    async def checks_in(*arguments: Any, **named: Any) -> Roll:
        roll = await cluster.store.check_in(*arguments, **named)
        assert cluster.store.barriers or not roll.counted, "from here on others may raise"
        return roll

    async def raises_barrier(barrier: Barrier, entry: AuditEntry) -> bool:
        for _ in losses:
            raise StoreUnavailable("the answer was lost")
        return await cluster.store.raise_barrier(barrier, entry)

    a.store.check_in, a.store.raise_barrier = checks_in, raises_barrier  # type: ignore[method-assign]
    for _ in range(3):
        await a.do("check_in")
    assert a.presence.merged
    assert cluster.store.barriers


# — announcing —


class Told:
    """Implements `ports.Channel`."""

    resolves = False

    def __init__(self) -> None:
        self.events: list[str] = []

    async def announce(self, message: Message) -> None:
        self.events.append(message.event)

    async def close(self) -> None:
        """Nothing is held open."""


async def test_one_replica_at_a_time_announces_and_another_goes_on_when_it_is_gone(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    cluster.plan = make_plan(stages=STAGES, notify=[{"to": "team", "events": ["started", "paused", "resumed"]}])
    told = {member.name: Told() for member in cluster}
    for member in cluster:
        member.channels["team"] = told[member.name]
        member.restart()
    await cluster.begin()
    a, b, _ = cluster
    for member in cluster:
        await member.engine.announce()
    await a.pause()
    await b.engine.announce()
    assert {name: one.events for name, one in told.items()} == {"a": ["started"], "b": [], "c": []}
    cluster.crash("a")
    cluster.clock.elapsed += ANNOUNCE_LEASE_SECONDS - 0.1
    await b.engine.announce()
    assert told["b"].events == []
    cluster.clock.elapsed += 0.2
    await b.engine.announce()
    await cluster.members["c"].engine.announce()
    assert {name: one.events for name, one in told.items()} == {"a": ["started"], "b": ["paused"], "c": []}


# — the built-in flags of every replica —


async def test_sdks_of_every_replica_are_off_though_only_one_was_told_and_no_database_answers(
    tmp_path: Path,
) -> None:
    cluster = Cluster(tmp_path, builtin=True)
    await cluster.store.save_flag_config(raised(make_flag(), 50_000))
    for member in cluster:
        await member.do("check_in")
        await member.engine.refresh()
        assert shown_on(member)
    await cluster.check_in()
    cluster.take_away()
    receipt = await cluster.members["b"].kill()
    assert set(receipt.replicas) == {"a", "b", "c"}
    assert not any(shown_on(member) for member in cluster)


def shown_on(member: Member) -> bool:
    config = member.engine.board.shown(FLAG)
    assert config is not None
    return bool(config.data["on"])
