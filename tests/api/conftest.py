from collections.abc import AsyncIterator

import httpx
import pytest

from tests.api.fake_engine import FakeEngine, client_of


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
async def client(engine: FakeEngine) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(engine) as client:
        yield client
