"""The model of PostgreSQL: the production model of the store behind connections that fail in every known way."""

import asyncio
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from controller.errors import StoreUnavailable
from controller.store.memory import MemoryStore

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.promises import Promises

TIMEOUT_SECONDS = 3.0
READS = frozenset(
    {
        "plan", "plans", "policy", "policies", "run", "latest_run", "latest_runs", "check_raise", "committed",
        "active_kills", "reset_among", "tokens", "sdk_keys", "flag_configs", "flag_config", "audit", "audit_head",
        "unannounced", "freezes", "latest_freezes", "triggers",
        "raises_after",
    }
)  # fmt: skip


AT_ONCE = frozenset({"plan", "plans", "policy", "policies", "audit_head", "renew"})
"""What a moment's delay cannot change: these answers are the same a moment later, or nobody acts on them."""


class Image:
    """What a standby had received when replication to it stopped."""

    def __init__(self, store: MemoryStore) -> None:
        self.rows = {name: replace(row) for name, row in store.rows.items()}
        self.kills = {name: replace(row) for name, row in store.kills.items()}
        self.replicas = {name: replace(row) for name, row in store.replicas.items()}
        self.barriers = {name: replace(row) for name, row in store.barriers.items()}
        self.leaders = dict(store.leaders)
        self.epochs = dict(store.epochs)
        self.frozen = dict(store.frozen)
        self.chain = list(store.chain)
        self.sequences = dict(store.sequences)
        self.flags = dict(store._flags)
        self.announced = set(store._announced)

    def restore(self, store: MemoryStore) -> None:
        store.rows, store.kills, store.replicas = self.rows, self.kills, self.replicas
        store.barriers, store.leaders, store.epochs = self.barriers, self.leaders, self.epochs
        store.chain, store.sequences, store.frozen = self.chain, self.sequences, self.frozen
        store._flags, store._announced = self.flags, self.announced


class Database:
    """`down`, `read_only`, `frozen` are of the server; `cut` of one replica's way to it."""

    def __init__(self, chance: Random, now: Callable[[], float], promises: "Promises") -> None:
        self.offset = 0.0
        self.store = MemoryStore(lambda: now() + self.offset)
        self.down = self.read_only = self.hanging = False
        self.cut: dict[str, str] = {}
        self.rates: dict[str, float] = {}
        self.lives = 1
        self._chance = chance
        self._promises = promises
        self._standby: Image | None = None

    # — what happens to the server —

    def restart(self) -> None:
        self.lives += 1
        self.store.life = str(self.lives)

    def stop_replication(self) -> None:
        self._standby = self._standby or Image(self.store)

    def fail_over(self) -> int:
        """Returns how many audit rows are lost."""
        lost = 0
        if self._standby is not None:
            lost = len(self.store.chain) - len(self._standby.chain)
            self._standby.restore(self.store)
            self._standby = None
            self._promises.failed_over()
        self.restart()
        return lost

    # — how it is asked —

    async def ask(self, process: "Process", name: str, args: Any, more: Any) -> Any:
        await process.gate()
        await self._travel(process, name)
        fate = self._fate(name)
        if fate == "late":
            delay = self._chance.uniform(0.0, 2 * TIMEOUT_SECONDS)
            asyncio.get_running_loop().call_later(delay, self._execute_late, process, name, args, more)
            await self._give_up("the database did not answer in time")
        if fate == "rolled back":
            raise StoreUnavailable("the database rolled back")
        result = self._execute(process, name, args, more)
        if name not in READS:
            await asyncio.sleep(self._chance.random() * 0.004)
            await process.gate()
        if fate == "lost answer":
            raise StoreUnavailable("the connection was reset")
        if isinstance(result, Exception):
            raise result
        return result

    async def _travel(self, process: "Process", name: str) -> None:
        cut = self.cut.get(process.name)
        if self.down or cut == "refused":
            await asyncio.sleep(0.002)
            raise StoreUnavailable("the connection was refused")
        if self.hanging or cut == "silent":
            await self._give_up("the database did not answer in time")
        if name in AT_ONCE and not self.rates:
            return
        slow = self._chance.random() < self.rates.get("slow", 0.0)
        await asyncio.sleep(self._chance.random() * (3.0 if slow else 0.004))
        if self.down or self.hanging or self.cut.get(process.name):
            raise StoreUnavailable("the connection was lost")
        if self.read_only and name not in READS:
            raise StoreUnavailable("cannot execute in a read-only transaction")

    async def _give_up(self, why: str) -> None:
        await asyncio.sleep(TIMEOUT_SECONDS)
        raise StoreUnavailable(why)

    def _fate(self, name: str) -> str:
        if not self.rates:
            return ""
        drawn = self._chance.random()
        for fate in ("lost answer", "late", "rolled back"):
            drawn -= self.rates.get(fate, 0.0)
            if drawn < 0:
                self._promises.count(f"database: {fate}")
                return fate
        return ""

    def _execute(self, process: "Process", name: str, args: Any, more: Any) -> Any:
        """At one instant, as a transaction is. Returns the error instead of raising it."""
        self._promises.before(name, args)
        work = getattr(self.store, name)(*args, **more)
        try:
            work.send(None)
        except StopIteration as done:
            self._promises.executed(process, name, args, done.value)
            return done.value
        except Exception as error:  # noqa: BLE001 - it is the caller's
            return error
        raise AssertionError(f"the model store waited in {name}")

    def _execute_late(self, process: "Process", name: str, args: Any, more: Any) -> None:
        if not self.down and not (self.read_only and name not in READS):
            self._execute(process, name, args, more)


class StoreLink:
    """`ports.Store` of one process."""

    def __init__(self, process: "Process", database: Database) -> None:
        self._process = process
        self._database = database

    def __getattr__(self, name: str) -> Any:
        database, process = self._database, self._process

        async def asked(*args: Any, **more: Any) -> Any:
            return await database.ask(process, name, args, more)

        setattr(self, name, asked)
        return asked
