"""Orders from a page: kill, pause, reset and the rest; each is what the engine then knows of."""

from typing import Any, cast

import pytest

from controller.domain.plan import FlagRef
from controller.domain.selection import Raised
from controller.errors import Refused, StoreUnavailable
from tests.api.fake_engine import FLAG, FakeEngine, Gone
from tests.support.statuses import make_status
from tests.web.browser import Browser, browsing

KILL = "/r/checkout-v2/kill"


async def test_a_kill_takes_two_pages_and_ends_with_three_ticks(engine: FakeEngine, browser: Browser) -> None:
    phone = await browser.get("/r/checkout-v2")
    asked = await browser.get(phone.document.links["KILL"])
    done = await browser.submit(asked, KILL, reason="latency", text="p99 at 4 s")

    assert done.path == "/r/checkout-v2/killed"
    for text in (
        "Killed: everybody gets the fallback",
        "Accepted",
        "Provider updated",
        "Confirmed: read back as off",
    ):
        assert text in done.text, text
    (kill,) = engine.killbook.active()
    assert (kill.flag, kill.reason) == (FLAG, "latency: p99 at 4 s")


async def test_only_the_environment_that_is_shown_is_killed(engine: FakeEngine, browser: Browser) -> None:
    await browser.submit(await browser.get(KILL), KILL)

    assert [kill.flag for kill in engine.killbook.active()] == [FLAG]


async def test_a_finger_that_touches_twice_makes_one_kill(engine: FakeEngine, browser: Browser) -> None:
    asked = await browser.get(KILL)
    first, second = await browser.submit(asked, KILL), await browser.submit(asked, KILL)

    assert first.status == second.status == 200
    assert len(engine.killbook.active()) == 1


async def test_a_kill_after_a_reset_is_a_kill_also_from_the_old_form(engine: FakeEngine, browser: Browser) -> None:
    asked = await browser.get(KILL)
    await browser.submit(asked, KILL)
    engine.kills.in_force.clear()

    await browser.submit(asked, KILL)

    assert len(engine.killbook.active()) == 1


async def test_a_kill_is_accepted_with_the_database_gone(engine: FakeEngine, browser: Browser) -> None:
    engine.store = cast("Any", Gone())

    done = await browser.submit(await browser.get(KILL), KILL)

    assert "Killed" in done.text
    assert len(engine.killbook.active()) == 1


async def test_a_provider_that_does_not_answer_is_no_success(engine: FakeEngine, browser: Browser) -> None:
    engine.kills.confirms = False

    done = await browser.submit(await browser.get(KILL), KILL)

    assert "Provider unreachable, retrying" in done.text
    assert "Do not assume that it is off" in done.text
    assert "everybody gets the fallback" not in done.text
    assert ("meta", {"http-equiv": "refresh", "content": "3"}) in done.document.tags


async def test_a_flag_is_called_off_only_when_each_of_its_kills_was_read_back(
    engine: FakeEngine, browser: Browser
) -> None:
    engine.kills.confirms = False
    await browser.submit(await browser.get(KILL), KILL, reason="incident")
    engine.kills.confirms = True
    await browser.submit(await browser.get(KILL), KILL, reason="latency")

    page = await browser.get("/r/checkout-v2")

    assert len(engine.killbook.active()) == 2
    assert "Being turned off since" in page.text
    assert "do not assume that it is off" in page.text


async def test_the_result_page_stops_loading_itself_once_all_is_done(engine: FakeEngine, browser: Browser) -> None:
    done = await browser.submit(await browser.get(KILL), KILL)

    assert [values for tag, values in done.document.tags if values.get("http-equiv")] == []


async def test_a_reset_covers_the_kills_that_the_page_showed(engine: FakeEngine, browser: Browser) -> None:
    await browser.submit(await browser.get(KILL), KILL)
    asked = await browser.get("/r/checkout-v2/order/reset")
    await browser.submit(asked, "/r/checkout-v2/order/reset", text="mended")

    assert engine.killbook.active() == []


@pytest.mark.parametrize("verb", ["resume", "advance", "step-back", "approve", "start", "abandon"])
async def test_an_order_goes_to_the_engine_with_its_reason(
    engine: FakeEngine, browser: Browser, verb: str
) -> None:
    path = f"/r/checkout-v2/order/{verb}"
    page = await browser.submit(await browser.get(path), path, text="because")

    assert page.path == "/r/checkout-v2"
    ((said, plan, _, note),) = engine.commands.log
    assert (said, plan, note) == (verb.replace("-", "_"), "checkout-v2", "because")


async def test_a_pause_carries_its_reason(engine: FakeEngine, browser: Browser) -> None:
    path = "/r/checkout-v2/order/pause"
    await browser.submit(await browser.get(path), path, reason="error spike", text="INC-1")

    assert [(verb, note) for verb, _, _, note in engine.commands.log] == [("pause", "error spike: INC-1")]


async def test_a_refusal_is_a_page_in_words(engine: FakeEngine, browser: Browser) -> None:
    engine.commands.failure = Refused("checkout-v2#1 cannot advance now", blocks=["errors-high is broken"])
    path = "/r/checkout-v2/order/advance"

    page = await browser.submit(await browser.get(path), path)

    assert page.status == 422
    assert page.response.headers["content-type"].startswith("text/html")
    assert "Checkout-v2#1 cannot advance now" in page.text
    assert "errors-high is broken" in page.text


async def test_what_needs_the_database_says_so_and_offers_the_kill(engine: FakeEngine, browser: Browser) -> None:
    path = "/r/checkout-v2/order/pause"
    asked = await browser.get(path)
    engine.commands.failure = StoreUnavailable("the database did not answer within 5 s")

    page = await browser.submit(asked, path)

    assert page.status == 503
    assert "A kill needs no database" in page.text
    assert page.document.links["Kill it"] == KILL


@pytest.mark.parametrize(
    ("scopes", "shown", "hidden"),
    [
        (("read",), set(), {"KILL", "PAUSE"}),
        (("read", "kill"), {"KILL", "PAUSE"}, set()),
        (("read", "operate"), {"PAUSE"}, {"KILL"}),
        (("kill",), {"KILL", "PAUSE"}, set()),
    ],
)
async def test_buttons_are_for_those_who_may(
    engine: FakeEngine, scopes: tuple[Any, ...], shown: set[str], hidden: set[str]
) -> None:
    async with browsing(engine) as browser:
        await browser.log_in(engine.secret_of(*scopes), "/r/checkout-v2")
        page = await browser.get("/r/checkout-v2")

    assert shown <= page.document.links.keys()
    assert not hidden & page.document.links.keys()


async def test_who_may_not_kill_there_is_refused_by_the_engine(engine: FakeEngine) -> None:
    async with browsing(engine) as browser:
        await browser.log_in(engine.secret_of("read", "kill", environments=("staging",)))
        page = await browser.submit(await browser.get(KILL), KILL)

    assert page.status == 403
    assert engine.killbook.active() == []


async def test_several_are_killed_after_a_preview_and_one_refusal_hinders_no_other(engine: FakeEngine) -> None:
    staging = FlagRef(provider="main", environment="staging", key="search")
    engine.recent.seen(make_status("search#1", flag=staging), engine.clock.now())
    async with browsing(engine) as browser:
        await browser.log_in(engine.secret_of("read", "kill", environments=("production",)))
        preview = await browser.get("/raised/kill?plan=search&plan=checkout-v2")
        done = await browser.submit(preview, "/raised/kill", reason="incident")

    assert "Kill 2 rollouts" in preview.text
    assert "checkout-v2 : ✔ killed, read back as off" in done.text
    assert 'search : ✖ not killed : your token lacks the scope "kill" in staging' in done.text
    assert [kill.flag for kill in engine.killbook.active()] == [FLAG]


async def test_what_was_raised_lately_is_listed_newest_first(engine: FakeEngine, browser: Browser) -> None:
    flags = {name: FlagRef(provider="main", environment="production", key=name) for name in ("older", "newer")}
    for name, flag in flags.items():
        at = engine.clock.now()
        engine.raised.note(Raised(flag=flag, plan=name, run=f"{name}#1", action="advance", at=at, exposure=1_000))
        engine.clock.passed += 1_000.0

    short, long = await browser.get("/raised"), await browser.get("/raised?within=2h")

    assert "newer" in short.text
    assert "older" not in short.text
    assert long.text.index("newer") < long.text.index("older")
