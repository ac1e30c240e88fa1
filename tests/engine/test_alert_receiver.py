"""Alerts of others: what they do once, what they never do, and without a database."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from controller.access import Actor
from controller.domain.alerts import Alert
from controller.domain.audit import AuditEntry
from controller.domain.catalogue import KillRecord
from controller.domain.proof import verify
from controller.lastknown import KnownFlag
from controller.store.memory import MemoryStore
from tests.support.cluster import Link
from tests.support.engine import DANA, VirtualClock, World
from tests.support.proofs import proof_of
from tests.support.rollouts import NOW, make_plan

ALERTMANAGER = Actor(name="alertmanager", scopes=("kill",))
HIGH_ERRORS = Alert(
    fingerprint="c0ffee",
    starts_at=NOW,
    firing=True,
    labels={"alertname": "HighErrors", "rampart_rollout": "checkout-v2"},
    summary="7 % of requests fail",
    origin="prometheus.example",
)
KILLABLE = make_plan(alerts={"maxAction": "kill"})
TO_KILL = replace(HIGH_ERRORS, labels={**HIGH_ERRORS.labels, "rampart_action": "kill"})


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    one = World(tmp_path)
    yield one
    one.journal.close()


async def told(world: World, *alerts: Alert, actor: Actor = ALERTMANAGER) -> list[str]:
    return [result.outcome for result in await world.engine.alerts.receive(alerts, actor)]


async def audited(world: World) -> list[AuditEntry]:
    return [msgspec.json.decode(row.body, type=AuditEntry) for row in await world.store.audit()]


async def killable(world: World) -> None:
    await world.started(KILLABLE)
    world.killbook.learn([KnownFlag.of(KILLABLE)])


def without_database(world: World) -> Link:
    """The same process, and no answer from the database any more."""
    link = Link(world.store)
    link.away = True
    world.store = link  # type: ignore[assignment]
    world.engine.alerts._store = world.commands._store = world.kill_ledger._store = link
    return link


async def test_a_firing_alert_pauses_in_the_name_of_its_token_and_says_why(world: World) -> None:
    await world.started()
    assert await told(world, HIGH_ERRORS) == ["paused"]
    assert (await world.run()).phase == "paused"
    last = (await audited(world))[-1]
    assert (last.actor, last.cause, last.action) == ("alertmanager", "alert", "pause")
    assert last.reason == (
        "paused at 1 % by alertmanager: alert HighErrors of prometheus.example: 7 % of requests fail"
    )
    assert last.details["alert"]["fingerprint"] == "c0ffee"
    counted = world.metrics.render().decode()
    assert 'rampart_alerts_received_total{outcome="paused"} 1.0' in counted
    assert (
        'rampart_decisions_total{rollout="checkout-v2",environment="production",action="pause",cause="alert"} 1'
        in counted
    )


async def test_a_repeated_alert_does_not_pause_again_what_a_person_resumed_but_a_new_start_of_it_does(
    world: World,
) -> None:
    await world.started()
    assert await told(world, HIGH_ERRORS, HIGH_ERRORS) == ["paused", "repeated"]
    await world.commands.resume("checkout-v2", DANA, "")
    assert await told(world, HIGH_ERRORS) == ["repeated"]
    world.restart()
    assert await told(world, HIGH_ERRORS) == ["repeated"], "nor after a restart, nor another replica"
    assert (await world.run()).phase == "progressing"
    again = replace(HIGH_ERRORS, starts_at=NOW + timedelta(minutes=9))
    assert await told(world, again) == ["paused"]


async def test_alerts_that_fired_while_the_run_was_paused_do_not_pause_it_once_a_person_resumed(
    world: World,
) -> None:
    await world.started()
    others = [replace(HIGH_ERRORS, fingerprint=name) for name in ("pod-1", "pod-2")]
    assert await told(world, HIGH_ERRORS, *others) == ["paused", "already_paused", "already_paused"]
    noted = [entry for entry in await audited(world) if entry.action == "alert"]
    assert [(one.cause, one.subject, one.run) for one in noted] == [("alert", "checkout-v2#1", None)] * 2
    await world.commands.resume("checkout-v2", DANA, "")
    assert await told(world, HIGH_ERRORS, *others) == ["repeated"] * 3
    assert (await world.run()).phase == "progressing"


async def test_the_end_of_an_alert_resumes_nothing(world: World) -> None:
    await world.started()
    await told(world, HIGH_ERRORS)
    before = len(await audited(world))
    assert await told(world, replace(HIGH_ERRORS, firing=False)) == ["resolved"]
    await world.run_for(600)
    assert (await world.run()).phase == "paused"
    assert len(await audited(world)) == before


async def test_an_alert_about_a_rollout_that_asks_for_nothing_changes_nothing(world: World) -> None:
    """As our own alerts do: RampartDrift must not pause, should somebody send all alerts here."""
    await world.started()
    about = replace(HIGH_ERRORS, labels={**HIGH_ERRORS.labels, "rampart_action": "none"})
    assert await told(world, about) == ["nothing_asked"]
    assert (await world.run()).phase == "progressing"


async def test_an_alert_about_nothing_that_runs_changes_nothing(world: World) -> None:
    await world.apply()
    nobody = replace(HIGH_ERRORS, labels={"alertname": "DiskFull"})
    before = len(await audited(world))
    assert await told(world, HIGH_ERRORS, nobody) == ["not_running", "no_match"]
    await world.commands.start("checkout-v2", DANA, "")
    assert await told(world, HIGH_ERRORS) == ["not_running"], "it waits to start, and exposes nobody"
    await world.settle()
    assert await told(world, HIGH_ERRORS) == ["paused"], (
        "the same start of the alert, now that somebody is exposed"
    )
    assert len(await audited(world)) > before


async def test_a_kill_takes_the_word_of_the_plan(world: World) -> None:
    await world.started()
    (result,) = await world.engine.alerts.receive([TO_KILL], ALERTMANAGER)
    assert (result.outcome, result.action) == ("paused", "pause")
    assert "the plan lets alerts pause only" in result.text
    assert "the plan lets alerts pause only" in (await audited(world))[-1].reason
    assert world.killbook.active() == []


async def test_an_alert_kills_where_the_plan_allows_it_and_a_repetition_after_a_reset_does_not(
    world: World,
) -> None:
    await killable(world)
    assert await told(world, TO_KILL) == ["killed"]
    assert (await world.run()).phase == "killed"
    assert not world.flag.enabled
    last = next(one for one in await audited(world) if one.action == "kill")
    assert (last.actor, last.cause) == ("alertmanager", "alert")
    assert last.reason.startswith("killed by alertmanager: alert HighErrors of prometheus.example: 7 %")
    sibling = replace(TO_KILL, fingerprint="pod-2")
    assert await told(world, TO_KILL, sibling, sibling) == ["repeated", "already_killed", "already_killed"]
    assert 'rampart_kills_total{cause="alert"} 1.0' in world.metrics.render().decode()
    (kill,) = world.killbook.active()
    await world.kill_ledger.reset(
        key="checkout-v2", environment=None, provider=None, kill_ids=[kill.kill_id], actor=DANA, note=""
    )
    assert await told(world, TO_KILL, sibling) == ["repeated", "repeated"]
    world.restart()
    world.killbook.learn([KnownFlag.of(KILLABLE)])
    assert await told(world, TO_KILL, sibling) == ["repeated", "repeated"], "nor after a restart"
    assert world.killbook.active() == []
    assert await told(world, replace(TO_KILL, starts_at=NOW + timedelta(hours=1))) == ["killed"]


async def test_a_fourth_flag_is_not_killed_before_a_person_has_looked_and_not_later_either(world: World) -> None:
    await world.started(KILLABLE)
    mine = KnownFlag.of(KILLABLE)
    others = [replace(mine, plan=f"plan-{n}", flag=replace(mine.flag, key=f"flag-{n}")) for n in range(3)]
    world.killbook.learn([*others, mine])
    by_flag = {"alertname": "Everything", "environment": "production", "rampart_action": "kill"}
    alerts = [
        replace(HIGH_ERRORS, fingerprint=one.flag.key, labels={**by_flag, "flag": one.flag.key})
        for one in [*others, mine]
    ]
    assert await told(world, *alerts) == ["killed", "killed", "killed", "paused"]
    assert (await world.run()).phase == "paused"
    assert "3 flags were killed automatically just now, so a person must look first" in (await world.run()).status
    await world.commands.resume("checkout-v2", DANA, "")
    world.clock.elapsed += world.settings.automatic_kills_window_seconds + 1
    assert await told(world, *alerts) == ["repeated"] * 4
    assert (await world.run()).phase == "progressing"
    assert await told(world, replace(alerts[-1], starts_at=NOW + timedelta(hours=1))) == ["killed"]


async def test_kills_by_alerts_and_by_rules_are_counted_together(world: World) -> None:
    await killable(world)
    assert await told(world, TO_KILL) == ["killed"]
    assert world.killbook.automatic_kills(600) == 1


async def test_without_a_database_an_alert_kills_and_a_pause_is_owed(world: World) -> None:
    await killable(world)
    link = without_database(world)
    (pausing,) = await world.engine.alerts.receive([HIGH_ERRORS], ALERTMANAGER)
    assert pausing.outcome == "unable"
    assert await told(world, TO_KILL, TO_KILL) == ["killed", "repeated"]
    assert not world.flag.enabled
    link.away = False
    await world.kill_ledger.merge()
    (kill,) = await world.store.active_kills()
    assert kill.kill.actor == "alertmanager"
    assert await told(world, HIGH_ERRORS) == ["not_running"]


async def test_who_never_learned_of_any_plan_cannot_say_that_none_is_meant(tmp_path: Path, world: World) -> None:
    world.killbook.informed = False
    world.killbook._known = {}
    assert await told(world, HIGH_ERRORS) == ["unable"]


class Restless(MemoryStore):
    """The run moves on whenever somebody has just looked whether an entry is there; `left` times."""

    left = 0

    async def committed(self, entry_id: str) -> int | None:
        answer = await super().committed(entry_id)
        if self.left:
            self.left -= 1
            row = self.rows["checkout-v2#1"]
            row.run = replace(row.run, version=row.run.version + 1)
        return answer


@pytest.mark.parametrize(("moves", "outcome"), [(2, "paused"), (100, "unable")])
async def test_a_run_that_moves_while_a_pause_is_decided_is_looked_at_again(
    tmp_path: Path, moves: int, outcome: str
) -> None:
    clock = VirtualClock()
    store = Restless(clock.monotonic)
    world = World(tmp_path, clock=clock, store=store)
    await world.started()
    store.left = moves
    assert await told(world, HIGH_ERRORS) == [outcome]
    assert (await world.run()).phase == ("paused" if outcome == "paused" else "progressing")
    world.journal.close()


async def test_a_token_pauses_only_where_it_may(world: World) -> None:
    await killable(world)
    elsewhere = Actor(name="staging-alerts", scopes=("kill",), environments=("staging",))
    assert await told(world, TO_KILL, actor=elsewhere) == ["forbidden"]
    assert (await world.run()).phase == "progressing"
    operator = Actor(name="operator", scopes=("operate",))
    assert await told(world, TO_KILL, actor=operator) == ["paused"]
    assert "its token may not kill there" in (await audited(world))[-1].reason


@pytest.mark.parametrize("killed", [False, True])
async def test_a_run_that_an_alert_stopped_is_decided_again_from_its_proof(world: World, killed: bool) -> None:
    await killable(world)
    await told(world, TO_KILL if killed else HIGH_ERRORS)
    if not killed:
        await world.commands.resume("checkout-v2", DANA, "")
        await world.run_for(120)
        await told(world, replace(HIGH_ERRORS, starts_at=NOW + timedelta(minutes=1)))
    for whole in (False, True):
        report = verify(await proof_of(world.store, "checkout-v2#1", whole=whole))
        assert [finding for check in report.checks for finding in check.findings] == []


def test_a_kill_by_an_alert_reaches_replicas_that_know_no_such_cause() -> None:
    """They decode `cause` strictly, and a kill that they cannot read would not hold there."""
    fields: dict[str, Any] = {"id": "kill-1", "accepted_at": NOW, "actor": "alertmanager", "reason": "alert"}
    flag = msgspec.to_builtins(make_plan().spec.flag)
    record = msgspec.convert(
        {"type": "kill", "kill": {**fields, "flag": flag, "cause": "user"}, "details": {"alert": {"name": "x"}}},
        KillRecord,
        strict=False,
    )
    assert record.cause == "alert"
    assert record.kill.cause == "user"
