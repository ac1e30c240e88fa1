"""Everybody who is to be told is told, in order, whatever the other channels do."""

import asyncio
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller import announcer as announcing
from controller.announcer import Announcer
from controller.channels import build
from controller.domain.audit import AuditEntry
from controller.domain.catalogue import PlanRevision
from controller.domain.message import EVENTS, Message, message
from controller.domain.rollout import Observations, Run
from controller.errors import StoreUnavailable, Unavailable
from controller.ports import Store
from controller.settings import LogChannelSettings
from controller.telemetry import Metrics
from tests.support.rollouts import NOW, make_plan, make_run

PLAN = make_plan(
    notify=[
        {"to": "oncall", "events": ["killed", "paused"]},
        {"to": "team", "events": ["started", "advanced", "paused", "killed", "completed", "approval"]},
        {"to": "nobody", "events": ["stepped_back"]},
    ]
)


class StillClock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return datetime(2026, 11, 21, tzinfo=UTC) + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds


class Rows:
    """The part of the store an announcer uses."""

    def __init__(self, *actions: str) -> None:
        self.rows = {number: entry(number, action) for number, action in enumerate(actions, start=1)}
        self.marked: set[int] = set()
        self.down = False

    async def unannounced(self, limit: int) -> Sequence[tuple[int, AuditEntry]]:
        return [row for row in self.rows.items() if row[0] not in self.marked][:limit]

    async def announced(self, sequences: Collection[int]) -> None:
        if self.down:
            raise StoreUnavailable("the database does not answer")
        self.marked |= set(sequences)

    async def run(self, run_id: str) -> tuple[Run, Observations] | None:
        return (make_run(PLAN), Observations()) if run_id == "checkout-v2#1" else None

    async def plan(self, name: str, revision: int | None = None) -> PlanRevision | None:
        return PlanRevision(plan=PLAN, revision=1, author="dana", applied_at=NOW)

    async def plans(self) -> Sequence[PlanRevision]:
        return [PlanRevision(plan=PLAN, revision=1, author="dana", applied_at=NOW)]


class Ear:
    """A channel that keeps what it was told; `ill` makes it fail or hang instead."""

    resolves = False

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.ill: Exception | None = None
        self.hanging: asyncio.Event | None = None

    async def announce(self, message: Message) -> None:
        if self.hanging is not None:
            await self.hanging.wait()
        if self.ill is not None:
            raise self.ill
        self.heard.append(message.id)

    async def close(self) -> None:
        pass


def entry(number: int, action: str, **changes: Any) -> AuditEntry:
    values: dict[str, Any] = {
        "id": f"{number} {action}",
        "at": NOW,
        "actor": "rampart",
        "action": action,
        "cause": "policy",
        "subject": "checkout-v2#1",
        "environment": "production",
        "reason": "because",
        "run": "checkout-v2#1",
        "flag": str(PLAN.spec.flag),
    }
    return AuditEntry(**(values | changes))


class House:
    def __init__(self, *actions: str) -> None:
        self.store = Rows(*actions)
        self.clock = StillClock()
        self.metrics = Metrics()
        self.oncall, self.team = Ear(), Ear()
        self.announcer = self.restarted()

    def restarted(self) -> Announcer:
        channels = {"oncall": self.oncall, "team": self.team}
        store = cast("Store", self.store)
        return Announcer(store=store, channels=channels, clock=self.clock, metrics=self.metrics)

    def counted(self, channel: str, result: str) -> float | None:
        labels = {"channel": channel, "result": result}
        return self.metrics.registry.get_sample_value("rampart_notifications_total", labels)


@pytest.fixture(autouse=True)
def _short_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcing, "ROUND_SECONDS", 0.02)


async def test_each_channel_hears_the_events_it_asked_for_in_order() -> None:
    house = House("start", "confirm", "advance", "pause", "kill")
    await house.announcer.announce()
    assert house.team.heard == ["1 start", "3 advance", "4 pause", "5 kill"]
    assert house.oncall.heard == ["4 pause", "5 kill"]
    assert house.store.marked == {1, 2, 3, 4, 5}


async def test_what_was_announced_is_not_announced_again() -> None:
    house = House("pause")
    for _ in range(3):
        await house.announcer.announce()
    await house.restarted().announce()
    assert house.oncall.heard == ["1 pause"]


async def test_a_failing_channel_does_not_keep_the_others_waiting() -> None:
    house = House("pause", "kill")
    house.oncall.ill = Unavailable("no route")
    await house.announcer.announce()
    assert house.team.heard == ["1 pause", "2 kill"]
    assert house.store.marked == set()
    assert house.counted("oncall", "unavailable") == 1


async def test_a_hanging_channel_does_not_keep_the_others_waiting() -> None:
    house = House("pause", "kill")
    house.oncall.hanging = asyncio.Event()
    await house.announcer.announce()
    assert house.team.heard == ["1 pause", "2 kill"]
    house.oncall.hanging.set()
    await house.announcer.announce()
    await house.announcer.announce()
    assert house.oncall.heard == ["1 pause", "2 kill"]
    assert house.store.marked == {1, 2}


async def test_a_failing_channel_is_tried_again_ever_more_rarely_and_told_in_order() -> None:
    house = House("pause", "kill")
    house.oncall.ill = Unavailable("no route")
    for _ in range(100):
        await house.announcer.announce()
        house.clock.seconds += 1
    assert house.counted("oncall", "unavailable") == 7  # after 0, 1, 3, 7, 15, 31 and 63 s
    house.oncall.ill = None
    house.clock.seconds += 300
    await house.announcer.announce()
    assert house.oncall.heard == ["1 pause", "2 kill"]
    assert house.team.heard == ["1 pause", "2 kill"]
    assert house.store.marked == {1, 2}


async def test_a_restart_tells_whoever_was_not_told() -> None:
    house = House("pause")
    house.oncall.ill = Unavailable("no route")
    await house.announcer.announce()
    house.oncall.ill = None
    await house.restarted().announce()
    assert house.oncall.heard == ["1 pause"]


async def test_a_mark_that_was_lost_is_made_later_without_telling_twice() -> None:
    house = House("pause")
    house.store.down = True
    with pytest.raises(StoreUnavailable):
        await house.announcer.announce()
    house.store.down = False
    await house.announcer.announce()
    assert house.oncall.heard == ["1 pause"]
    assert house.store.marked == {1}


async def test_an_entry_a_channel_can_never_tell_does_not_stop_the_next() -> None:
    house = House("pause")
    house.oncall.ill = ValueError("cannot render")
    await house.announcer.announce()
    house.oncall.ill = None
    house.store.rows[2] = entry(2, "kill")
    await house.announcer.announce()
    assert house.oncall.heard == ["2 kill"]
    assert house.store.marked == {1, 2}
    assert house.counted("oncall", "failed") == 1


async def test_a_channel_the_settings_do_not_know_stops_nothing() -> None:
    house = House("step_back", "pause")
    await house.announcer.announce()
    assert house.store.marked == {1, 2}
    assert house.oncall.heard == ["2 pause"]


async def test_a_flag_killed_without_a_run_is_told_to_the_plans_that_name_it() -> None:
    house = House()
    house.store.rows = {1: entry(1, "kill", run=None), 2: entry(2, "kill", run=None, flag="main/production/other")}
    await house.announcer.announce()
    assert house.oncall.heard == ["1 kill"]
    assert house.store.marked == {1, 2}


async def test_a_channel_that_stays_away_costs_bounded_memory_and_never_hides_new_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(announcing, "MAX_WAITING", 10)
    monkeypatch.setattr(announcing, "BATCH", 5)
    house = House(*["pause"] * 40)
    house.oncall.ill = Unavailable("no route")
    for _ in range(20):
        await house.announcer.announce()
    assert len(house.team.heard) == 40
    assert house.store.marked == set(range(1, 31))
    assert house.counted("oncall", "given_up") == 30


@given(st.lists(st.sampled_from(sorted(EVENTS)), max_size=30), st.lists(st.booleans(), max_size=40))
async def test_every_row_is_told_in_order_whatever_fails_in_between(
    actions: list[str], health: list[bool]
) -> None:
    house = House(*actions)
    for healthy in [*health, True]:
        house.oncall.ill = None if healthy else Unavailable("no route")
        await house.announcer.announce()
        house.clock.seconds += 301
    wanted = [row.id for row in house.store.rows.values() if EVENTS[row.action] in ("killed", "paused")]
    assert house.oncall.heard == wanted
    assert house.store.marked == set(house.store.rows)


async def test_closing_ends_a_delivery_that_hangs() -> None:
    house = House("pause")
    house.oncall.hanging = asyncio.Event()
    await house.announcer.announce()
    await asyncio.wait_for(house.announcer.close(), timeout=5)
    assert house.store.marked == set()


async def test_the_log_channel_writes_what_a_person_needs(capsys: pytest.CaptureFixture[str]) -> None:
    channel = build("audit-trail", LogChannelSettings(), StillClock())
    told = message(1, entry(1, "kill", reason="p95 0.61 s is above 3x baseline"), PLAN, "")
    assert told is not None
    await channel.announce(told)
    await channel.close()
    written = capsys.readouterr()
    assert "p95 0.61 s is above 3x baseline" in written.out + written.err
