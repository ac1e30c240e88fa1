"""The built-in provider on a real database whose connection can be cut, and people who write past it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from msgspec.structs import replace

from controller.domain.audit import AuditEntry
from controller.domain.catalogue import FlagConfig
from controller.domain.sdkflag import killed, turned_on, with_version
from controller.errors import Conflict, StoreUnavailable
from controller.ports import FlagProvider
from controller.providers import build
from controller.settings import BuiltinProviderSettings
from controller.store.postgres import PostgresStore
from tests.contracts.provider_world import FLAG, WITHOUT_HTTP, Beyond, Edit, Fault, HeldWrite, Knowledge
from tests.support.providers import make_host
from tests.support.sdk_door import make_board, make_flag

CANNOT: dict[Beyond, str] = {
    **{one: why for one, why in WITHOUT_HTTP.items() if one is not Fault.CONFLICT},
    Fault.HALF: "the database answers whole rows or none",
    Edit.RENAMED: "the key is the identity of a built-in flag; under another key it is another flag",
    Knowledge.WHO: "flags are only changed through Rampart: its audit log knows who",
    Knowledge.WHEN: "flags are only changed through Rampart: its audit log knows when",
    Knowledge.COME_BACK: "a kill holds the flag down on the board, whatever is stored",
}


class FaultyStore:
    """The real store behind faults. `held`: the next write of a flag waits there."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store
        self.held: HeldWrite | None = None
        self.fault: Fault | None = None

    async def flag_config(self, environment: str, key: str) -> FlagConfig | None:
        if self.fault is Fault.DOWN:
            raise StoreUnavailable("the database did not answer within 5 s")
        return await self._store.flag_config(environment, key)

    async def save_flag_config(self, config: FlagConfig, entry: AuditEntry | None = None) -> FlagConfig:
        if self.held is not None:
            await self.held.wait()
        if self.fault in (Fault.DOWN, Fault.LOST_BEFORE):
            raise StoreUnavailable("the connection was lost")
        if self.fault is Fault.CONFLICT:
            raise Conflict("somebody else was first")
        saved = await self._store.save_flag_config(config, entry)
        if self.fault is Fault.LOST_AFTER:
            raise StoreUnavailable("the connection was lost")
        return saved


class BuiltinWorld:
    patience = 2.0

    def __init__(self, store: PostgresStore) -> None:
        self._store = store
        self._faulty: Any = FaultyStore(store)
        self._board = make_board()
        self.provider: FlagProvider = build(
            "main", BuiltinProviderSettings(), make_host(self._faulty, self._board)
        )

    async def open(self) -> None:
        await self._store.save_flag_config(make_flag())
        await self._refresh()

    async def _refresh(self) -> None:
        """As the engine takes up what the store holds."""
        self._board.load(await self._store.flag_configs(), [])

    @asynccontextmanager
    async def another(self) -> AsyncIterator[FlagProvider]:
        board = make_board()
        if self._faulty.fault is not Fault.DOWN:
            board.load(await self._store.flag_configs(), [])
        yield build("main", BuiltinProviderSettings(), make_host(self._faulty, board, replica="r2"))

    async def edit(self, edit: Edit) -> None:
        config = await self._store.flag_config(FLAG.environment, FLAG.key)
        assert config is not None
        version = config.version + 1
        await self._store.save_flag_config(with_version(EDITS[edit](config), version))
        await self._refresh()

    @asynccontextmanager
    async def fault(self, fault: Fault) -> AsyncIterator[None]:
        self._faulty.fault = fault
        try:
            yield
        finally:
            self._faulty.fault = None
            await self._refresh()

    @asynccontextmanager
    async def held_write(self) -> AsyncIterator[HeldWrite]:
        held = self._faulty.held = HeldWrite()
        try:
            yield held
        finally:
            self._faulty.held = None
            held.let_go.set()

    async def everything(self) -> Any:
        return await self._store.flag_configs()


def _with(config: FlagConfig, **fields: Any) -> FlagConfig:
    return replace(config, data={**config.data, **fields})


def _raised(config: FlagConfig) -> FlagConfig:
    off = config.data["offVariation"]
    weights = [{"variation": off, "weight": 50_000}, {"variation": 1 - off, "weight": 50_000}]
    return _with(
        config, fallthrough={"rollout": {"kind": "rollout", "contextKind": "user", "variations": weights}}
    )


def _second_rule(config: FlagConfig) -> FlagConfig:
    clause = {"contextKind": "user", "attribute": "team", "op": "in", "values": ["insiders"], "negate": False}
    rule = {"id": "by-hand", "variation": 1 - config.data["offVariation"], "clauses": [clause]}
    return _with(config, rules=[*config.data["rules"], rule])


def _swapped(config: FlagConfig) -> FlagConfig:
    rollout = config.data["fallthrough"]["rollout"]
    swapped = {**rollout, "variations": list(reversed(rollout["variations"]))}
    return _with(config, fallthrough={"rollout": swapped})


EDITS: dict[Edit, Callable[[FlagConfig], FlagConfig]] = {
    Edit.RAISED: _raised,
    Edit.TURNED_ON: lambda config: turned_on(config, config.version),
    Edit.TURNED_OFF: lambda config: _with(config, on=False),
    Edit.SECOND_RULE: _second_rule,
    Edit.SWAPPED: _swapped,
    Edit.ARCHIVED: lambda config: replace(killed(config, config.version), archived=True),
}
