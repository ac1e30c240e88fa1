"""The contract of every provider kind that needs no other program."""

import typing
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from controller.domain.audit import AuditEntry
from controller.domain.catalogue import FlagConfig
from controller.ports import FlagProvider
from controller.providers import KINDS, build
from controller.settings import BuiltinProviderSettings, ProviderSettings
from controller.store.postgres import PostgresStore
from tests.contracts.providers_contract import HeldWrite, ProviderContract
from tests.support.postgres import database, postgres_server, store
from tests.support.providers import make_host
from tests.support.sdk_door import make_board, make_flag

__all__ = ["database", "postgres_server", "store"]


class HeldStore:
    """The real store; a write of a flag waits for `held`, when there is one."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store
        self.held: HeldWrite | None = None

    async def flag_config(self, environment: str, key: str) -> FlagConfig | None:
        return await self._store.flag_config(environment, key)

    async def save_flag_config(self, config: FlagConfig, entry: AuditEntry | None = None) -> FlagConfig:
        if self.held is not None:
            await self.held.wait()
        return await self._store.save_flag_config(config, entry)


class BuiltinWorld:
    def __init__(self, provider: FlagProvider, store: HeldStore) -> None:
        self.provider = provider
        self._store = store

    @asynccontextmanager
    async def held_write(self) -> AsyncIterator[HeldWrite]:
        held = self._store.held = HeldWrite()
        try:
            yield held
        finally:
            self._store.held = None
            held.let_go.set()


class TestBuiltin(ProviderContract):
    @pytest.fixture
    async def world(self, store: PostgresStore) -> BuiltinWorld:
        held: typing.Any = HeldStore(store)
        await store.save_flag_config(make_flag())
        board = make_board()
        board.load(await store.flag_configs(), [])
        return BuiltinWorld(build("main", BuiltinProviderSettings(), make_host(held, board)), held)


def test_every_kind_of_provider_in_the_settings_can_be_built() -> None:
    kinds = typing.get_args(ProviderSettings) or (ProviderSettings,)
    assert set(KINDS) == set(kinds)
