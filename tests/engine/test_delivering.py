"""From the audit log in PostgreSQL to receivers that fail in every way: told once it can be, in order, or dead."""

import asyncio
import re
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from msgspec import Struct

from controller import announcer as announcing
from controller.announcer import Announcer
from controller.channels import build
from controller.domain.audit import AuditEntry
from controller.domain.message import EVENTS, Message
from controller.domain.plan import FlagRef
from controller.ports import Channel
from controller.settings import (
    ChannelSettings,
    EmailChannelSettings,
    PagerDutyChannelSettings,
    SlackChannelSettings,
    WebhookChannelSettings,
)
from controller.store.notifications import PostgresNotifications
from controller.store.postgres import PostgresStore
from controller.telemetry import Metrics
from tests.engine.test_announcer import plan_of
from tests.store.samples import sdk_key
from tests.support.postgres import database, postgres_server, store
from tests.support.receivers import Fault, HttpReceiver, Received, Receiver, SmtpReceiver

__all__ = ["database", "postgres_server", "store"]

NAMES = ("hook", "chat", "pager", "mail")
FLAGS = [FlagRef(provider="main", environment="production", key=f"flag-{number}") for number in range(4)]
ACTIONS = ("start", "pause", "resume", "kill", "reset")
NOTIFY = [
    {"to": name, "events": ["started", "paused", "resumed", "killed", "reset"]}
    for name in ("hook", "chat", "mail")
] + [{"to": "pager", "events": ["paused", "killed"]}]
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
LONG = 1e9
MARK = re.compile(r"mark-(\d+)-mark")
FOR_GOOD = {Fault.REFUSED, Fault.ENDED}
QUICK = [Fault.BROKEN, Fault.RESET, Fault.LOST, Fault.ENDED, None]


class FastClock:
    """Time passes when a test says so: nobody waits for a back-off."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return datetime(2026, 11, 21, 12, tzinfo=UTC) + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds


class Post(Struct):
    """A channel of each kind with its receiver."""

    channels: dict[str, Channel]
    receivers: dict[str, Receiver]

    def heard(self, name: str) -> list[int]:
        """The marks of all messages that were taken, as they came."""
        found = [MARK.search(text_of(one)) for one in self.receivers[name].taken]
        return [int(mark[1]) for mark in found if mark]


def text_of(received: Received) -> str:
    if b"MIME-Version" in received.body:
        plain = received.mail.get_body(("plain",))
        assert plain is not None
        return str(plain.get_content())
    return received.body.decode()


@pytest.fixture
async def post(tmp_path: Path) -> AsyncIterator[Post]:
    def written(name: str, text: str) -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    async with AsyncExitStack() as stack:
        http = {name: await stack.enter_async_context(HttpReceiver().open()) for name in ("hook", "chat")}
        http["pager"] = await stack.enter_async_context(HttpReceiver(takes=202).open())
        mail = await stack.enter_async_context(SmtpReceiver().open())
        local: dict[str, Any] = {"allow_private": True, "timeout_seconds": 0.15}
        settings: dict[str, ChannelSettings] = {
            "hook": WebhookChannelSettings(
                url=http["hook"].url, secret_files=[written("secret", SECRET)], **local
            ),
            "chat": SlackChannelSettings(
                url_file=written("chat", f"{http['chat'].url}/services/T0/B0/key"), **local
            ),
            "pager": PagerDutyChannelSettings(
                url=http["pager"].url, routing_key_file=written("key", "R" * 32), **local
            ),
            "mail": EmailChannelSettings(
                host="127.0.0.1",
                port=mail.port,
                security="none",
                sender="rampart@acme.example",
                to=["oncall@acme.example"],
                timeout_seconds=0.15,
            ),
        }
        channels = {name: build(name, one, FastClock()) for name, one in settings.items()}
        yield Post(channels, {**http, "mail": mail})
        for channel in channels.values():
            await channel.close()


@pytest.fixture(autouse=True)
def _short_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcing, "ROUND_SECONDS", 0.05)
    monkeypatch.setattr(announcing, "GRACE_SECONDS", 0.0)


class Office:
    """The audit log and the announcer in front of it. `restarted` is one that knows nothing of the one before."""

    def __init__(self, store: PostgresStore, channels: dict[str, Channel]) -> None:
        self.store, self.channels = store, channels
        self.notifications = PostgresNotifications(store.connections)
        self.clock, self.metrics = FastClock(), Metrics()
        self.chance = Random(7)
        self.wanted: dict[str, dict[str, list[int]]] = {name: defaultdict(list) for name in channels}
        self.marks = 0

    def announcer(self, store: Any = None, notifications: Any = None) -> Announcer:
        return Announcer(
            store=store or self.store,
            notifications=notifications or self.notifications,
            channels=self.channels,
            clock=self.clock,
            metrics=self.metrics,
            chance=self.chance.random,
        )

    async def plan(self) -> None:
        for flag in FLAGS:
            plan = plan_of(f"plan-{flag.key}", flag, [one for one in NOTIFY if one["to"] in self.channels])
            await self.store.save_plan(plan, self.entry("apply", flag))

    def entry(self, action: str, flag: FlagRef) -> AuditEntry:
        self.marks += 1
        return AuditEntry(
            id=f"entry-{self.marks:04}", at=self.clock.now(), actor="rampart", action=action, cause="policy",
            subject=str(flag), environment="production", reason=f"mark-{self.marks}-mark", flag=str(flag),
        )  # fmt: skip

    async def happens(self, *actions: str) -> None:
        """To every flag, one after the other."""
        for action in actions:
            for flag in FLAGS:
                entry = self.entry(action, flag)
                # Anything that is recorded with an entry of its own.
                await self.store.save_sdk_key(sdk_key(entry.id, entry.id.rjust(32).encode()), entry)
                for notify in NOTIFY:
                    if notify["to"] in self.channels and EVENTS[action] in notify["events"]:
                        self.wanted[str(notify["to"])][str(flag)].append(self.marks)

    async def dead(self, channel: str) -> set[int]:
        letters = await self.notifications.dead(channel=channel, limit=1000)
        return {int(MARK.findall(one.message.reason)[0]) for one in letters if one.message}

    async def until_done(self, announcer: Announcer) -> None:
        async with asyncio.timeout(60):
            while True:
                await announcer.announce(until=LONG)
                if not any(one.waiting for one in await self.notifications.backlog()):
                    return
                self.clock.seconds += 20


def first_heard(marks: Iterable[int]) -> list[int]:
    return list(dict.fromkeys(marks))


async def test_every_event_is_told_once_it_can_be_and_in_order_or_is_a_dead_letter(
    store: PostgresStore, post: Post
) -> None:
    office, chance = Office(store, post.channels), Random(7)
    await office.plan()
    await office.happens(*ACTIONS)
    scripts: dict[str, list[Fault | None]] = {}
    for name, receiver in post.receivers.items():
        scripts[name] = [None, *chance.sample(list(Fault), len(Fault)), None, *chance.choices(QUICK, k=6)]
        receiver.script.extend(scripts[name])
    await office.until_done(office.announcer())
    for name in NAMES:
        assert not post.receivers[name].script, f"{name} was not asked often enough to show all faults"
        heard, dead = post.heard(name), await office.dead(name)
        faults = Counter(scripts[name])
        for flag, wanted in office.wanted[name].items():
            mine = first_heard(mark for mark in heard if mark in wanted)
            assert mine == sorted(mine), f"{name} heard of {flag} out of order"
            assert set(mine) | dead >= set(wanted), f"{name} was not told of everything about {flag}"
        again = len(heard) - len(set(heard))
        assert again <= faults[Fault.LOST], f"{name} was told again what it had confirmed"
        assert len(dead) <= sum(faults[one] for one in (*FOR_GOOD, Fault.REDIRECT)), (
            f"{name} lost what it could take"
        )
        assert dead.isdisjoint(heard) or faults[Fault.LOST]


async def test_a_receiver_that_never_answers_keeps_no_other_and_no_other_flag_waiting(
    store: PostgresStore, post: Post
) -> None:
    office = Office(store, post.channels)
    await office.plan()
    await office.happens("pause")
    post.receivers["hook"].fault = Fault.SLOW
    announcer = office.announcer()
    async with asyncio.timeout(20):
        while any(len(post.heard(name)) < len(FLAGS) for name in NAMES if name != "hook"):
            await announcer.announce(until=LONG)
            office.clock.seconds += 20
    assert post.heard("hook") == []
    post.receivers["hook"].heal()
    await office.until_done(announcer)
    assert len(set(post.heard("hook"))) == len(FLAGS)


# — a process that ends in the middle of anything —


class Life:
    """One life of a process: it ends at the `nth` call to the outside, before it or when it was carried out."""

    def __init__(self, nth: int, *, carried_out: bool) -> None:
        self._left, self._carried_out = nth, carried_out
        self.ended = asyncio.Event()

    async def call(self, work: Callable[[], Awaitable[Any]]) -> Any:
        self._left -= 1
        if self._left == 0 and self._carried_out:
            await work()
        if self._left <= 0:
            self.ended.set()
            await asyncio.Event().wait()
        return await work()


class Mortal:
    """Whatever is called through it is called by that life."""

    def __init__(self, inner: Any, life: Life) -> None:
        self._inner, self._life = inner, life

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not asyncio.iscoroutinefunction(found):
            return found
        return lambda *args, **named: self._life.call(lambda: found(*args, **named))


class Memo:
    """A channel that notes what it took."""

    resolves = False

    def __init__(self) -> None:
        self.heard: list[int] = []

    async def announce(self, message: Message) -> None:
        self.heard.append(int(MARK.findall(message.reason)[0]))

    async def close(self) -> None:
        """Nothing is held open."""


@pytest.mark.parametrize("carried_out", [False, True], ids=["before", "after"])
async def test_a_process_that_is_killed_at_any_point_loses_nothing_and_repeats_what_was_on_its_way(
    store: PostgresStore, carried_out: bool
) -> None:
    memo = Memo()
    office = Office(store, {"hook": memo})
    await office.plan()
    lives = 0
    for nth in range(1, 40, 2):
        await office.happens("pause", "kill")
        life = Life(nth, carried_out=carried_out)
        mortal = Office(store, {"hook": Mortal(memo, life)})
        mortal.clock = office.clock
        announcer = mortal.announcer(Mortal(store, life), Mortal(office.notifications, life))
        running = asyncio.create_task(announcer.announce(until=LONG))
        dying = asyncio.create_task(life.ended.wait())
        await asyncio.wait([running, dying], return_when=asyncio.FIRST_COMPLETED)
        lives += life.ended.is_set()
        for task in (running, dying):
            task.cancel()
        await announcer.finish()
    await office.until_done(office.announcer())
    assert lives > 12
    wanted = office.wanted["hook"]
    for flag, marks in wanted.items():
        assert first_heard(one for one in memo.heard if one in marks) == marks, flag
    assert len(memo.heard) - len(set(memo.heard)) <= lives * len(FLAGS)
