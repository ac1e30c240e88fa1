"""Each page, as somebody without JavaScript reads it."""

from datetime import timedelta
from typing import Any, cast

import pytest
from msgspec.structs import replace

from controller.domain.freezes import OrganisationFreeze
from controller.domain.rollout import Block
from controller.domain.status import ApprovalStatus, RunStatus
from tests.api.fake_engine import START, FakeEngine, Gone
from tests.support.statuses import make_rule, make_status
from tests.web.browser import Browser, browsing

MOST_BYTES = 30_000
BREACH = make_rule("errors-high", outcome="breach", value=0.051, limit=0.01, baseline=0.002, unit="ratio")


def put(engine: FakeEngine, **changes: Any) -> RunStatus:
    status = make_status("checkout-v2#1", **({"exposed_since": START} | changes))
    engine.commands.states["checkout-v2"] = status
    return status


async def test_the_list_says_where_every_rollout_is(engine: FakeEngine, browser: Browser) -> None:
    page = await browser.get("/")

    assert page.status == 200
    assert "checkout-v2" in page.text
    assert "Progressing" in page.text
    assert "bake not over" in page.text


@pytest.mark.parametrize(
    ("query", "shown"),
    [("", 2), ("state=paused", 1), ("q=search", 1), ("q=production", 2), ("state=killed", 0), ("owner=nobody", 0)],
)
async def test_the_list_can_be_narrowed_down_by_its_address(
    engine: FakeEngine, browser: Browser, query: str, shown: int
) -> None:
    put(engine, phase="paused")
    engine.commands.states["search-v2"] = make_status("search-v2#1")

    page = await browser.get(f"/?{query}")

    assert (
        sum(f"/rollouts/{name}" in page.document.links.values() for name in ("checkout-v2", "search-v2")) == shown
    )


async def test_an_empty_list_says_what_to_do_first(engine: FakeEngine, browser: Browser) -> None:
    engine.commands.states.clear()

    page = await browser.get("/")

    assert "No rollout yet" in page.text
    assert "rampart apply" in page.text


async def test_a_thousand_rollouts_come_in_pages_with_the_urgent_ones_first(
    engine: FakeEngine, browser: Browser
) -> None:
    long = "x" * 300
    engine.commands.states = {f"plan-{n:04}": make_status(f"plan-{n:04}#1", reason=long) for n in range(1_000)}
    engine.commands.states["plan-0777"] = make_status("plan-0777#1", phase="paused")

    page = await browser.get("/")
    last = await browser.get("/?page=20")

    assert list(page.document.links).index("plan-0777") < list(page.document.links).index("plan-0000")
    assert "page 1 of 20" in page.text
    assert "plan-0999" in last.text
    assert len(page.document.source) < MOST_BYTES


@pytest.mark.parametrize("phase", ["pending", "progressing", "paused", "completed", "killed", "abandoned"])
@pytest.mark.parametrize("path", ["/r/checkout-v2", "/rollouts/checkout-v2"])
async def test_every_phase_has_a_page_that_a_phone_in_a_cellar_can_load(
    engine: FakeEngine, browser: Browser, phase: str, path: str
) -> None:
    rules = [replace(BREACH, rule=f"rule-{n}") for n in range(12)]
    put(engine, phase=phase, rules=rules, reason=f"this is {phase}")

    page = await browser.get(path)

    assert page.status == 200
    assert f"this is {phase}" in page.text
    assert len(page.document.source) < MOST_BYTES


async def test_the_phone_page_names_the_one_reason_with_its_numbers(engine: FakeEngine, browser: Browser) -> None:
    put(engine, phase="paused", rules=[make_rule("latency"), BREACH], links={"runbook": "https://wiki.example/x"})

    page = await browser.get("/r/checkout-v2")

    for text in ("Paused", "10 %", "exposed since 12:00:00 UTC", "errors-high", "5.1 %", "> 1 %", "0.2 %"):
        assert text in page.text, text
    assert page.document.links["Runbook"] == "https://wiki.example/x"


async def test_a_runbook_that_is_no_web_address_is_no_link(engine: FakeEngine, browser: Browser) -> None:
    put(engine, links={"runbook": "javascript:alert(1)"})

    for path in ("/r/checkout-v2", "/rollouts/checkout-v2"):
        page = await browser.get(path)
        assert "javascript:alert(1)" not in page.document.links.values()


async def test_the_desk_page_draws_a_curve_and_says_it_in_words(engine: FakeEngine, browser: Browser) -> None:
    status = put(engine, rules=[BREACH], observed_at=None)
    for n in range(5):
        at = START + timedelta(seconds=15 * n)
        rule = replace(BREACH, value=0.01 * n)
        engine.recent.seen(replace(status, rules=[rule], observed_at=at), at)

    page = await browser.get("/rollouts/checkout-v2")

    (title,) = [values["aria-label"] for tag, values in page.document.tags if tag == "svg"]
    assert title.startswith("errors-high over the last 1m: now 5.1 % (breach), lowest 0 %, highest 4 %")


async def test_the_inbox_shows_what_waits_and_refuses_the_author(engine: FakeEngine) -> None:
    block = Block(code="approval", text="half waits for approval from managers")
    approval = ApprovalStatus(stage="half", requested_at=engine.clock.now())
    put(engine, blocks=[block], approval=approval, author="approve-read", started_by="kim")
    async with browsing(engine) as author, browsing(engine) as other:
        await author.log_in(engine.secret_of("approve", "read"))
        put(engine, blocks=[block], approval=approval, author="approve-read", started_by="kim")
        refused = await author.get("/approvals")
        await other.log_in(engine.secret_of("read", "approve"))
        asked = await other.get("/approvals")
        await other.submit(asked, "/r/checkout-v2/order/approve", text="looked at it")

    assert "You wrote the plan: it takes a second person." in refused.text
    assert "POST /r/checkout-v2/order/approve" not in refused.document.forms
    assert engine.commands.log == [("approve", "checkout-v2", "read-approve", "looked at it")]


@pytest.mark.parametrize("path", ["/r/nothing", "/rollouts/nothing", "/r/nothing/order/pause"])
async def test_an_unknown_rollout_is_a_page_in_words(browser: Browser, path: str) -> None:
    page = await browser.get(path)

    assert page.status == 404
    assert page.response.headers["content-type"].startswith("text/html")
    assert "nothing" in page.text


async def test_without_the_database_the_last_known_state_is_shown_as_such(
    engine: FakeEngine, browser: Browser
) -> None:
    put(engine, reason="bake not over yet")
    await browser.get("/r/checkout-v2")
    await browser.get("/")
    engine.clock.passed = 61.0
    engine.store = cast("Any", Gone())

    phone, listed = await browser.get("/r/checkout-v2"), await browser.get("/")

    assert phone.status == listed.status == 200
    for page in (phone, listed):
        assert "As of 12:00:00 UTC: the database did not answer within 5 s" in page.text
        assert "bake not over yet" in page.text
    assert "KILL" in phone.document.links


async def test_after_a_cold_start_without_a_database_the_flags_are_shown_and_can_be_killed(
    engine: FakeEngine, browser: Browser
) -> None:
    engine.store = cast("Any", Gone())

    listed, phone = await browser.get("/"), await browser.get("/r/checkout-v2")
    done = await browser.submit(await browser.get(phone.document.links["KILL"]), "/r/checkout-v2/kill")

    assert "Unknown" in listed.text
    assert "Nothing more is known of it here" in phone.text
    assert "Killed: everybody gets the fallback" in done.text
    assert len(engine.killbook.active()) == 1


async def test_the_list_says_what_is_frozen_and_until_when(engine: FakeEngine, browser: Browser) -> None:
    freeze = OrganisationFreeze(
        name="black-friday",
        starts_at=START,
        ends_at=START + timedelta(days=1),
        added_by="dana",
        added_at=START,
        reason="the shop is full",
        environments=("production",),
        labels={"tier": "1"},
    )
    engine.freezebook.load([freeze])

    page = await browser.get("/")
    engine.clock.passed = 25 * 3600.0
    after = await browser.log_in(engine.secret_of("read"))

    assert "Frozen: black-friday, until 2026-11-21 12:00 UTC, by dana: the shop is full." in page.text
    assert "It covers production where tier is 1" in page.text
    assert "Frozen" not in after.text
