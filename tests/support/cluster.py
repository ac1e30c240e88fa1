"""Several replicas in the model world: one store, one clock, one provider, and a journal for each of them.

Their peers are each other, reached at once. What a test takes away is one replica's way to the database or to its
peers, the replica itself, or the database's latest history.
"""

import asyncio
import copy
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from controller import journal
from controller.domain.audit import AuditEntry
from controller.domain.catalogue import KillRecord, PeerAnswer
from controller.domain.flag import FlagState
from controller.domain.rollout import Run
from controller.domain.status import KillReceipt
from controller.errors import StoreUnavailable
from controller.providers import build
from controller.settings import BuiltinProviderSettings
from controller.store.memory import MemoryStore
from controller.store.memory_notifications import MemoryNotifications
from tests.support.engine import DANA, ModelProvider, ModelSource, VirtualClock, World
from tests.support.providers import make_host
from tests.support.rollouts import FLAG, make_plan, make_policy

STAGES = [
    {"name": "canary", "exposure": "1%", "bake": "30s"},
    {"name": "half", "exposure": "50%", "bake": "30s"},
    {"name": "everyone", "exposure": "100%", "bake": "30s"},
]
JOBS = ("check_in", "renew", "kill_retry", "tick")


class Link:
    """One replica's way to the database. While it is `away` nothing arrives there."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.away = False

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if not asyncio.iscoroutinefunction(found):
            return found

        async def asked(*arguments: Any, **named: Any) -> Any:
            if self.away:
                raise StoreUnavailable("the database does not answer")
            return await found(*arguments, **named)

        return asked


class Wire:
    """Implements `ports.Peers`: whoever is reached answers at once."""

    def __init__(self, cluster: "Cluster", name: str) -> None:
        self._cluster = cluster
        self._name = name

    async def tell(self, kills: Sequence[KillRecord]) -> AsyncIterator[PeerAnswer]:
        for other in self._cluster.up():
            if other.name != self._name and not self._cluster.cut_off & {self._name, other.name}:
                yield await other.killer.hear(kills)

    async def close(self) -> None:
        """Nothing is held open."""


class Member(World):
    """One replica of a cluster."""

    def __init__(self, cluster: "Cluster", name: str, folder: Path) -> None:
        self.link = Link(cluster.store)
        self._builtin = cluster.builtin
        store: Any = self.link
        super().__init__(
            folder,
            name=name,
            clock=cluster.clock,
            store=store,
            notifications=cluster.notifications,
            provider=cluster.provider,
            source=cluster.source,
            peers=Wire(cluster, name),
        )

    def restart(self, owner: str = "") -> None:
        super().restart(owner)
        if self._builtin:
            host = make_host(self.store, self.engine.board, replica=self.name)
            self.providers["main"] = build("main", BuiltinProviderSettings(), host)

    async def do(self, *jobs: str) -> None:
        """Each to its end, ticks of all groups included."""
        for job in jobs:
            await self.timers.run(job)
            if groups := self.engine.scheduler._groups:
                await asyncio.wait(groups)

    async def resume(self) -> None:
        await self.commands.resume("checkout-v2", DANA, "")

    async def advance(self) -> None:
        await self.commands.advance("checkout-v2", DANA, "")

    async def pause(self) -> None:
        await self.commands.pause("checkout-v2", DANA, "")

    async def reset(self, receipt: KillReceipt) -> None:
        await self.kill_ledger.reset(
            key="checkout-v2", environment=None, provider=None, kill_ids=[receipt.kill_id], actor=DANA, note=""
        )

    async def kill(self) -> KillReceipt:
        (receipt,) = await self.commands_kill()
        return receipt

    def confirmed(self, receipt: KillReceipt) -> bool:
        (held,) = [held for held in self.killbook.in_force() if held.kill.id == receipt.kill_id]
        return held.confirmed_at is not None

    async def until_confirmed(self, receipt: KillReceipt) -> None:
        """By one of its attempts: the others' journals are written by threads, whenever those get their turn."""
        async with asyncio.timeout(20):
            while not self.confirmed(receipt):
                await self.do("kill_retry")
                await asyncio.sleep(0.01)

    def journalled(self) -> set[str]:
        """The kills that its journal holds on disk, whatever memory says."""
        held: set[str] = set()
        for record in journal.read((self.folder / "kills.journal").read_bytes()):
            match record:
                case KillRecord(kill=kill):
                    held.add(kill.id)
                case journal.ResetRecord(kill_id=kill_id):
                    held.discard(kill_id)
        return held


class Cluster:
    """`second` is a second of everybody's life; the first member is the first to claim a run."""

    def __init__(self, folder: Path, names: str = "abc", *, builtin: bool = False) -> None:
        """`builtin`: each replica serves the flags of the store itself, instead of one provider for all."""
        self.builtin = builtin
        self.clock = VirtualClock()
        self.store = MemoryStore(self.clock.monotonic)
        self.notifications = MemoryNotifications(self.store, self.clock.monotonic)
        self.provider, self.source = ModelProvider(), ModelSource()
        self.plan = make_plan(stages=STAGES)
        self.down: set[str] = set()
        self.cut_off: set[str] = set()
        self.members = {name: Member(self, name, folder / name) for name in names}

    def __iter__(self) -> Iterator[Member]:
        return iter(self.members.values())

    def up(self) -> list[Member]:
        return [member for member in self if member.name not in self.down]

    # — life —

    async def second(self) -> None:
        for member in self.up():
            await member.do(*JOBS)
        self.clock.elapsed += 1.0

    async def run_for(self, seconds: float) -> None:
        end = self.clock.elapsed + seconds
        while self.clock.elapsed < end:
            await self.second()

    async def until(self, condition: Callable[[], bool], *, seconds: float = 300.0, what: str) -> None:
        """In virtual seconds."""
        end = self.clock.elapsed + seconds
        while not condition():
            assert self.clock.elapsed < end, f"waited {seconds:g} s in vain for {what}: {self.flag}"
            await self.second()

    async def check_in(self) -> None:
        for member in self.up():
            await member.do("check_in")

    async def begin(self) -> None:
        """Everybody checked in twice, so that each knows of all others, and the run started."""
        first = self.up()[0]
        for _ in range(2):
            await self.check_in()
        await first.apply(self.plan, make_policy(every="5s", window="15s"))
        await self.start()

    async def start(self) -> None:
        await self.up()[0].commands.start("checkout-v2", DANA, "")
        await self.until(lambda: self.exposure == 1_000, what="the first stage")

    def crash(self, name: str) -> None:
        self.down.add(name)

    def restart(self, name: str) -> None:
        self.down.discard(name)
        self.members[name].journal.close()
        self.members[name].restart()

    # — the database —

    def take_away(self, *names: str) -> None:
        for name in names or self.members:
            self.members[name].link.away = True

    def give_back(self, *names: str) -> None:
        for name in names or self.members:
            self.members[name].link.away = False

    def restart_database(self) -> None:
        self.store.life += "+"

    def copy_database(self) -> dict[str, Any]:
        """What a standby that lags behind holds."""
        return copy.deepcopy({name: value for name, value in vars(self.store).items() if name != "_now"})

    def fail_over(self, to: dict[str, Any]) -> None:
        vars(self.store).update(copy.deepcopy(to))
        self.restart_database()

    # — what there is to see —

    @property
    def flag(self) -> FlagState:
        return self.provider.flags[FLAG]

    @property
    def exposure(self) -> int:
        return self.flag.effective_exposure

    async def run(self) -> Run:
        found = await self.store.latest_run("checkout-v2")
        assert found is not None
        return found[0]

    async def entries(self, action: str) -> list[AuditEntry]:
        rows = [msgspec.json.decode(row.body, type=AuditEntry) for row in await self.store.audit()]
        return [entry for entry in rows if entry.action == action]

    async def explained(self) -> str:
        return (await self.up()[0].commands.explain("checkout-v2")).text

    async def release_raises(self) -> Sequence[str]:
        """As `rampart raises release` does."""
        entry = AuditEntry(
            id=f"release-{self.clock.elapsed}", at=self.clock.now(), actor="dana", action="release_raises",
            cause="user", subject="raises", environment="", reason="looked at it",
        )  # fmt: skip
        return await self.store.release_raises(entry)


@pytest.fixture
async def cluster(tmp_path: Path) -> Cluster:
    """Three replicas; the run that `a` holds is at 1 %."""
    cluster = Cluster(tmp_path)
    await cluster.begin()
    return cluster


async def soon(condition: Callable[[], bool], what: str) -> None:
    """Real seconds: a journal is written by a thread."""
    try:
        async with asyncio.timeout(5):
            while True:
                if condition():
                    return
                await asyncio.sleep(0.001)
    except TimeoutError:
        raise AssertionError(f"waited in vain for {what}") from None
