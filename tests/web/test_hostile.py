"""Whatever people, programs and vendors write shows up as text, and nothing secret shows up at all."""

import hashlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from controller.domain.audit import AuditEntry
from controller.domain.rollout import Block
from controller.web.rendering import HERE
from tests.api.fake_engine import START, FakeEngine
from tests.support.statuses import make_rule, make_status
from tests.web.browser import Browser, Document, browsing

PAGES = ["/", "/r/checkout-v2", "/rollouts/checkout-v2", "/approvals", "/raised", "/r/checkout-v2/order/approve"]
OURS = {
    "html",
    "head",
    "meta",
    "title",
    "link",
    "script",
    "body",
    "a",
    "header",
    "nav",
    "form",
    "input",
    "span",
    "button",
    "main",
    "footer",
    "h1",
    "h2",
    "section",
    "p",
    "strong",
    "ul",
    "ol",
    "li",
    "time",
    "dl",
    "div",
    "dt",
    "dd",
    "svg",
    "rect",
    "line",
    "polyline",
    "select",
    "option",
    "label",
    "noscript",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "progress",
    "article",
    "code",
    "pre",
    "fieldset",
    "legend",
}
MARK = "h0st1le"
hostile = st.one_of(
    st.sampled_from(
        [
            f"<script>{MARK}</script>",
            f'"><img src=x onerror={MARK}>',
            f"' onfocus={MARK} autofocus '",
            f"</title><iframe src={MARK}>",
            "{{ 7 * 7 }}{% raw %}",
            f"\r\nevent: state\r\ndata: <b>{MARK}</b>",
            f"javascript:{MARK}",
            "\u202egnorw",
        ]
    ),
    st.text(max_size=60),
)


@given(text=hostile, other=hostile)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_hostile_text_makes_no_tag_and_no_attribute(text: str, other: str) -> None:
    engine = FakeEngine()
    rule = make_rule(text, policy=other, detail=text, condition=other, outcome="breach", unit=text)
    status = make_status(
        "checkout-v2#1",
        reason=text,
        owner=other,
        author=text,
        started_by=other,
        links={"runbook": text, other: text},
        labels={text: other},
        rules=[rule],
        blocks=[Block(code="approval", text=text)],
        exposed_since=START,
        foreign=[text],
    )
    engine.commands.states["checkout-v2"] = status
    engine.recent.seen(replace(status, rules=[replace(rule, value=0.5)], observed_at=START), START)
    entry = AuditEntry(
        id="1", at=START, actor=text, action="pause", cause="user", subject="s", environment="e", reason=other
    )
    engine.recent.told("checkout-v2", [entry])
    async with browsing(engine) as browser:
        await browser.log_in(engine.secret_of("read", "operate", "kill", "approve"))
        browser.pages.reader.forget()
        for path in PAGES:
            page = await browser.get(path)
            assert page.status == 200, page.text
            assert only_ours(page.document), page.document.source


def only_ours(document: Document) -> bool:
    """No tag of others, no handler, no inline script or style, and no address but of the web and our own."""
    for tag, values in document.tags:
        if tag not in OURS or "style" in values or any(name.startswith("on") for name in values):
            return False
        if not values.get("href", "/").startswith(("/", "#", "http://", "https://")):
            return False
        if tag == "script" and not values.get("src", "").startswith("/assets/"):
            return False
    return True


@pytest.mark.parametrize("path", [*PAGES, "/login", "/r/checkout-v2/kill", "/r/checkout-v2/killed", "/r/none"])
async def test_every_page_keeps_others_out_and_is_kept_by_nobody(browser: Browser, path: str) -> None:
    headers = (await browser.get(path)).response.headers

    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["form-action"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"


async def test_scripts_and_style_are_ours_fixed_by_their_hash_and_kept_for_ever(browser: Browser) -> None:
    page = await browser.get("/")
    files = [values for tag, values in page.document.tags if "integrity" in values]

    assert len(files) == 4
    for values in files:
        address = values.get("src") or values["href"]
        answer = await browser.client.get(address)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
        assert (await browser.client.get(address.replace("/assets/", "/assets/0"))).status_code == 404


async def test_no_page_shows_a_secret(engine: FakeEngine) -> None:
    secret = engine.secret_of("read", "operate", "kill", "approve")
    async with browsing(engine) as browser:
        shown = [(await browser.log_in(secret)).document.source]
        shown += [(await browser.get(path)).document.source for path in [*PAGES, "/r/checkout-v2/kill"]]
        cookie = browser.client.cookies["rampart_session"]

    for source in shown:
        assert secret not in source
        assert cookie.rpartition(".")[2] not in source, "a form proves the session without giving it away"


async def test_a_fault_inside_is_a_page_that_shows_nothing_of_it(engine: FakeEngine, browser: Browser) -> None:
    engine.commands.failure = ValueError("rampart_secret in here")
    path = "/r/checkout-v2/order/pause"
    page = await browser.submit(await browser.get(path), path)

    assert page.status == 500
    assert "rampart_secret" not in page.document.source
    assert "incident" in page.text


def test_what_is_not_ours_is_what_it_is_said_to_be() -> None:
    vendor = HERE / "static" / "vendor"
    said = (vendor / "README.md").read_text()
    scripts = sorted(vendor.glob("*.js"))

    assert len(scripts) == 2
    for script in scripts:
        assert f"`{script.name}`" in said
        assert hashlib.sha256(script.read_bytes()).hexdigest() in said
