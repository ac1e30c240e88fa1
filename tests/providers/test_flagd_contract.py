"""flagd's file against the contract of every provider."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controller.settings import FlagdProviderSettings
from tests.contracts.flagd_world import CANNOT, FlagdWorld
from tests.contracts.providers_contract import ProviderContract


class TestFlagd(ProviderContract):
    kind = FlagdProviderSettings
    cannot = CANNOT

    @pytest.fixture
    async def world(self, tmp_path: Path) -> AsyncIterator[FlagdWorld]:
        world = FlagdWorld(tmp_path)
        yield world
        await world.provider.close()
