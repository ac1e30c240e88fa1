"""The contract of providers, on LaunchDarkly's stand-in with the official SDK connected."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controller.settings import LaunchDarklyProviderSettings
from tests.contracts.launchdarkly_world import CANNOT, LaunchDarklyWorld, launchdarkly_world
from tests.contracts.providers_contract import ProviderContract


class TestLaunchDarkly(ProviderContract):
    kind = LaunchDarklyProviderSettings
    cannot = CANNOT

    @pytest.fixture
    async def world(self, tmp_path: Path) -> AsyncIterator[LaunchDarklyWorld]:
        async with launchdarkly_world(tmp_path) as world:
            yield world
