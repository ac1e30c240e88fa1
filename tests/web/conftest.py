from collections.abc import AsyncIterator

import pytest

from tests.api.fake_engine import FakeEngine
from tests.web.browser import Browser, browsing


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
async def browser(engine: FakeEngine) -> AsyncIterator[Browser]:
    """Somebody who may do everything, logged in."""
    async with browsing(engine) as browser:
        await browser.log_in(engine.secret_of("read", "author", "operate", "kill", "approve", "admin"))
        browser.pages.reader.forget()  # the clock stands still: what it was led to would stay new for ever
        yield browser
