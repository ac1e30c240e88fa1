"""Each page, as somebody without JavaScript reads it."""

from tests.api.fake_engine import FakeEngine
from tests.web.browser import Browser


async def test_the_list_says_where_every_rollout_is(engine: FakeEngine, browser: Browser) -> None:
    page = await browser.get("/")

    assert page.status == 200
    assert "checkout-v2" in page.text
    assert "Progressing" in page.text
    assert "bake not over" in page.text


async def test_the_phone_page_leads_to_a_kill_in_two_steps(engine: FakeEngine, browser: Browser) -> None:
    phone = await browser.get("/r/checkout-v2")
    asked = await browser.get(phone.document.links["KILL"])
    done = await browser.submit(asked, "/r/checkout-v2/kill", reason="latency", text="p99 at 4 s")

    assert done.path == "/r/checkout-v2/killed"
    assert "Killed: everybody gets the fallback" in done.text
    (kill,) = engine.killbook.active()
    assert kill.reason == "latency: p99 at 4 s"
