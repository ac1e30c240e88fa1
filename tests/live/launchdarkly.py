"""The contract of providers on a live LaunchDarkly account: `make test-launchdarkly`. It changes one flag."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controller.settings import LaunchDarklyProviderSettings
from tests.contracts.providers_contract import ProviderContract
from tests.live.launchdarkly_world import CANNOT, Account, LiveWorld, live_world


@pytest.fixture(scope="session")
def account() -> Account:
    found = Account.given()
    if isinstance(found, str):
        pytest.exit(found, returncode=1)
    return found


class TestLive(ProviderContract):
    kind = LaunchDarklyProviderSettings
    cannot = CANNOT

    @pytest.fixture
    async def world(self, account: Account, tmp_path: Path) -> AsyncIterator[LiveWorld]:
        async with live_world(account, tmp_path) as world:
            yield world
