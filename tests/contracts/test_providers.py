"""The contract of every provider kind that needs no other program."""

import typing

import pytest

from controller.providers import KINDS
from controller.settings import BuiltinProviderSettings, ProviderSettings
from controller.store.postgres import PostgresStore
from tests.contracts.builtin_world import CANNOT, BuiltinWorld
from tests.contracts.providers_contract import ProviderContract
from tests.support.postgres import database, postgres_server, store

__all__ = ["database", "postgres_server", "store"]


class TestBuiltin(ProviderContract):
    kind = BuiltinProviderSettings
    cannot = CANNOT

    @pytest.fixture
    async def world(self, store: PostgresStore) -> BuiltinWorld:
        world = BuiltinWorld(store)
        await world.open()
        return world


def test_every_kind_of_provider_in_the_settings_can_be_built() -> None:
    kinds = typing.get_args(ProviderSettings) or (ProviderSettings,)
    assert set(KINDS) == set(kinds)
