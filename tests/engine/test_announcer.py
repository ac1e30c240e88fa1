"""Everybody who is to be told is told, in order, whatever the other channels and the other flags do."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from controller import announcer as announcing
from controller.announcer import Announcer, lane
from controller.announcer.lane import GIVE_UP_ATTEMPTS, GIVE_UP_SECONDS
from controller.announcer.recipients import recipients
from controller.channels import build
from controller.domain.audit import AuditEntry
from controller.domain.message import ENDS, EVENTS, Message, message
from controller.domain.notification import Backlog, Letters
from controller.domain.plan import FlagRef, RolloutPlan
from controller.errors import Refused, StoreUnavailable, Unavailable, Undeliverable
from controller.settings import LogChannelSettings
from controller.store.memory import MemoryStore
from controller.store.memory_notifications import MemoryNotifications
from controller.telemetry import Metrics, hide
from tests.support.rollouts import FLAG, NOW, PLAN, make_plan, make_policy, make_run, merged

NOTIFY = [
    {"to": "oncall", "events": ["killed", "paused"]},
    {"to": "team", "events": ["started", "advanced", "paused", "killed", "completed", "approval"]},
    {"to": "nobody", "events": ["stepped_back"]},
]
OTHER = FlagRef(provider="main", environment="production", key="search-v4")
LONG = 1e9


class StillClock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return datetime(2026, 11, 21, tzinfo=UTC) + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds


class Ear:
    """A channel that keeps what it took; `ill` makes it fail, of one flag or of all; `hanging` makes it wait."""

    def __init__(self, *, resolves: bool = False) -> None:
        self.resolves = resolves
        self.took: list[Message] = []
        self.asked = 0
        self.ill: Exception | None = None
        self.ill_of: dict[str, Exception] = {}
        self.hanging: asyncio.Event | None = None
        self.closed = False

    async def announce(self, message: Message) -> None:
        self.asked += 1
        await asyncio.sleep(0)  # as any way to the outside: others get their turn
        if self.hanging is not None:
            await self.hanging.wait()
        fault = self.ill or self.ill_of.get(message.flag)
        if fault is not None:
            raise fault
        self.took.append(message)

    async def close(self) -> None:
        self.closed = True

    @property
    def heard(self) -> list[str]:
        return [message.id for message in self.took]


class Torn:
    """Notifications whose database goes away at the `nth` call from now on, after it was carried out or before."""

    def __init__(self, notifications: MemoryNotifications) -> None:
        self._notifications = notifications
        self.away: Mapping[str, bool] = {}
        """Method → whether it is carried out although no answer comes."""
        self.most_told = 0

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        found = getattr(self._notifications, name)

        async def asked(*arguments: Any, **named: Any) -> Any:
            if name == "told":
                self.most_told = max(self.most_told, len(arguments[1]))
            if name in self.away:
                if self.away[name]:
                    await found(*arguments, **named)
                raise StoreUnavailable("the database does not answer")
            return await found(*arguments, **named)

        return asked


def plan_of(name: str, flag: FlagRef, notify: list[dict[str, Any]]) -> RolloutPlan:
    changes = {"metadata": {"name": name}, "spec": {"notify": notify, "flag": msgspec.to_builtins(flag)}}
    return msgspec.convert(merged(PLAN, changes), RolloutPlan)


async def eventually(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - nothing tells when it comes true
            await asyncio.sleep(0.005)


class House:
    """Two channels, two flags with a plan each, and a run of the first."""

    def __init__(self, notify: list[dict[str, Any]] | None = None) -> None:
        self.clock = StillClock()
        self.store = MemoryStore(self.clock.monotonic)
        self.notifications = Torn(MemoryNotifications(self.store, self.clock.monotonic))
        self.metrics = Metrics()
        self.oncall, self.team = Ear(), Ear()
        self.pager = Ear(resolves=True)
        self.notify = NOTIFY if notify is None else notify
        self.numbers = 0
        self.chance = 1.0
        self.announcer = self.restarted()

    async def filled(self, *actions: str) -> "House":
        await self.store.save_policy(make_policy(), self.entry("apply"))
        for plan in (plan_of("checkout-v2", FLAG, self.notify), plan_of("search-v4", OTHER, self.notify)):
            await self.store.save_plan(plan, self.entry("apply"))
        await self.store.create_run(make_run(make_plan(notify=self.notify)), self.entry("create"))
        await self.announcer.announce(until=LONG)
        self.happens(*actions)
        return self

    def entry(self, action: str, flag: FlagRef = FLAG, **changes: Any) -> AuditEntry:
        self.numbers += 1
        values: dict[str, Any] = {
            "id": f"{self.numbers}",
            "at": NOW,
            "actor": "rampart",
            "action": action,
            "cause": "policy",
            "subject": "checkout-v2#1",
            "environment": "production",
            "reason": "because",
            "run": "checkout-v2#1" if flag == FLAG else None,
            "flag": str(flag),
        }
        return AuditEntry(**(values | changes))

    def happens(self, *actions: str, flag: FlagRef = FLAG, **changes: Any) -> list[str]:
        """Ids of what is recorded."""
        entries = [self.entry(action, flag, **changes) for action in actions]
        for one in entries:
            self.store.note(one)
        return [one.id for one in entries]

    def restarted(self) -> Announcer:
        notifications: Any = self.notifications
        return Announcer(
            store=self.store,
            notifications=notifications,
            channels={"oncall": self.oncall, "team": self.team, "pager": self.pager},
            clock=self.clock,
            metrics=self.metrics,
            chance=lambda: self.chance,
        )

    async def rounds(self, count: int, *, seconds: float = 1.0) -> None:
        for _ in range(count):
            await self.announcer.announce(until=LONG)
            self.clock.seconds += seconds

    async def left(self, channel: str) -> Backlog:
        backlog = {one.channel: one for one in await self.notifications.backlog()}
        found: Backlog = backlog.get(channel, Backlog(channel=channel))
        return found

    def counted(self, channel: str, result: str) -> float | None:
        labels = {"channel": channel, "result": result}
        return self.metrics.registry.get_sample_value("rampart_notifications_total", labels)

    def shown(self, series: str, channel: str) -> float | None:
        return self.metrics.registry.get_sample_value(series, {"channel": channel})


@pytest.fixture(autouse=True)
def _short_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcing, "ROUND_SECONDS", 0.02)


# — who is told —


async def test_each_channel_hears_the_events_it_asked_for_in_order() -> None:
    house = await House().filled()
    start, _, advance, pause, kill = house.happens("start", "confirm", "advance", "pause", "kill")
    await house.announcer.announce(until=LONG)
    assert house.team.heard == [start, advance, pause, kill]
    assert house.oncall.heard == [pause, kill]
    assert await house.store.unannounced(10) == []
    assert await house.notifications.backlog() == []


async def test_a_flag_killed_without_a_run_is_told_to_the_plans_that_name_it() -> None:
    house = await House().filled()
    (named,) = house.happens("kill", flag=OTHER)
    house.happens("kill", flag=replace(OTHER, key="nobodys"))
    await house.announcer.announce(until=LONG)
    assert house.oncall.heard == [named]
    assert house.oncall.took[0].rollout == "search-v4"
    assert await house.store.unannounced(10) == []


async def test_a_channel_that_keeps_incidents_is_told_of_their_end_though_no_plan_asks() -> None:
    house = await House([{"to": "pager", "events": ["killed"]}, {"to": "oncall", "events": ["killed"]}]).filled()
    house.happens("start", "pause", "kill", "reset", "start")
    await house.announcer.announce(until=LONG)
    assert [(told.event, told.only_ends) for told in house.pager.took] == [("killed", False), ("reset", True)]
    assert [told.event for told in house.oncall.took] == ["killed"]


def test_of_an_end_that_a_plan_asks_for_nobody_is_told_twice() -> None:
    plan = make_plan(notify=[{"to": "pager", "events": ["killed"]}, {"to": "pager", "events": ["reset"]}])
    entry = House().entry("reset")
    assert recipients(entry, [plan], {"pager"}) == [("pager", plan, False)]
    assert ENDS["reset"] == {"killed"}


async def test_a_plan_that_cannot_be_read_holds_nothing_up_and_its_kill_is_told_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    house = await House().filled()

    async def unreadable(*_: Any) -> None:
        raise Refused("the plan cannot be read")

    monkeypatch.setattr(house.store, "plan", unreadable)
    (kill,) = house.happens("kill")
    await house.announcer.announce(until=LONG)
    assert house.oncall.heard == [kill]


async def test_evidence_that_cannot_be_read_is_left_out_of_the_message_and_holds_nothing_up() -> None:
    house = await House().filled()
    ids = house.happens("pause", details={"verdicts": "of a later version"}) + house.happens("kill")
    await house.announcer.announce(until=LONG)
    assert house.oncall.heard == ids


# — in order, and nobody waits for another —


async def test_what_was_announced_is_not_announced_again() -> None:
    house = await House().filled()
    told = house.happens("pause")
    await house.rounds(3)
    await house.restarted().announce(until=LONG)
    assert house.oncall.heard == told


async def test_a_failing_channel_does_not_keep_the_others_waiting() -> None:
    house = await House().filled()
    told = house.happens("pause", "kill")
    house.oncall.ill = Unavailable("no route")
    await house.announcer.announce(until=LONG)
    assert house.team.heard == told
    assert (await house.left("oncall")).waiting == 2
    assert house.counted("oncall", "unavailable") == 1


async def test_a_hanging_channel_does_not_keep_the_others_waiting() -> None:
    house = await House().filled()
    told = house.happens("pause", "kill")
    house.oncall.hanging = asyncio.Event()
    await house.announcer.announce(until=LONG)
    assert house.team.heard == told
    house.oncall.hanging.set()
    await eventually(lambda: house.oncall.heard == told)


async def test_a_failing_channel_is_tried_again_ever_more_rarely_and_told_in_order() -> None:
    house = await House().filled()
    told = house.happens("pause", "kill")
    house.oncall.ill = Unavailable("no route")
    await house.rounds(100)
    assert house.counted("oncall", "unavailable") == 7  # after 0, 1, 3, 7, 15, 31 and 63 s
    house.oncall.ill = None
    house.clock.seconds += 300
    await house.announcer.announce(until=LONG)
    assert house.oncall.heard == told
    assert house.team.heard == told


async def test_a_flag_that_was_told_meanwhile_is_tried_again_as_soon_as_at_first() -> None:
    house = await House().filled()
    for _ in range(6):
        house.happens("pause")
        house.oncall.ill = Unavailable("no route")
        await house.rounds(1)
        house.oncall.ill = None
        await house.rounds(1)
    assert len(house.oncall.heard) == 6


async def test_lots_decide_how_soon_a_channel_is_tried_again() -> None:
    house = await House().filled("pause")
    house.oncall.ill, house.chance = Unavailable("no route"), 0.1
    await house.rounds(8)
    assert house.counted("oncall", "unavailable") == 6  # up to 1.6 s apart by then


async def test_a_receiver_that_says_when_to_come_back_is_not_asked_before() -> None:
    house = await House().filled("pause")
    house.oncall.ill = Unavailable("slower", again_in=40.0)
    await house.rounds(39)
    assert house.oncall.asked == 1
    await house.rounds(2)
    assert house.oncall.asked == 2


async def test_a_receiver_that_asks_for_a_day_is_asked_within_the_hour() -> None:
    house = await House().filled("pause")
    house.oncall.ill = Unavailable("slower", again_in=86_400_000.0)
    await house.announcer.announce(until=LONG)
    house.oncall.ill = None
    house.clock.seconds += 3601
    await house.announcer.announce(until=LONG)
    assert len(house.oncall.heard) == 1


async def test_a_message_that_one_receiver_stumbles_over_holds_up_only_its_own_flag() -> None:
    house = await House().filled()
    house.oncall.ill_of[str(FLAG)] = Unavailable("500")
    house.happens("pause", "kill")
    others = [*house.happens("pause", "kill", flag=OTHER)]
    await house.rounds(3)
    assert house.oncall.heard == others
    others += house.happens("pause", flag=OTHER)
    await house.rounds(3)
    assert house.oncall.heard == others
    assert (await house.left("oncall")).waiting == 2


async def test_a_flag_that_is_new_does_not_wait_for_the_long_back_off_of_another() -> None:
    house = await House().filled("pause")
    house.oncall.ill_of[str(FLAG)] = Unavailable("500")
    await house.rounds(1000)
    others = house.happens("kill", flag=OTHER)
    await house.rounds(17)
    assert house.oncall.heard == others


async def test_after_an_outage_nobody_waits_for_a_back_off_of_its_time() -> None:
    house = await House().filled()
    house.oncall.ill = Unavailable("no route")
    mine, others = house.happens("pause", "kill"), house.happens("pause", "kill", flag=OTHER)
    await house.rounds(1000)
    house.oncall.ill = None
    while not house.oncall.heard:
        await house.rounds(1)
    await house.rounds(3)
    by_flag = defaultdict(list)
    for told in house.oncall.took:
        by_flag[told.flag].append(told.id)
    assert by_flag == {str(FLAG): mine, str(OTHER): others}


async def test_while_a_channel_is_down_one_message_at_a_time_finds_out() -> None:
    house = await House().filled()
    for number in range(20):
        flag = replace(OTHER, key=f"flag-{number}")
        await house.store.save_plan(plan_of(f"plan-{number}", flag, NOTIFY), house.entry("apply"))
        house.happens("pause", flag=flag)
    house.oncall.ill = Unavailable("no route")
    await house.announcer.announce(until=LONG)
    at_first = house.oncall.asked
    assert at_first <= lane.AT_ONCE
    await house.rounds(4)
    assert house.oncall.asked == at_first + 2  # after 1 and 3 s
    for _ in range(200):
        before = house.oncall.asked
        await house.rounds(1)
        assert house.oncall.asked <= before + 1
    house.oncall.ill = None
    house.clock.seconds += 300
    await house.announcer.announce(until=LONG)
    assert len(house.oncall.heard) == 20


async def test_flags_are_told_at_once_and_those_of_one_flag_one_after_the_other() -> None:
    house = await House().filled("pause", "kill")
    house.happens("pause", "kill", flag=OTHER)
    house.oncall.hanging = asyncio.Event()
    await house.announcer.announce(until=LONG)
    assert house.oncall.asked == 2
    house.oncall.hanging.set()
    await eventually(lambda: len(house.oncall.heard) == 4)


# — nothing is lost —


async def test_a_restart_tells_whoever_was_not_told_and_nobody_else() -> None:
    house = await House().filled()
    told = house.happens("pause")
    house.oncall.ill = Unavailable("no route")
    await house.announcer.announce(until=LONG)
    house.oncall.ill = None
    await house.restarted().announce(until=LONG)
    assert house.oncall.heard == told
    assert house.team.heard == told


@pytest.mark.parametrize("carried_out", [True, False])
@pytest.mark.parametrize("method", ["take", "told", "failed", "bury", "waiting", "backlog"])
async def test_a_database_that_goes_away_loses_nothing_and_repeats_nothing(method: str, carried_out: bool) -> None:
    house = await House().filled()
    told = house.happens("pause", "kill")
    house.oncall.ill = {"failed": Unavailable("500"), "bury": Undeliverable("410")}.get(method)
    house.notifications.away = {method: carried_out}
    try:
        await house.announcer.announce(until=LONG)
    except StoreUnavailable:
        house.clock.seconds += 1
    house.oncall.ill, house.notifications.away = None, {}
    await house.rounds(5)
    dead = [letter.message.id for letter in await house.notifications.dead() if letter.message]
    assert dead + house.oncall.heard == told
    assert house.team.heard == told


@given(
    st.lists(st.tuples(st.sampled_from(sorted(EVENTS)), st.booleans()), max_size=20),
    st.lists(st.sampled_from(["well", "away", "restart", "of one flag", "no database"]), max_size=20),
)
async def test_every_row_is_told_in_order_whatever_fails_in_between(
    happens: list[tuple[str, bool]], course: list[str]
) -> None:
    house = await House().filled()
    wanted: dict[str, list[str]] = defaultdict(list)
    for action, other in happens:
        flag = OTHER if other else FLAG
        (number,) = house.happens(action, flag=flag)
        if EVENTS[action] in ("killed", "paused"):
            wanted[str(flag)].append(number)
    for health in [*course, "well", "well", "well"]:
        house.oncall.ill = Unavailable("no route") if health == "away" else None
        house.oncall.ill_of = {str(FLAG): Unavailable("500")} if health == "of one flag" else {}
        house.notifications.away = {"told": False} if health == "no database" else {}
        if health == "restart":
            house.announcer = house.restarted()
        await house.announcer.announce(until=LONG)
        house.clock.seconds += 301
    heard: dict[str, list[str]] = defaultdict(list)
    for told in house.oncall.took:
        if told.id not in heard[told.flag]:
            heard[told.flag].append(told.id)
    assert heard == wanted
    assert [one.channel for one in await house.notifications.backlog() if one.channel != "nobody"] == []
    assert await house.store.unannounced(10) == []


async def test_nothing_more_is_told_while_it_cannot_be_noted() -> None:
    house = await House().filled(*["pause"] * 8)
    house.notifications.away = {"told": False}
    await house.rounds(5)
    assert len(house.oncall.heard) == 1


async def test_what_was_told_is_forgotten_here_too() -> None:
    house = await House().filled()
    for _ in range(5):
        house.happens(*["pause"] * 8)
        await house.rounds(1)
    assert len(house.oncall.heard) == 40
    assert house.notifications.most_told <= lane.AT_ONCE


async def test_nothing_is_begun_that_might_last_beyond_the_lease() -> None:
    house = await House().filled("pause")
    await house.announcer.announce(until=house.clock.seconds + lane.DELIVERY_TIMEOUT_SECONDS - 0.1)
    assert house.oncall.asked == 0
    await house.announcer.announce(until=house.clock.seconds + lane.DELIVERY_TIMEOUT_SECONDS)
    assert house.oncall.asked == 1


async def test_whoever_rests_goes_on_with_nothing_and_shows_no_numbers_of_the_past() -> None:
    house = await House().filled("pause", "kill")
    house.oncall.hanging = asyncio.Event()
    await house.announcer.announce(until=LONG)
    assert house.shown("rampart_notifications_waiting", "oncall") == 2
    house.announcer.rest()
    house.oncall.hanging.set()
    await eventually(lambda: len(house.oncall.heard) == 1)
    await house.announcer.finish()
    assert len(house.oncall.heard) == 1
    assert house.shown("rampart_notifications_waiting", "oncall") is None


async def test_what_is_on_its_way_at_a_stop_may_arrive_and_is_not_told_again() -> None:
    house = await House().filled()
    told = house.happens("pause")
    house.oncall.hanging = asyncio.Event()
    await house.announcer.announce(until=LONG)
    stopping = asyncio.create_task(house.announcer.close())
    await asyncio.sleep(0)
    house.oncall.hanging.set()
    await stopping
    assert house.oncall.heard == told
    assert house.oncall.closed
    await house.restarted().announce(until=LONG)
    assert house.oncall.heard == told


async def test_closing_ends_a_delivery_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcing, "GRACE_SECONDS", 0.05)
    house = await House().filled("pause")
    house.oncall.hanging = asyncio.Event()
    await house.announcer.announce(until=LONG)
    await asyncio.wait_for(house.announcer.close(), timeout=20)
    assert (await house.left("oncall")).waiting == 1


# — dead letters —


async def test_what_a_receiver_refuses_is_a_dead_letter_and_what_is_behind_it_goes_on() -> None:
    house = await House().filled()
    refused = house.happens("pause")
    house.oncall.ill = Undeliverable("410: the address is gone")
    await house.announcer.announce(until=LONG)
    house.oncall.ill = None
    told = house.happens("kill")
    await house.announcer.announce(until=LONG)
    assert house.oncall.heard == told
    (letter,) = await house.notifications.dead()
    assert letter.message is not None
    assert ([letter.message.id], letter.why) == (refused, "410: the address is gone")
    assert house.counted("oncall", "undeliverable") == 1


async def test_a_defect_of_a_channel_is_a_dead_letter_that_tells_nothing_of_the_inside() -> None:
    house = await House().filled("pause")
    house.oncall.ill = ValueError("cannot render hooks.example/secret")
    await house.announcer.announce(until=LONG)
    (letter,) = await house.notifications.dead()
    assert letter.why == "ValueError, a defect; the server's log tells where"
    assert house.counted("oncall", "failed") == 1


async def test_a_dead_letter_that_is_sent_again_is_told_and_gone() -> None:
    house = await House().filled()
    told = house.happens("pause")
    house.oncall.ill = Undeliverable("410")
    await house.announcer.announce(until=LONG)
    house.oncall.ill = None
    await house.notifications.redeliver(Letters(channel="oncall"), house.entry("redeliver_notifications"))
    await house.announcer.announce(until=LONG)
    assert house.oncall.heard == told
    assert await house.notifications.backlog() == []


async def test_what_cannot_be_told_for_a_day_is_given_up_and_not_before() -> None:
    house = await House().filled("pause")
    house.oncall.ill = Unavailable("no route")
    while house.clock.seconds < GIVE_UP_SECONDS:
        await house.rounds(1, seconds=301.0)
    assert (await house.left("oncall")).dead == 0
    await house.rounds(2, seconds=301.0)
    (letter,) = await house.notifications.dead()
    assert letter.why == "no route"
    assert letter.attempts > 100
    assert house.counted("oncall", "given_up") == 1


async def test_what_waited_while_rampart_was_away_is_tried_more_than_once() -> None:
    house = await House().filled("pause")
    house.oncall.ill = Unavailable("no route")
    await house.announcer.announce(until=LONG)
    house.clock.seconds += 3 * GIVE_UP_SECONDS
    house.announcer = house.restarted()
    await house.rounds(GIVE_UP_ATTEMPTS - 1, seconds=301.0)
    assert (await house.left("oncall")).waiting == 1
    await house.rounds(1)
    assert (await house.left("oncall")).dead == 1


async def test_a_channel_the_settings_do_not_know_stops_nothing_and_is_given_up_after_a_day() -> None:
    house = await House().filled("step_back", "pause")
    await house.announcer.announce(until=LONG)
    assert len(house.oncall.heard) == 1
    assert (await house.left("nobody")).waiting == 1
    assert house.shown("rampart_notifications_waiting", "nobody") == 1
    house.clock.seconds += GIVE_UP_SECONDS + 1
    await house.announcer.announce(until=LONG)
    (letter,) = await house.notifications.dead()
    assert (letter.channel, letter.why) == ("nobody", announcing.NO_SUCH_CHANNEL)


async def test_what_is_kept_for_a_channel_that_stays_away_is_bounded_and_never_hides_new_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(announcing, "MAX_WAITING", 10)
    monkeypatch.setattr(announcing, "MAX_DEAD", 5)
    house = await House().filled()
    house.oncall.ill = Unavailable("no route")
    told = []
    for _ in range(4):
        told += house.happens(*["pause"] * 10)
        await house.rounds(1)
    assert house.team.heard == told
    left = await house.left("oncall")
    assert (left.waiting, left.dead) == (10, 5)
    assert (house.counted("oncall", "given_up"), house.counted("oncall", "dropped")) == (30, 25)
    assert house.shown("rampart_notification_dead_letters", "oncall") == 5
    house.oncall.ill = None
    house.clock.seconds += 300
    await house.announcer.announce(until=LONG)
    assert house.oncall.heard == told[-10:]


async def test_no_secret_is_kept_with_what_could_not_be_told() -> None:
    hide("of-the-hook-0123456789")
    house = await House().filled("pause")
    house.oncall.ill = Undeliverable("https://hooks.example/of-the-hook-0123456789 is gone\x00" + "x" * 9000)
    await house.announcer.announce(until=LONG)
    (letter,) = await house.notifications.dead()
    assert "of-the-hook" not in letter.why
    assert "\x00" not in letter.why
    assert len(letter.why) <= lane.WHY_CHARACTERS


# — what is shown of it —


async def test_what_waits_and_for_how_long_is_shown_and_nothing_is_shown_as_nothing() -> None:
    house = await House().filled()
    await house.announcer.announce(until=LONG)
    assert house.shown("rampart_notifications_waiting", "oncall") == 0
    house.oncall.ill = Unavailable("no route")
    house.happens("pause", "kill")
    await house.announcer.announce(until=LONG)
    house.clock.seconds += 90
    await house.announcer.announce(until=LONG)
    assert house.shown("rampart_notifications_waiting", "oncall") == 2
    assert house.shown("rampart_notification_oldest_waiting_seconds", "oncall") == 90
    assert house.counted("oncall", "undeliverable") == 0


async def test_the_log_channel_writes_what_a_person_needs(capsys: pytest.CaptureFixture[str]) -> None:
    channel = build("audit-trail", LogChannelSettings(), StillClock())
    told = message(1, House().entry("kill", reason="p95 0.61 s is above 3x baseline"), make_plan(), "")
    assert told is not None
    await channel.announce(told)
    await channel.close()
    written = capsys.readouterr()
    assert "p95 0.61 s is above 3x baseline" in written.out + written.err
