"""Who is let in, for how long, and whose forms are taken."""

from datetime import timedelta

import pytest

from controller.access import TokenBook, digest
from controller.domain.catalogue import Token
from controller.settings import ServerSettings, Settings
from controller.web.sessions import COOKIE, LIFE, Sessions
from tests.api.fake_engine import START, FakeEngine
from tests.web.browser import Browser, browsing

KILL = "/r/checkout-v2/kill"


async def test_nobody_sees_a_page_without_logging_in_and_comes_back_to_it_after(engine: FakeEngine) -> None:
    async with browsing(engine) as browser:
        asked = await browser.get("/r/checkout-v2")
        form = dict(asked.document.forms["POST /login"])
        came = await browser.submit(asked, "/login", token=engine.secret_of("read"))

    assert asked.path.startswith("/login?next=")
    assert form["next"] == "/r/checkout-v2"
    assert came.path == "/r/checkout-v2"
    assert came.status == 200


@pytest.mark.parametrize(
    "target", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:x", "/a\n/b", ""]
)
async def test_logging_in_leads_nowhere_but_here(engine: FakeEngine, target: str) -> None:
    async with browsing(engine) as browser:
        await browser.log_in(engine.secret_of("read"), target)
        page = await browser.log_in(engine.secret_of("read"), target)

    assert page.path == "/"
    assert page.response.url.host == "rampart.test"


async def test_a_wrong_token_is_told_so_and_gets_no_cookie(engine: FakeEngine) -> None:
    async with browsing(engine) as browser:
        page = await browser.log_in("rampart_wrong")

    assert page.status == 401
    assert "Unknown token" in page.text
    assert "set-cookie" not in page.response.headers
    assert "rampart_wrong" not in page.document.source


async def test_guessing_tokens_is_slowed_down(engine: FakeEngine) -> None:
    async with browsing(engine) as browser:
        pages = [await browser.log_in(f"rampart_{n}") for n in range(21)]

    assert [page.status for page in pages[-2:]] == [401, 429]
    assert "Too many wrong tokens" in pages[-1].text
    assert int(pages[-1].response.headers["retry-after"]) > 0


async def test_the_cookie_is_for_our_server_alone_and_holds_no_secret(engine: FakeEngine) -> None:
    engine.settings = Settings(server=ServerSettings(public_url="https://rampart.example"))
    secret = engine.secret_of("read")
    async with browsing(engine) as browser:
        answer = await browser.client.post("/login", data={"token": secret})
    cookie = answer.headers["set-cookie"]

    assert cookie.startswith(f"{COOKIE}=")
    for part in ("HttpOnly", "SameSite=lax", "Secure", "Path=/", f"Max-Age={int(LIFE.total_seconds())}"):
        assert part in cookie, part
    assert secret not in cookie
    assert digest(secret).hex() not in cookie


@pytest.mark.parametrize("what", ["revoked", "replaced", "expired", "old"])
async def test_a_session_ends_with_its_token_and_by_itself(engine: FakeEngine, what: str) -> None:
    expires = 60.0 if what == "expired" else None
    secret = engine.secret_of("read", expires_in=expires)
    async with browsing(engine) as browser:
        await browser.log_in(secret)
        assert (await browser.get("/")).path == "/"
        match what:
            case "revoked":
                engine.tokens.load([])
            case "replaced":
                (token,) = engine.tokens.all()
                anew = digest("rampart_another")
                engine.tokens.load(
                    [Token(**{f: getattr(token, f) for f in token.__struct_fields__} | {"digest": anew})]
                )
            case "expired":
                engine.clock.passed = 61.0
            case "old":
                engine.clock.passed = LIFE.total_seconds() + 1
        page = await browser.get("/")

    assert page.path.startswith("/login")


def test_another_replica_with_the_same_key_opens_the_session_and_one_without_does_not() -> None:
    token = Token(name="sam", digest=digest("s"), scopes=("read",), created_at=START, created_by="dana")
    book = TokenBook()
    book.load([token])
    cookie = Sessions(book, b"shared", secure=False).begin("s", START).value

    assert Sessions(book, b"shared", secure=False).open(cookie, START) is not None
    assert Sessions(book, b"another", secure=False).open(cookie, START) is None


@pytest.mark.parametrize("cookie", ["", "x", "a.b.c", "c2Ft.99999999999.ü", "....", "c2Ft." + "9" * 40 + ".0"])
def test_what_is_no_session_opens_nothing(cookie: str) -> None:
    book = TokenBook()
    book.load([Token(name="sam", digest=digest("s"), scopes=("read",), created_at=START, created_by="dana")])

    assert Sessions(book, b"key", secure=False).open(cookie, START) is None


def test_a_session_cannot_be_prolonged_by_its_holder() -> None:
    book = TokenBook()
    book.load([Token(name="sam", digest=digest("s"), scopes=("read",), created_at=START, created_by="dana")])
    sessions = Sessions(book, b"key", secure=False)
    name, ends_at, seal = (sessions.begin("s", START).value or "").split(".")

    assert sessions.open(f"{name}.{int(ends_at) + 3600}.{seal}", START + timedelta(hours=12)) is None


async def test_logging_out_ends_the_session_in_this_browser(browser: Browser) -> None:
    page = await browser.submit(await browser.get("/"), "/logout")

    assert page.path == "/login"
    assert (await browser.get("/")).path.startswith("/login")


# — whose forms —


@pytest.mark.parametrize("csrf", [None, "", "0" * 64, "ü"])
async def test_a_form_that_is_not_of_this_session_does_nothing(
    engine: FakeEngine, browser: Browser, csrf: str | None
) -> None:
    page = await browser.post(KILL, [] if csrf is None else [("csrf", csrf)])

    assert page.status == 403
    assert "nothing was done" in page.text
    assert engine.killbook.active() == []


async def test_a_form_of_somebody_elses_session_does_nothing(engine: FakeEngine, browser: Browser) -> None:
    async with browsing(engine) as other:
        await other.log_in(engine.secret_of("kill", "read"))
        theirs = await other.get(KILL)
    page = await browser.submit(theirs, KILL)

    assert page.status == 403
    assert engine.killbook.active() == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://rampart.test"}, 200),
        ({"sec-fetch-site": "same-origin", "origin": "http://rampart.test"}, 200),
        ({"sec-fetch-site": "none"}, 200),
    ],
)
async def test_a_form_from_a_page_of_others_does_nothing(
    engine: FakeEngine, browser: Browser, headers: dict[str, str], status: int
) -> None:
    asked = await browser.get(KILL)
    page = await browser.post(KILL, asked.document.forms[f"POST {KILL}"], **headers)

    assert page.status == status
    assert len(engine.killbook.active()) == (status == 200)


async def test_without_a_session_a_form_is_refused_and_not_led_away(engine: FakeEngine) -> None:
    async with browsing(engine) as browser:
        page = await browser.post(KILL, [("csrf", "x")])

    assert page.status == 401
    assert page.document.links["Log in"] == "/login"
