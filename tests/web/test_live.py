"""One stream per tab: only what changed, once for all who look, and nothing kept for those who do not read."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import pytest
from markupsafe import Markup

from controller.errors import StoreUnavailable
from controller.web import live as module
from controller.web.live import Live
from controller.web.screens import Screen
from tests.api.fake_engine import FakeEngine
from tests.support.statuses import make_status
from tests.web.browser import Browser, browsing

DEADLINE_SECONDS = 20.0


class Looked:
    """A page with two parts, of which one stays as it is."""

    def __init__(self) -> None:
        self.state = "1 %"
        self.times = 0
        self.every_seconds = 0.001
        self.fault: Exception | None = None

    async def __call__(self) -> Screen:
        self.times += 1
        if self.fault:
            raise self.fault
        return Screen(
            title="t",
            template="t",
            parts={"state": Markup(self.state), "events": Markup("none")},
            every_seconds=0.001,
        )


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AGAIN_SECONDS", 0.001)
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.01)


async def next_event(frames: AsyncIterator[bytes]) -> str:
    """The next frame that is no heartbeat."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while (frame := await anext(frames)) == module.HEARTBEAT:
            pass
    return frame.decode()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.001)


async def test_what_the_page_shows_already_is_not_sent_and_what_changes_is() -> None:
    live, look = Live(), Looked()
    seen = (await look()).digest()
    async with aclosing(live.frames("t", look, seen, lambda: True)) as frames:
        assert [await anext(frames) for _ in range(5)] == [module.HEARTBEAT] * 5
        look.state = "10 %\n25 %"
        assert await next_event(frames) == "event: state\ndata: 10 %\ndata: 25 %\n\n"


async def test_a_page_that_was_away_is_sent_what_it_missed() -> None:
    live, look = Live(), Looked()
    seen = (await look()).digest()
    look.state = "10 %"
    async with aclosing(live.frames("t", look, seen, lambda: True)) as frames:
        assert "data: 10 %" in await next_event(frames)


async def test_a_hundred_tabs_on_one_page_cost_one_look_at_a_time_and_none_after() -> None:
    live, look = Live(), Looked()
    streams = [live.frames("t", look, "", lambda: True) for _ in range(100)]
    for frames in streams:
        await next_event(frames)
    before = look.times
    await until(lambda: look.times > before + 3)
    assert len(live._topics) == 1

    for frames in streams:
        await frames.aclose()
    after = look.times
    await asyncio.sleep(0.02)
    assert look.times - after <= 1
    assert live._topics == {}


async def test_who_comes_later_is_not_shown_what_was_before() -> None:
    live, look = Live(), Looked()
    look.every_seconds = 3600.0
    async with aclosing(live.frames("t", look, "", lambda: True)) as first:
        await next_event(first)
        look.state = "10 %"
        async with aclosing(live.frames("t", look, "", lambda: True)) as second:
            assert "data: 10 %" in await next_event(second)
        assert "data: 10 %" in await next_event(first)


async def test_who_does_not_read_is_kept_the_newest_alone() -> None:
    live, look = Live(), Looked()
    with live.reading("t", look) as reader:
        for n in range(50):
            look.state = f"{n} %"
            shown = look.times
            await until(lambda shown=shown: look.times > shown + 1)  # type: ignore[misc]
        assert await reader.next(1.0) == {"state": "49 %", "events": "none"}


async def test_a_database_that_goes_away_ends_no_stream() -> None:
    live, look = Live(), Looked()
    async with aclosing(live.frames("t", look, "", lambda: True)) as frames:
        await next_event(frames)
        look.fault = StoreUnavailable("away")
        before = look.times
        await until(lambda: look.times > before + 2)
        look.fault, look.state = None, "10 %"
        assert "10 %" in await next_event(frames)


async def test_a_fault_of_ours_is_logged_and_ends_no_stream() -> None:
    live, look = Live(), Looked()
    async with aclosing(live.frames("t", look, "", lambda: True)) as frames:
        await next_event(frames)
        look.fault = ValueError("ours")
        before = look.times
        await until(lambda: look.times > before + 2)
        look.fault, look.state = None, "10 %"
        assert "10 %" in await next_event(frames)


async def test_streams_end_with_the_session_and_with_the_server() -> None:
    live, look, allowed = Live(), Looked(), [True]
    first = live.frames("t", look, "", lambda: allowed[0])
    second = live.frames("t", look, "", lambda: True)
    await next_event(first)
    await next_event(second)

    allowed[0] = False
    assert [frame async for frame in first] in ([], [module.HEARTBEAT])
    live.close()
    assert [frame async for frame in second] in ([], [module.HEARTBEAT])
    assert live.full, "no stream begins while the server ends"


async def test_a_page_asks_again_by_itself_when_too_many_streams_are_open(
    engine: FakeEngine, browser: Browser
) -> None:
    def main(document: Any) -> dict[str, str]:
        (values,) = [values for tag, values in document.tags if tag == "main"]
        return dict(values)

    with_stream = main((await browser.get("/r/checkout-v2")).document)
    browser.pages.live = Live(max_streams=0)
    without = main((await browser.get("/r/checkout-v2")).document)

    assert with_stream["sse-connect"].startswith("/stream?screen=phone&name=checkout-v2&seen=")
    assert "sse-connect" not in without
    assert without["hx-get"].startswith("/r/checkout-v2")
    assert "#state" in without["hx-select-oob"]
    assert (await browser.get(with_stream["sse-connect"])).status == 503


@pytest.mark.parametrize("path", ["/stream", "/stream?screen=nothing", "/stream?screen=desk&name=x"])
async def test_a_stream_is_for_pages_that_live_and_people_who_may_see_them(engine: FakeEngine, path: str) -> None:
    async with browsing(engine) as stranger, browsing(engine) as killer:
        await killer.log_in(engine.secret_of("kill"), "/r/checkout-v2")
        assert (await stranger.get(path)).path.startswith("/login")
        assert (await killer.get(path)).status in (403, 404)


async def test_what_a_tab_is_sent_is_what_the_page_would_show(engine: FakeEngine, browser: Browser) -> None:
    page = await browser.get("/r/checkout-v2")
    (seen,) = [values["sse-connect"] for tag, values in page.document.tags if tag == "main"]
    engine.commands.states["checkout-v2"] = make_status("checkout-v2#1", phase="paused", reason="paused by kim")
    browser.pages.reader.forget()
    screens = browser.pages.screens
    (actor,) = [browser.pages.sessions.open(browser.client.cookies["rampart_session"], engine.clock.now())]
    assert actor is not None
    look = screens.source("phone", {"name": "checkout-v2"}, actor.actor)
    assert look is not None
    frames = browser.pages.live.frames("t", look, seen.rpartition("=")[2], lambda: True)
    async with aclosing(frames):
        event = await next_event(frames)

    assert "event: state" in event
    assert "paused by kim" in event
