"""The unleash provider against a real Unleash server: the contract, and what UnleashClient makes of our writes."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from controller.settings import UnleashProviderSettings
from tests.contracts.providers_contract import ProviderContract
from tests.contracts.unleash_world import CANNOT, Installation, UnleashWorld, opened
from tests.support.postgres import Server, postgres_server
from tests.support.unleash import ADMIN, EDITOR, hire, person, running_unleash

__all__ = ["postgres_server"]


@pytest.fixture(scope="module")
def installation(postgres_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("unleash")
    dsn = asyncio.run(postgres_server.create_database())
    with running_unleash(folder, dsn) as url:
        token_file = folder / "rampart-token"
        token_file.write_text(asyncio.run(hire(url, "rampart", EDITOR)) + "\n")
        yield Installation(url, token_file, asyncio.run(hire(url, "dana", ADMIN)))


@pytest.fixture
async def world(installation: Installation) -> AsyncIterator[UnleashWorld]:
    async with person(installation.url, installation.person_token) as dana, opened(installation, dana) as opened_:
        yield opened_


class TestUnleash(ProviderContract):
    kind = UnleashProviderSettings
    cannot = CANNOT
