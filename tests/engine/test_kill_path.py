"""The kill path alone: what it tells provider, journal, database, other replicas and people, and when."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from controller.access import Actor
from controller.domain.audit import AuditEntry
from controller.domain.catalogue import ActiveKill, Kill, KillRecord, PeerAnswer
from controller.domain.flag import FlagKill, FlagState, Observation, Unknown
from controller.domain.plan import FlagRef, Serve
from controller.domain.status import KillReceipt, KillStatus
from controller.engine import kill_path
from controller.errors import Conflict, Forbidden, KillInForce, NotFound, ProviderUnavailable, StoreUnavailable
from controller.held import is_off
from controller.journal import FileDisk, Journal, MergedRecord, read
from controller.killer import DOUBTFUL_SECONDS
from controller.lastknown import KnownFlag
from controller.store.memory import MemoryStore
from controller.telemetry import Metrics
from tests.support.cluster import soon
from tests.support.engine import DANA, VirtualClock

MAIN = FlagRef(provider="main", environment="production", key="checkout-v2")
STAGING = FlagRef(provider="main", environment="staging", key="checkout-v2")
OTHER = FlagRef(provider="other", environment="production", key="search")
SERVE = Serve(rollout="on", fallback="off")
QUIET_SECONDS = 20.0
ON = FlagState(enabled=True, exposure=10_000, off_serves="off")


class Backend:
    """A provider as the kill path sees it. `faults` are raised by, and `hangs_in` are, calls by name."""

    def __init__(self) -> None:
        self.flags: dict[FlagRef, Observation] = {}
        self.said: list[tuple[str, FlagKill]] = []
        self.faults: dict[str, Exception] = {}
        self.stubborn = False
        self.hangs_in: set[str] = set()
        self.meanwhile: Callable[[str], Awaitable[None]] | None = None

    async def _called(self, what: str) -> None:
        if self.meanwhile is not None:
            await self.meanwhile(what)
        if what in self.hangs_in:
            await asyncio.Event().wait()
        if what in self.faults:
            raise self.faults[what]

    async def kill(self, kill: FlagKill) -> Sequence[str]:
        self.said.append(("kill", kill))
        await self._called("kill")
        if not self.stubborn:
            self.flags[kill.flag] = FlagState(enabled=False, exposure=0)
        return ["backend"]

    async def observe(self, flags: Collection[FlagRef]) -> Mapping[FlagRef, Observation]:
        await self._called("observe")
        return {flag: self.flags[flag] for flag in flags if flag in self.flags}

    async def settle_kill(self, kill: FlagKill) -> None:
        self.said.append(("settle", kill))
        await self._called("settle")

    async def forget_kill(self, kill: FlagKill) -> None:
        self.said.append(("forget", kill))
        await self._called("forget")

    def asked(self, what: str) -> list[str]:
        return [kill.kill_id for said, kill in self.said if said == what]


class Database(MemoryStore):
    """Counts what it is asked; `away` it answers nothing."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(clock)
        self.clock = clock
        self.away = False
        self.asked: list[str] = []
        self.after_answer: Callable[[], Awaitable[object]] | None = None

    def lose_everything(self) -> None:
        self.__dict__.update(Database(self.clock).__dict__)

    def _asked(self, what: str) -> None:
        self.asked.append(what)
        if self.away:
            raise StoreUnavailable("no answer")

    async def record_kill(self, kill: Kill, entry: AuditEntry) -> bool:
        self._asked("record_kill")
        return await super().record_kill(kill, entry)

    async def active_kills(self) -> Sequence[ActiveKill]:
        self._asked("active_kills")
        answer = await super().active_kills()
        if self.after_answer is not None:
            after, self.after_answer = self.after_answer, None
            await after()
        return answer

    async def confirm_kill(self, kill_id: str, at: Any) -> None:
        self._asked("confirm_kill")
        await super().confirm_kill(kill_id, at)

    async def reset_among(self, kill_ids: Collection[str]) -> Collection[str]:
        self._asked("reset_among")
        return await super().reset_among(kill_ids)


class Others:
    """Other replicas by name; `writing` are those with a write on its way, `deaf` those that answer nothing."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.writing: set[str] = set()
        self.deaf: set[str] = set()
        self.forgetful: set[str] = set()
        self.told: list[list[str]] = []
        self.hangs = False

    async def tell(self, kills: Sequence[KillRecord]) -> AsyncIterator[PeerAnswer]:
        ids = tuple(record.kill.id for record in kills)
        self.told.append(list(ids))
        if self.hangs:
            await asyncio.Event().wait()
        for name in self.names:
            if name not in self.deaf:
                holds = () if name in self.forgetful else ids
                yield PeerAnswer(replica=name, holds=holds, writing=ids if name in self.writing else ())

    async def close(self) -> None:
        """Nothing is held open."""


class Desk:
    """One kill path and all around it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = VirtualClock()
        self.main, self.other = Backend(), Backend()
        self.main.flags = {MAIN: ON, STAGING: ON}
        self.other.flags = {OTHER: ON}
        self.database, self.others = Database(self.clock.monotonic), Others()
        self.remembered: list[set[str]] = []
        self.providers: dict[str, Any] = {"main": self.main, "other": self.other}
        self.begin()

    def begin(self, timeout_seconds: float = 60.0) -> None:
        self.journal = Journal(FileDisk(self.folder / "kills.journal"))
        self.journal.open()
        self.metrics = Metrics()
        self.killbook, _, self.kill_ledger, self.killer = kill_path(
            journal=self.journal,
            store=self.database,
            providers=self.providers,
            clock=self.clock,
            metrics=self.metrics,
            replica="here",
            peers=self.others,
            provider_timeout_seconds=timeout_seconds,
            quiet_seconds=QUIET_SECONDS,
            remember=self.remember,
        )
        self.killbook.learn([KnownFlag(plan="checkout", flag=MAIN, serve=SERVE)])

    def with_little_patience(self) -> None:
        """For what hangs: a provider has a fifth of a second."""
        self.journal.close()
        self.begin(timeout_seconds=0.2)

    def take_up(self) -> None:
        self.killbook.take_up(self.journal.kills.values(), merged=self.journal.merged)

    async def remember(self) -> None:
        self.remembered.append(set(self.journal.kills))

    def meet(self, *names: str) -> None:
        self.others.names = list(names)
        self.killbook.meet(names)

    async def kill(self, flag: FlagRef = MAIN, **changes: Any) -> KillReceipt:
        values: dict[str, Any] = {"actor": "dana", "reason": "INC-1", "cause": "user"}
        return await self.killer.kill_flag(flag, **(values | changes))

    async def reset(self, *kill_ids: str, note: str = "", **where: str) -> list[KillStatus]:
        place: dict[str, Any] = {"key": "checkout-v2", "environment": None, "provider": None} | where
        return await self.kill_ledger.reset(**place, kill_ids=kill_ids, actor=DANA, note=note)

    def confirmed(self) -> list[bool]:
        return [held.confirmed_at is not None for held in self.killbook.in_force()]

    def sample(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)

    async def calm(self) -> None:
        """Until all that was begun has ended."""
        async with asyncio.timeout(30):
            while self.killer._tasks:
                await asyncio.gather(*self.killer._tasks)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def lines(told: list[Any], event: str) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k != "event"} for line in told if line["event"] == event]


# — accepting —


async def test_a_kill_is_accepted_with_all_that_was_said_and_all_that_is_known(desk: Desk) -> None:
    with capture_logs() as told:
        receipt = await desk.kill(cause="policy", actor="rampart", run="checkout#1", details={"rule": "web/p95"})
    (held,) = desk.killbook.in_force()
    now = desk.clock.now()
    assert held.record == KillRecord(
        kill=Kill(
            id=receipt.kill_id, flag=MAIN, accepted_at=now, actor="rampart", reason="INC-1", cause="policy",
            run="checkout#1",
        ),
        serve=SERVE,
        details={"rule": "web/p95"},
    )  # fmt: skip
    assert receipt == KillReceipt(
        kill_id=receipt.kill_id, flag=MAIN, accepted_at=now, durable=True, provider_updated_at=now,
        confirmed_at=now, replicas=["backend"], run="checkout#1", silent=[], attempts=1,
    )  # fmt: skip
    assert (held.accepted_here, held.merged, held.doubtful, held.attempts) == (True, True, False, 1)
    assert (receipt.kill_id[:5], len(receipt.kill_id)) == ("kill-", 25)
    assert list(read((desk.folder / "kills.journal").read_bytes()))[-1] == held.record
    assert lines(told, "kill_accepted") == [
        {
            "log_level": "warning",
            "kill_id": receipt.kill_id,
            "flag": "main/production/checkout-v2",
            "actor": "rampart",
            "cause": "policy",
            "reason": "INC-1",
        }
    ]
    assert lines(told, "kill_confirmed") == [
        {
            "log_level": "warning",
            "kill_id": receipt.kill_id,
            "flag": "main/production/checkout-v2",
            "attempts": 1,
        }
    ]


async def test_a_flag_that_no_plan_names_is_killed_without_knowing_what_it_serves(desk: Desk) -> None:
    await desk.kill(OTHER)
    (held,) = desk.killbook.in_force()
    assert (held.record.serve, held.record.details, desk.confirmed()) == (None, {}, [True])


async def test_the_answer_names_who_holds_it_and_who_was_silent(desk: Desk) -> None:
    desk.meet("a", "b", "c")
    desk.others.deaf = {"c"}
    receipt = await desk.kill()
    assert (receipt.replicas, receipt.silent, receipt.confirmed_at) == (["a", "b", "backend"], ["c"], None)
    assert sorted(desk.killbook.others) == ["a", "b", "c"]


async def test_a_kill_by_key_or_by_plan_meets_every_flag_that_fits(desk: Desk) -> None:
    desk.killbook.learn([KnownFlag(plan="checkout", flag=MAIN, serve=SERVE)], [STAGING, OTHER])

    async def killed(key: str, environment: str | None = None, provider: str | None = None) -> list[FlagRef]:
        receipts = await desk.killer.kill(
            key=key, environment=environment, provider=provider, actor=DANA, reason="INC-1"
        )
        return [receipt.flag for receipt in receipts]

    assert await killed("checkout-v2") == [MAIN, STAGING]
    assert await killed("checkout") == [MAIN]
    assert await killed("checkout-v2", "staging") == [STAGING]
    assert await killed("checkout-v2", provider="main") == [MAIN, STAGING]
    assert await killed("search") == [OTHER]
    assert await killed("new", "production", "other") == [
        FlagRef(provider="other", environment="production", key="new")
    ]
    assert desk.killbook.known() == [KnownFlag(plan="checkout", flag=MAIN, serve=SERVE)]
    assert [status.reason for status in desk.killbook.kills_of(STAGING)] == ["INC-1"] * 3
    assert {status.actor for status in desk.killbook.active()} == {"dana"}
    assert {held.kill.cause for held in desk.killbook.in_force()} == {"user"}


async def test_with_one_provider_a_flag_that_no_plan_names_needs_its_environment_only(desk: Desk) -> None:
    del desk.providers["other"]
    (receipt,) = await desk.killer.kill(
        key="new", environment="production", provider=None, actor=DANA, reason="INC-1"
    )
    assert receipt.flag == FlagRef(provider="main", environment="production", key="new")


@pytest.mark.parametrize(
    ("environment", "provider", "told"),
    [
        (None, None, 'no plan and no flag is called "new"; '),
        ("production", None, 'no plan and no flag is called "new" in production; '),
        ("production", "third", 'no plan and no flag is called "new" in production; '),
        (None, "main", 'no plan and no flag is called "new"; '),
    ],
)
async def test_a_flag_that_cannot_be_told_is_refused_with_what_to_give(
    desk: Desk, environment: str | None, provider: str | None, told: str
) -> None:
    with pytest.raises(NotFound) as refused:
        await desk.killer.kill(key="new", environment=environment, provider=provider, actor=DANA, reason="r")
    assert str(refused.value) == told + "to kill a flag that no plan names give its environment and provider"


async def test_a_kill_that_is_not_allowed_in_one_environment_kills_nothing(desk: Desk) -> None:
    desk.killbook.learn([], [MAIN, STAGING])
    limited = Actor(name="kim", scopes=("kill",), environments=("production",))
    with pytest.raises(Forbidden):
        await desk.killer.kill(key="checkout-v2", environment=None, provider=None, actor=limited, reason="r")
    assert desk.killbook.in_force() == []
    reader = Actor(name="kim", scopes=("read",))
    with pytest.raises(Forbidden, match='"kill"'):
        await desk.killer.kill(
            key="checkout-v2", environment="production", provider=None, actor=reader, reason="r"
        )


async def test_automatic_kills_are_counted_within_a_time_and_manual_ones_not(desk: Desk) -> None:
    await desk.kill(cause="policy")
    await desk.kill()
    desk.clock.elapsed += 100.0
    await desk.kill(OTHER, cause="policy")
    assert desk.killbook.automatic_kills(99.9) == 1
    assert desk.killbook.automatic_kills(100.0) == 2


# — the answer waits for disk and provider, and hardly for the database —


async def test_the_answer_does_not_wait_for_a_provider_that_hangs_longer_than_two_seconds(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.killer.ANSWER_WITHIN_SECONDS", 0.05)
    desk.main.hangs_in = {"kill"}
    receipt = await desk.kill()
    assert (receipt.provider_updated_at, receipt.confirmed_at) == (None, None)
    assert desk.killbook.holds(MAIN) == [receipt.kill_id]
    for task in list(desk.killer._tasks):
        task.cancel()


async def test_the_answer_waits_briefly_for_the_database_and_not_at_all_once_it_was_silent(desk: Desk) -> None:
    hanging = asyncio.Event()

    async def hangs(kill: Kill, entry: AuditEntry) -> bool:
        await hanging.wait()
        return True

    desk.database.record_kill = hangs  # type: ignore[method-assign]
    begun = asyncio.get_running_loop().time()
    await desk.kill()
    waited = asyncio.get_running_loop().time() - begun
    assert 0.04 < waited < 30
    hanging.set()
    await desk.calm()
    assert desk.kill_ledger.all_merged()


# — towards off, and the proof of it —


@pytest.mark.parametrize(
    ("enabled", "exposure", "audience", "off"),
    [
        (False, 50_000, ("staff",), True),
        (True, 0, (), True),
        (True, 1, (), False),
        (True, 0, ("staff",), False),
        (True, 50_000, ("staff",), False),
    ],
)
def test_off_means_that_nobody_at_all_gets_the_rollout(
    enabled: bool, exposure: int, audience: tuple[str, ...], off: bool
) -> None:
    assert is_off(FlagState(enabled=enabled, exposure=exposure, audience=audience)) == off


SPARING = Serve(rollout="on", fallback="off", kill="fallthrough")


@pytest.mark.parametrize(
    ("serve", "enabled", "foreign", "off_serves", "off"),
    [
        (None, True, (), "off", True),
        (None, True, ("rule beta",), "off", False),
        (SERVE, True, ("rule beta",), "off", False),
        (SERVE, True, (), "off", True),
        (SERVE, False, ("rule beta",), "off", True),
        (SERVE, False, (), "on", False),
        (SERVE, False, (), None, True),
        (None, False, (), "on", True),
        (SPARING, True, ("rule beta",), "off", True),
        (SPARING, False, (), "on", False),
    ],
)
def test_rules_of_others_survive_a_kill_only_where_the_plan_says_so(
    serve: Serve | None, enabled: bool, foreign: tuple[str, ...], off_serves: str | None, off: bool
) -> None:
    seen = FlagState(enabled=enabled, exposure=0, foreign=foreign, off_serves=off_serves)
    assert is_off(seen, serve) == off
    if serve is SPARING and enabled:
        assert not is_off(replace(seen, exposure=1), serve)
        assert not is_off(replace(seen, audience=("staff",)), serve)


async def test_a_kill_serves_what_all_plans_of_the_flag_agree_on_and_off_wins(desk: Desk) -> None:
    def known(plan: str, serve: Serve) -> KnownFlag:
        return KnownFlag(plan=plan, flag=MAIN, serve=serve)

    desk.killbook.learn([known("one", SPARING)])
    assert desk.killbook.serve(MAIN) == SPARING
    desk.killbook.learn([known("one", SPARING), known("two", SERVE), known("three", SPARING)])
    assert desk.killbook.serve(MAIN) == SERVE
    assert desk.killbook.match("one", None, None) == desk.killbook.match("two", None, None) == [MAIN]
    assert len(desk.killbook.known()) == 3
    desk.killbook.learn([known("one", SPARING), known("two", Serve(rollout="on", fallback="control"))])
    assert desk.killbook.serve(MAIN) is None
    assert desk.killbook.serve(OTHER) is None


async def test_a_kill_is_confirmed_only_when_it_was_read_back_as_off(desk: Desk) -> None:
    desk.main.stubborn = True
    with capture_logs() as told:
        receipt = await desk.kill()
    assert desk.confirmed() == [False]
    assert lines(told, "kill_not_confirmed") == [
        {
            "log_level": "warning",
            "flag": "main/production/checkout-v2",
            "kill_id": receipt.kill_id,
            "seen": repr(ON),
            "silent": [],
        }
    ]
    del desk.main.flags[MAIN]
    with capture_logs() as told:
        await desk.killer.retry()
    (line,) = lines(told, "kill_not_confirmed")
    assert line["seen"] == repr(Unknown("the provider did not answer for it"))
    desk.main.stubborn = False
    desk.clock.elapsed += 3.0
    await desk.killer.retry()
    assert desk.confirmed() == [True]
    assert desk.main.asked("kill") == [receipt.kill_id] * 3


async def test_a_provider_that_fails_or_hangs_leaves_the_kill_open_and_says_why(desk: Desk) -> None:
    desk.with_little_patience()
    desk.main.faults = {"kill": ProviderUnavailable("503")}
    with capture_logs() as told:
        receipt = await desk.kill()
    common = {"log_level": "warning", "flag": "main/production/checkout-v2", "kill_id": receipt.kill_id}
    assert lines(told, "kill_not_confirmed") == [common | {"error": "503"}]
    (held,) = desk.killbook.in_force()
    assert (held.reached, held.updated_at) == ((), None)
    desk.main.faults, desk.main.hangs_in = {}, {"observe"}
    with capture_logs() as told:
        await desk.killer.retry()
    assert lines(told, "kill_not_confirmed") == [common | {"error": "timed out"}]
    assert (held.reached, held.updated_at, held.attempts) == (("backend",), desk.clock.now(), 2)
    assert not held.lowering


async def test_what_is_being_lowered_is_not_lowered_twice_at_once(desk: Desk) -> None:
    inside, most = 0, 0

    async def counting(what: str) -> None:
        nonlocal inside, most
        inside, most = inside + 1, max(most, inside + 1)
        await asyncio.sleep(0.01)
        inside -= 1

    desk.main.stubborn = True
    desk.main.meanwhile = counting
    await asyncio.gather(desk.kill(), desk.killer.retry())
    await asyncio.gather(desk.killer.retry(), desk.killer.retry())
    assert most == 1


async def test_a_kill_for_a_provider_that_is_not_configured_is_kept_and_told(desk: Desk) -> None:
    gone = FlagRef(provider="gone", environment="production", key="x")
    with capture_logs() as told:
        receipt = await desk.kill(gone)
    assert lines(told, "kill_provider_unknown") == [
        {"log_level": "error", "flag": "gone/production/x", "kill_id": receipt.kill_id}
    ]
    assert desk.killbook.holds(gone) == [receipt.kill_id]


async def test_the_latency_is_measured_once_and_by_the_replica_that_accepted(desk: Desk) -> None:
    desk.main.stubborn = True
    await desk.kill()
    desk.clock.elapsed += 3.0
    desk.main.stubborn = False
    await desk.killer.retry()
    assert desk.sample("rampart_kills_total", cause="user") == 1.0
    assert desk.sample("rampart_kill_latency_seconds_sum") == 3.0
    record = KillRecord(kill=Kill(id="heard", flag=OTHER, accepted_at=desk.clock.now(), actor="kim", reason="r"))
    await desk.killer.hear([record])
    await desk.calm()
    assert desk.confirmed() == [True, True]
    assert desk.sample("rampart_kills_total", cause="user") == 1.0


async def test_the_age_of_the_oldest_open_kill_is_shown_and_zero_without_one(desk: Desk) -> None:
    desk.main.stubborn = desk.other.stubborn = True
    await desk.kill()
    desk.clock.elapsed += 5.0
    await desk.kill(OTHER)
    desk.clock.elapsed += 2.0
    await desk.killer.retry()
    assert desk.sample("rampart_kill_unconfirmed_seconds") == 7.0
    desk.main.stubborn = desk.other.stubborn = False
    await desk.killer.retry()
    await desk.killer.retry()
    assert desk.sample("rampart_kill_unconfirmed_seconds") == 0.0


async def test_what_is_confirmed_is_not_pressed_on_with(desk: Desk) -> None:
    receipt = await desk.kill()
    await desk.killer.retry()
    assert desk.main.asked("kill") == [receipt.kill_id]


# — other replicas —


async def test_a_kill_waits_for_every_other_replica_or_until_none_can_write_any_more(desk: Desk) -> None:
    desk.meet("a", "b", "c")
    desk.others.deaf, desk.others.writing = {"b"}, {"c"}
    with capture_logs() as told:
        await desk.kill()
    (line,) = lines(told, "kill_not_confirmed")
    assert line["silent"] == ["b", "c"]
    desk.clock.elapsed += QUIET_SECONDS - 0.1
    await desk.killer.retry()
    assert desk.confirmed() == [False]
    desk.clock.elapsed += 0.1
    await desk.killer.retry()
    assert desk.confirmed() == [True]


async def test_a_kill_is_told_again_until_it_landed_everywhere_and_swept_to_those_that_never_heard(
    desk: Desk,
) -> None:
    desk.meet("a", "b")
    desk.others.forgetful = {"b"}
    receipt = await desk.kill()
    assert desk.others.told == [[receipt.kill_id]]
    await desk.killer.retry()
    await desk.calm()
    assert len(desk.others.told) == 2
    desk.clock.elapsed += QUIET_SECONDS
    await desk.killer.retry()
    await desk.calm()
    assert desk.confirmed() == [True]
    await desk.killer.sweep()
    await desk.calm()
    assert len(desk.others.told) == 4
    desk.others.forgetful = set()
    await desk.killer.sweep()
    await desk.calm()
    (held,) = desk.killbook.in_force()
    assert (held.heard, held.landed) == ({"a", "b"}, {"a", "b"})
    await desk.killer.sweep()
    assert len(desk.others.told) == 5


async def test_whoever_still_writes_has_heard_and_has_not_landed(desk: Desk) -> None:
    desk.meet("a")
    desk.others.writing = {"a"}
    await desk.kill()
    (held,) = desk.killbook.in_force()
    assert (held.heard, held.landed) == ({"a"}, set())
    desk.others.writing = set()
    await desk.killer.retry()
    await desk.calm()
    await desk.killer.retry()
    assert (held.landed, desk.confirmed()) == ({"a"}, [True])


async def test_a_telling_that_hangs_is_not_begun_again_and_the_read_back_waits_for_it_a_quarter_second(
    desk: Desk,
) -> None:
    desk.meet("a")
    desk.others.hangs = True
    desk.clock.elapsed += 1.0
    begun = asyncio.get_running_loop().time()
    await desk.kill()
    waited = asyncio.get_running_loop().time() - begun
    assert waited >= 0.25
    await desk.killer.retry()
    assert len(desk.others.told) == 1
    for task in list(desk.killer._tasks):
        task.cancel()


async def test_a_second_telling_that_hangs_is_not_begun_again_either(desk: Desk) -> None:
    desk.meet("a")
    desk.others.deaf = {"a"}
    await desk.kill()
    desk.others.hangs = True
    await desk.killer.retry()
    await desk.killer.retry()
    assert len(desk.others.told) == 2
    for task in list(desk.killer._tasks):
        task.cancel()


async def test_what_another_replica_accepted_holds_here_at_once_and_is_passed_on(desk: Desk) -> None:
    desk.meet("a")
    record = KillRecord(kill=Kill(id="k1", flag=MAIN, accepted_at=desk.clock.now(), actor="kim", reason="r"))
    with capture_logs() as told:
        answer = await desk.killer.hear([record])
    assert (answer.replica, answer.holds) == ("here", ("k1",))
    assert desk.killbook.holds(MAIN) == ["k1"]
    await desk.calm()
    assert desk.confirmed() == [True]
    assert desk.others.told == [["k1"]]
    assert set(desk.journal.kills) == {"k1"}
    assert [one.kill.id for one in await desk.database.active_kills()] == ["k1"]
    assert lines(told, "kill_heard") == [
        {"log_level": "warning", "kill_id": "k1", "flag": "main/production/checkout-v2", "actor": "kim"}
    ]
    (held,) = desk.killbook.in_force()
    assert (held.accepted_here, held.durable) == (False, True)
    again = await desk.killer.hear([record])
    assert (again.holds, again.writing) == (("k1",), ())
    assert desk.main.asked("kill") == ["k1"], "it was known already"


async def test_whoever_is_asked_says_for_which_flags_a_write_is_on_its_way(desk: Desk) -> None:
    now = desk.clock.now()
    records = [
        KillRecord(kill=Kill(id=kill_id, flag=flag, accepted_at=now, actor="kim", reason="r"))
        for kill_id, flag in (("k1", MAIN), ("k2", OTHER))
    ]
    async with desk.killer.writing(MAIN, since=desk.killbook.mark()):
        await desk.killer.hear(records)
        for _ in range(500):
            if all(held.durable for held in desk.killbook.in_force()):
                break
            await asyncio.sleep(0.01)
        answer = await desk.killer.hear(records)
    assert (answer.holds, answer.writing) == (("k1", "k2"), ("k1",))
    assert (await desk.killer.hear(records)).writing == ()


async def test_whoever_waits_for_our_disk_is_answered_that_it_has_not_got_it_yet(desk: Desk) -> None:
    async def never(record: object) -> bool:
        await asyncio.Event().wait()
        return True

    desk.journal.append = never  # type: ignore[method-assign]
    record = KillRecord(kill=Kill(id="k1", flag=MAIN, accepted_at=desk.clock.now(), actor="kim", reason="r"))
    answer = await desk.killer.hear([record])
    assert (answer.holds, answer.writing) == (("k1",), ("k1",))
    for task in list(desk.killer._tasks):
        task.cancel()


async def test_a_late_word_of_a_reset_kill_brings_it_not_back(desk: Desk) -> None:
    receipt = await desk.kill()
    (held,) = desk.killbook.in_force()
    await desk.reset(receipt.kill_id)
    answer = await desk.killer.hear([held.record])
    assert (answer.holds, desk.killbook.holds(MAIN)) == ((), [])


# — writes —


async def test_nothing_is_written_to_a_killed_flag_nor_on_what_was_read_before_the_kill(desk: Desk) -> None:
    mark = desk.killbook.mark()
    receipt = await desk.kill()
    with pytest.raises(KillInForce) as refused:
        async with desk.killer.writing(MAIN, since=desk.killbook.mark()):
            raise AssertionError("it was written")
    assert str(refused.value) == f"main/production/checkout-v2 is killed ({receipt.kill_id}); reset it first"
    async with desk.killer.writing(OTHER, since=mark):
        pass
    await desk.reset(receipt.kill_id)
    with pytest.raises(KillInForce) as refused:
        async with desk.killer.writing(MAIN, since=mark + 1):
            raise AssertionError("it was written")
    assert str(refused.value) == (
        "main/production/checkout-v2 was killed or reset after this write was decided; look again"
    )
    async with desk.killer.writing(MAIN, since=desk.killbook.mark()):
        pass
    assert mark + 2 == desk.killbook.mark()


async def test_a_kill_waits_for_a_write_on_its_way_and_kills_again_after_it(desk: Desk) -> None:
    go_on, lowered = asyncio.Event(), asyncio.Event()

    async def noted(what: str) -> None:
        lowered.set()

    desk.main.meanwhile = noted

    async def raising() -> None:
        async with desk.killer.writing(MAIN, since=desk.killbook.mark()):
            await go_on.wait()
            desk.main.flags[MAIN] = ON

    writing = asyncio.create_task(raising())
    await asyncio.sleep(0)
    killing = asyncio.create_task(desk.kill())
    await lowered.wait()
    assert desk.main.flags[MAIN] != ON
    assert desk.confirmed() == [False]
    go_on.set()
    receipt = await killing
    await writing
    assert desk.confirmed() == [True]
    assert desk.main.flags[MAIN] == FlagState(enabled=False, exposure=0)
    assert desk.main.asked("kill").count(receipt.kill_id) >= 2
    assert desk.killer._in_flight._writes == {}


async def test_a_write_during_which_a_kill_came_is_followed_by_lowering(desk: Desk) -> None:
    async with desk.killer.writing(MAIN, since=desk.killbook.mark()):
        desk.main.faults = {"kill": ProviderUnavailable("busy")}
        await desk.kill()
        desk.main.faults = {}
    assert desk.confirmed() == [True]


# — after a restart —


async def test_what_the_journal_holds_holds_again_and_waits_for_the_database_only_if_it_had_it(desk: Desk) -> None:
    first = await desk.kill()
    await desk.kill_ledger.merge()
    desk.database.away = True
    second = await desk.kill(OTHER)
    desk.journal.close()
    desk.begin()
    desk.main.said.clear()
    desk.other.said.clear()
    desk.take_up()
    desk.take_up()
    held = {one.kill.id: one for one in desk.killbook.in_force()}
    assert {kill_id: one.doubtful for kill_id, one in held.items()} == {first.kill_id: True, second.kill_id: False}
    assert all(one.durable and not one.accepted_here and not one.merged for one in held.values())
    await desk.killer.retry()
    assert (desk.main.asked("kill"), desk.other.asked("kill")) == ([], [second.kill_id])
    desk.clock.elapsed += DOUBTFUL_SECONDS - 0.1
    await desk.killer.retry()
    assert desk.main.asked("kill") == []
    desk.clock.elapsed += 0.1
    await desk.killer.retry()
    assert desk.main.asked("kill") == [first.kill_id]


async def test_a_doubtful_kill_is_pressed_on_with_once_the_database_says_that_it_is_in_force(desk: Desk) -> None:
    receipt = await desk.kill()
    await desk.kill_ledger.merge()
    desk.journal.close()
    desk.begin()
    desk.main.said.clear()
    desk.take_up()
    await desk.kill_ledger.merge()
    await desk.killer.retry()
    assert desk.main.asked("kill") == [receipt.kill_id]


async def test_a_kill_that_was_reset_elsewhere_while_this_replica_was_away_is_let_go(desk: Desk) -> None:
    receipt = await desk.kill()
    await desk.kill_ledger.merge()
    entry = replace(next(held.entry() for held in desk.killbook.in_force()), id="a reset elsewhere")
    desk.journal.close()
    await desk.database.reset_kills(MAIN, [receipt.kill_id], entry)
    desk.begin()
    desk.main.said.clear()
    desk.take_up()
    await desk.kill_ledger.merge()
    assert (desk.killbook.in_force(), desk.killbook.holds(MAIN)) == ([], [])
    assert (desk.main.asked("kill"), desk.main.asked("forget")) == ([], [receipt.kill_id])
    assert desk.journal.kills == {}


# — the database —


async def test_after_the_database_was_silent_no_answer_waits_for_it_until_a_merge_succeeds(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.killer.STORE_WAIT_SECONDS", 3600.0)
    desk.database.away = True
    with pytest.raises(StoreUnavailable):
        await desk.kill_ledger.merge()
    desk.database.away = False
    hanging = asyncio.Event()
    record = desk.database.record_kill

    async def slow(kill: Kill, entry: AuditEntry) -> bool:
        await hanging.wait()
        return await record(kill, entry)

    desk.database.record_kill = slow  # type: ignore[method-assign]
    async with asyncio.timeout(60):
        await desk.kill()
    hanging.set()
    await desk.calm()
    await desk.kill_ledger.merge()
    hanging.clear()
    waiting = asyncio.create_task(desk.kill(OTHER))
    await soon(lambda: desk.confirmed() == [True, True] and len(desk.killer._tasks) == 1, "all but the database")
    for _ in range(10):
        await asyncio.sleep(0)  # an answer that waits for nothing else comes within a few turns
    assert not waiting.done()
    hanging.set()
    await waiting


async def test_a_kill_of_another_replica_is_found_in_the_database_with_what_the_flag_serves(desk: Desk) -> None:
    theirs = Kill(id="k-theirs", flag=MAIN, accepted_at=desk.clock.now(), actor="kim", reason="r")
    entry = AuditEntry(
        id="k-theirs", at=theirs.accepted_at, actor="kim", action="kill", cause="user", subject="s",
        environment="production", reason="r",
    )  # fmt: skip
    await desk.database.record_kill(theirs, entry)
    await desk.kill_ledger.merge()
    (held,) = desk.killbook.in_force()
    assert held.record == KillRecord(kill=theirs, serve=SERVE)
    assert (held.merged, held.durable, held.accepted_here, desk.confirmed()) == (True, True, False, [True])


async def test_what_is_reset_while_the_database_answers_is_not_taken_up_again(desk: Desk) -> None:
    receipt = await desk.kill()
    await desk.kill_ledger.merge()
    desk.database.after_answer = lambda: desk.reset(receipt.kill_id)
    await desk.kill_ledger.merge()
    assert desk.killbook.holds(MAIN) == []


async def test_a_merge_writes_what_is_missing_both_ways_once(desk: Desk) -> None:
    desk.database.away = True
    with capture_logs() as told:
        mine = await desk.kill()
    assert lines(told, "kill_not_merged") == [
        {"log_level": "warning", "kill_id": mine.kill_id, "error": "no answer"}
    ]
    assert not desk.kill_ledger.all_merged()
    with pytest.raises(
        StoreUnavailable, match=r"^the database does not take up kills; they are kept and tried again$"
    ):
        await desk.kill_ledger.merge()
    desk.database.away = False
    theirs = Kill(id="k-theirs", flag=OTHER, accepted_at=desk.clock.now(), actor="kim", reason="r")
    entry = replace(next(held.entry() for held in desk.killbook.in_force()), id=theirs.id)
    await desk.database.record_kill(theirs, entry)
    await desk.kill_ledger.merge()
    assert desk.kill_ledger.all_merged()
    assert desk.killbook.holds(OTHER) == ["k-theirs"]
    assert desk.other.asked("kill") == ["k-theirs"]
    active = {one.kill.id: one.confirmed_at for one in await desk.database.active_kills()}
    assert active[mine.kill_id] == desk.clock.now()
    assert desk.journal.merged == {mine.kill_id, "k-theirs"}
    assert list(read((desk.folder / "kills.journal").read_bytes()))[-1] == MergedRecord(
        kill_ids=tuple(sorted([mine.kill_id, "k-theirs"]))
    )
    desk.database.asked.clear()
    await desk.kill_ledger.merge()
    assert {one.kill.id: one.confirmed_at for one in await desk.database.active_kills()}["k-theirs"] is not None
    size = (desk.folder / "kills.journal").stat().st_size
    desk.database.asked.clear()
    await desk.kill_ledger.merge()
    assert desk.database.asked == ["active_kills"]
    assert (desk.folder / "kills.journal").stat().st_size == size


async def test_a_restarted_database_is_asked_once_what_it_still_has(desk: Desk) -> None:
    await desk.kill()
    await desk.kill(OTHER)
    await desk.kill_ledger.merge()
    desk.database.asked.clear()
    await desk.kill_ledger.forgotten()
    assert desk.database.asked == ["active_kills", "active_kills"]
    assert all(held.merged and held.confirmation_stored for held in desk.killbook.in_force())


async def test_a_database_that_lost_a_kill_gets_it_again(desk: Desk) -> None:
    receipt = await desk.kill()
    await desk.kill_ledger.merge()
    desk.database.lose_everything()
    await desk.kill_ledger.merge()
    assert "reset_among" in desk.database.asked
    assert desk.killbook.holds(MAIN) == [receipt.kill_id]
    assert not desk.kill_ledger.all_merged()
    await desk.kill_ledger.merge()
    (found,) = await desk.database.active_kills()
    assert (found.kill.id, found.confirmed_at is not None) == (receipt.kill_id, True)


async def test_after_another_life_of_the_database_everything_is_written_again(desk: Desk) -> None:
    receipt = await desk.kill()
    await desk.kill_ledger.merge()
    desk.database.lose_everything()
    await desk.kill_ledger.forgotten()
    (found,) = await desk.database.active_kills()
    assert (found.kill.id, found.confirmed_at is not None) == (receipt.kill_id, True)


# — staying off —


async def test_what_comes_back_is_lowered_again_and_what_stays_off_is_left_alone(desk: Desk) -> None:
    mine, theirs = await desk.kill(), await desk.kill(OTHER)
    desk.main.flags[MAIN] = ON
    desk.clock.elapsed += 9.0
    with capture_logs() as told:
        await desk.killer.sweep()
    assert lines(told, "killed_flag_came_back") == [
        {"log_level": "error", "flag": "main/production/checkout-v2", "kill_id": mine.kill_id}
    ]
    assert desk.main.asked("kill") == [mine.kill_id] * 2
    assert desk.other.asked("kill") == [theirs.kill_id]
    assert [status.confirmed_at for status in desk.killbook.active()] == [desk.clock.now(), theirs.confirmed_at]


async def test_what_cannot_be_read_is_not_taken_for_having_come_back(desk: Desk) -> None:
    desk.with_little_patience()
    receipt = await desk.kill()
    desk.main.flags[MAIN] = Unknown("timeout")
    await desk.killer.sweep()
    desk.main.hangs_in = {"observe"}
    await desk.killer.sweep()
    assert desk.main.asked("kill") == [receipt.kill_id]
    assert desk.confirmed() == [True]


# — reset —


async def test_a_reset_lets_go_of_the_named_kills_in_order_and_says_so(desk: Desk) -> None:
    first, second = await desk.kill(run="checkout#1"), await desk.kill()
    await desk.kill_ledger.merge()
    desk.main.said.clear()
    statuses = await desk.reset(first.kill_id, note="false alarm")
    now = desk.clock.now()
    assert statuses == [
        KillStatus(
            kill_id=first.kill_id, flag=MAIN, accepted_at=now, actor="dana", reason="INC-1", confirmed_at=now,
            run="checkout#1",
        )
    ]  # fmt: skip
    assert [(said, kill.kill_id) for said, kill in desk.main.said] == [
        ("settle", first.kill_id),
        ("forget", first.kill_id),
    ]
    assert desk.killbook.holds(MAIN) == [second.kill_id]
    assert set(desk.journal.kills) == {second.kill_id}
    assert desk.remembered == [{first.kill_id, second.kill_id}], "remembered before the journal forgets"
    rows = await desk.database.audit()
    entry = next(row.body for row in rows if '"action":"reset"' in row.body)
    for part in (
        f'"reason":"reset {first.kill_id}: false alarm; the flag stays off"',
        '"at":"2026-11-18T12:00:00Z"',
        '"actor":"dana"',
        '"cause":"user"',
        '"subject":"main/production/checkout-v2"',
        '"environment":"production"',
        '"flag":"main/production/checkout-v2"',
        f'"details":{{"kill_ids":["{first.kill_id}"]}}',
    ):
        assert part in entry
    await desk.reset(second.kill_id)
    rows = await desk.database.audit()
    assert any(f'"reason":"reset {second.kill_id}; the flag stays off"' in row.body for row in rows)
    assert desk.killbook.in_force() == []


async def test_a_reset_names_kills_that_hold_the_flag_and_all_or_nothing(desk: Desk) -> None:
    receipt = await desk.kill()
    with pytest.raises(Conflict, match=r"^name the kill ids of checkout-v2 to reset$"):
        await desk.reset()
    with pytest.raises(Conflict, match=r"^checkout-v2 is not held by a, b$"):
        await desk.reset("b", receipt.kill_id, "a")
    assert desk.killbook.holds(MAIN) == [receipt.kill_id]
    reader = Actor(name="kim", scopes=("kill",))
    with pytest.raises(Forbidden, match='"operate" in production'):
        await desk.kill_ledger.reset(
            key="checkout-v2", environment=None, provider=None, kill_ids=[receipt.kill_id], actor=reader, note=""
        )


async def test_a_kill_the_database_does_not_have_is_written_first_or_not_reset(desk: Desk) -> None:
    desk.database.away = True
    receipt = await desk.kill()
    with pytest.raises(StoreUnavailable) as refused:
        await desk.reset(receipt.kill_id)
    assert str(refused.value) == "the kill is not in the database yet, so it cannot be reset; try again later"
    assert desk.killbook.holds(MAIN) == [receipt.kill_id]
    desk.database.away = False
    await desk.reset(receipt.kill_id)
    assert desk.killbook.holds(MAIN) == []


async def test_a_reset_of_two_flags_by_one_key_releases_both(desk: Desk) -> None:
    desk.killbook.learn([], [MAIN, STAGING])
    one, two = await desk.kill(MAIN), await desk.kill(STAGING)
    statuses = await desk.reset(one.kill_id, two.kill_id)
    assert [status.flag for status in statuses] == [MAIN, STAGING]
    assert desk.killbook.in_force() == []


async def test_several_kills_of_a_flag_are_reset_in_one_entry(desk: Desk) -> None:
    first, second = await desk.kill(), await desk.kill()
    await desk.reset(second.kill_id, first.kill_id)
    rows = await desk.database.audit()
    names = f"{first.kill_id}, {second.kill_id}"
    assert sum(f'"reason":"reset {names}; the flag stays off"' in row.body for row in rows) == 1


async def test_a_reset_reaches_only_the_environment_and_provider_that_are_named(desk: Desk) -> None:
    desk.killbook.learn([], [MAIN, STAGING])
    receipt = await desk.kill(MAIN)
    for where in ({"environment": "staging"}, {"environment": "production", "provider": "other"}):
        with pytest.raises(Conflict):
            await desk.reset(receipt.kill_id, **where)
    assert desk.killbook.holds(MAIN) == [receipt.kill_id]
    await desk.reset(receipt.kill_id, environment="production", provider="main")
    assert desk.killbook.holds(MAIN) == []


async def test_a_kill_that_was_not_read_back_is_not_reset_unless_nothing_can_read_it(desk: Desk) -> None:
    desk.main.stubborn = True
    receipt = await desk.kill()
    with pytest.raises(Conflict) as refused:
        await desk.reset(receipt.kill_id)
    assert str(refused.value) == (
        f"{receipt.kill_id} is not confirmed yet: wait until the flag was read back as off"
    )
    gone = FlagRef(provider="gone", environment="production", key="x")
    desk.killbook.learn([], [gone])
    unreadable = await desk.kill(gone)
    await desk.reset(unreadable.kill_id, key="x")
    assert desk.killbook.holds(gone) == []


async def test_two_resets_of_one_kill_at_once_release_it_once_and_leave_nothing(desk: Desk) -> None:
    receipt = await desk.kill()

    async def slow(what: str) -> None:
        await asyncio.sleep(0.01)

    desk.main.meanwhile = slow
    both = await asyncio.gather(desk.reset(receipt.kill_id), desk.reset(receipt.kill_id))
    assert [[status.kill_id for status in statuses] for statuses in both] == [[receipt.kill_id]] * 2
    assert (desk.killbook.in_force(), desk.killbook.holds(MAIN), desk.killbook._of_flag) == ([], [], {})
    rows = await desk.database.audit()
    assert sum('"action":"reset"' in row.body for row in rows) == 1


async def test_a_provider_that_does_not_settle_keeps_the_kill(desk: Desk) -> None:
    desk.with_little_patience()
    receipt = await desk.kill()
    desk.main.hangs_in = {"settle"}
    with pytest.raises(ProviderUnavailable, match=r"^the provider did not answer in time; try again$"):
        await desk.reset(receipt.kill_id)
    assert desk.killbook.holds(MAIN) == [receipt.kill_id]


@pytest.mark.parametrize(
    ("fault", "hangs", "error"),
    [({"forget": ProviderUnavailable("503")}, set(), "503"), ({}, {"forget"}, "timed out")],
)
async def test_a_provider_that_does_not_let_go_keeps_the_kill_until_a_merge(
    desk: Desk, fault: dict[str, Exception], hangs: set[str], error: str
) -> None:
    desk.with_little_patience()
    receipt = await desk.kill()
    desk.main.faults, desk.main.hangs_in = fault, hangs
    with capture_logs() as told:
        await desk.reset(receipt.kill_id)
    assert lines(told, "kill_not_released") == [
        {"log_level": "warning", "kill_id": receipt.kill_id, "error": error}
    ]
    assert desk.killbook.holds(MAIN) == [receipt.kill_id]
    assert set(desk.journal.kills) == {receipt.kill_id}
    desk.main.faults, desk.main.hangs_in = {}, set()
    await desk.kill_ledger.merge()
    assert desk.killbook.holds(MAIN) == []


async def test_only_so_many_reset_kills_are_remembered(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controller.killbook.RELEASED_KEPT", 2)
    records = []
    for _ in range(3):
        receipt = await desk.kill()
        records += [held.record for held in desk.killbook.in_force()]
        await desk.reset(receipt.kill_id)
    assert (await desk.killer.hear(records)).holds == (records[0].kill.id,), "the oldest was forgotten"
