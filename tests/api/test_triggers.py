"""Addresses that kill one flag: who makes them, what pressing them does, and what they never do."""

from collections.abc import Mapping
from typing import Any

import httpx
import msgspec
import pytest
from structlog.testing import capture_logs

from controller.access import new_secret
from controller.domain.audit import AuditEntry
from tests.api.fake_engine import FLAG, STAGING_FLAG, FakeEngine, Gone

TRIGGERS = "/api/v1/triggers"
BODY = {"flag": "checkout-v2", "environment": "production"}
HTML = {"Accept": "text/html,application/xhtml+xml"}


async def made(engine: FakeEngine, client: httpx.AsyncClient, **body: Any) -> Any:
    answer = await client.post(TRIGGERS, headers=engine.headers("admin"), json=BODY | body)
    assert answer.status_code == 201, answer.text
    return answer.json()


@pytest.fixture
async def path(engine: FakeEngine, client: httpx.AsyncClient) -> str:
    return str((await made(engine, client))["path"])


async def test_a_trigger_is_shown_once_named_after_its_flag_and_audited_without_its_secret(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    shown = await made(engine, client)
    secret = shown["path"].removeprefix("/k/")
    assert shown["name"] == "checkout-v2-production"
    assert len(secret) > 43
    listed = (await client.get(TRIGGERS, headers=engine.headers("admin"))).json()
    assert [one["name"] for one in listed] == ["checkout-v2-production"]
    (row,) = await engine.store.audit()
    assert msgspec.json.decode(row.body, type=AuditEntry).action == "create_trigger"
    (stored,) = await engine.store.triggers()
    for text in (row.body, str(listed), repr(stored)):
        assert secret not in text


async def test_a_post_kills_exactly_that_flag_as_a_principal_of_its_own(
    engine: FakeEngine, client: httpx.AsyncClient, path: str
) -> None:
    answer = await client.post(path)
    assert answer.status_code == 200
    (kill,) = answer.json()["kills"]
    assert (kill["flag"]["environment"], kill["flag"]["key"]) == ("production", "checkout-v2")
    (held,) = engine.kills.active()
    assert (held.flag, held.actor) == (FLAG, "trigger:checkout-v2-production")
    assert held.reason == "no reason given"


async def test_it_kills_with_the_database_away(engine: FakeEngine, client: httpx.AsyncClient, path: str) -> None:
    engine.store = Gone()
    assert (await client.get(path, headers=HTML)).status_code == 200
    assert (await client.post(path)).status_code == 200
    assert engine.kills.active()


async def test_a_get_shows_one_form_and_presses_nothing(
    engine: FakeEngine, client: httpx.AsyncClient, path: str
) -> None:
    for headers in (HTML, {}, {"Accept": "text/plain"}, {"Accept": "application/json"}):
        answer = await client.get(path, headers=headers)
        assert answer.status_code == 200
    page = (await client.get(path, headers=HTML)).text
    assert page.count("<form") == page.count("<button>KILL</button>") == 1
    assert "<script" not in page
    assert (await client.head(path)).status_code in (200, 405)
    assert engine.kills.active() == []


async def test_its_pages_are_kept_by_nobody_and_tell_no_other_site_the_address(
    engine: FakeEngine, client: httpx.AsyncClient, path: str
) -> None:
    for answer in (await client.get(path, headers=HTML), await client.post(path, headers=HTML)):
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert path.removeprefix("/k/") not in answer.text


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        ({"data": {"reason": "INC-1 5xx"}}, "INC-1 5xx"),
        ({"json": {"reason": "INC-2"}}, "INC-2"),
        ({"params": {"reason": "INC-3"}}, "INC-3"),
        ({"json": {"alerts": [{"status": "firing"}]}}, "no reason given"),
        ({"json": ["a", "list"]}, "no reason given"),
        ({"content": b"{not json", "headers": {"Content-Type": "application/json"}}, "no reason given"),
        ({"content": b"\xff\x00\xfe"}, "no reason given"),
        ({"content": b"x" * 3_000_000}, "no reason given"),
        ({"data": {"reason": "a\0b"}}, "ab"),
        ({"json": {"reason": "x" * 5000}}, "x" * 2000),
    ],
    ids=str,
)
async def test_whatever_comes_with_a_press_the_flag_is_killed(
    engine: FakeEngine, client: httpx.AsyncClient, path: str, sent: Mapping[str, Any], reason: str
) -> None:
    answer = await client.post(path, **sent)
    assert answer.status_code == 200
    assert [kill.reason for kill in engine.kills.active()] == [reason]


async def test_a_browser_gets_a_page_a_terminal_a_line_and_a_program_json(
    engine: FakeEngine, client: httpx.AsyncClient, path: str
) -> None:
    page = await client.post(path, headers=HTML)
    assert "✔ accepted" in page.text
    assert "✔ read back as off" in page.text
    line = await client.post(path, headers={"Accept": "text/plain"})
    assert line.text == "killed main/production/checkout-v2 (kill-1): read back as off\n"
    assert (await client.post(path)).json()["kills"][0]["kill_id"] == "kill-1"


async def test_what_is_not_confirmed_is_accepted_and_says_so(
    engine: FakeEngine, client: httpx.AsyncClient, path: str
) -> None:
    engine.kills.confirms = False
    page = await client.post(path, headers=HTML)
    assert page.status_code == 202
    assert "not read back as off yet" in page.text
    assert "It is killed already" in (await client.get(path, headers=HTML)).text


async def test_pressed_again_it_answers_with_its_kill_and_makes_no_other(
    engine: FakeEngine, client: httpx.AsyncClient, path: str
) -> None:
    first, again = await client.post(path), await client.post(path)
    assert first.json()["kills"][0]["kill_id"] == again.json()["kills"][0]["kill_id"]
    assert len(engine.kills.active()) == 1


async def test_a_kill_of_somebody_else_does_not_swallow_a_press(
    engine: FakeEngine, client: httpx.AsyncClient, path: str
) -> None:
    await client.post("/api/v1/flags/checkout-v2/kill", headers=engine.headers("kill"))
    await client.post(path)
    assert "trigger:checkout-v2-production" in [kill.actor for kill in engine.kills.active()]


async def test_what_is_written_by_others_is_shown_as_text(
    engine: FakeEngine, client: httpx.AsyncClient, path: str
) -> None:
    await client.post(path, data={"reason": "<script>alert(1)</script>"})
    page = (await client.get(path, headers=HTML)).text
    assert "<script" not in page
    assert "&lt;script&gt;" in page


async def test_the_secret_opens_no_other_door_and_no_other_flag(
    engine: FakeEngine, client: httpx.AsyncClient, path: str
) -> None:
    secret = path.removeprefix("/k/")
    headers = {"Authorization": f"Bearer {secret}"}
    for route in ("plans", "kills", "tokens", "triggers"):
        assert (await client.get(f"/api/v1/{route}", headers=headers)).status_code == 401
    for verb in ("kill", "reset"):
        answer = await client.post(f"/api/v1/flags/checkout-v2/{verb}", headers=headers, json={"kill_ids": ["x"]})
        assert answer.status_code == 401
    await client.post(path, params={"environment": "staging"}, json={"environment": "staging", "key": "other"})
    assert [kill.flag for kill in engine.kills.active()] == [FLAG]


async def test_a_token_presses_nothing(engine: FakeEngine, client: httpx.AsyncClient, path: str) -> None:
    assert (await client.post(f"/k/{engine.secret_of('admin')}")).status_code == 404
    assert engine.kills.active() == []


async def test_revoked_it_kills_nothing_any_more(engine: FakeEngine, client: httpx.AsyncClient, path: str) -> None:
    gone = await client.delete(f"{TRIGGERS}/checkout-v2-production", headers=engine.headers("admin"))
    assert gone.status_code == 204
    assert (await client.post(path)).status_code == 404
    assert engine.kills.active() == []


async def test_guessing_is_slowed_down_and_a_right_address_never(
    engine: FakeEngine, client: httpx.AsyncClient, path: str
) -> None:
    answers = [(await client.post(f"/k/{new_secret()}")).status_code for _ in range(30)]
    assert set(answers) == {404, 429}
    assert (await client.post(path)).status_code == 200


async def test_no_error_and_no_log_shows_what_was_in_the_address(
    engine: FakeEngine, client: httpx.AsyncClient, path: str
) -> None:
    secret = path.removeprefix("/k/")
    engine.kills.kill_flags = None  # type: ignore[assignment, method-assign]
    with capture_logs() as logs:
        answers = [
            await client.put(path),
            await client.get(f"{path}/more"),
            await client.post(f"{path}x"),
            await client.post(path),  # something inside is broken
        ]
    assert [answer.status_code for answer in answers] == [405, 404, 404, 500]
    for answer in answers:
        assert secret not in answer.text
        assert answer.json()["instance"] == "/k/…"
    assert secret not in str(logs)


@pytest.mark.parametrize("scopes", [("read",), ("author",), ("operate",), ("kill",), ("approve",)])
async def test_only_an_administrator_makes_or_sees_them(
    engine: FakeEngine, client: httpx.AsyncClient, scopes: tuple[Any, ...]
) -> None:
    """An address outlives the token of whoever made it: a token that ends must not leave a lasting one behind."""
    headers = engine.headers(*scopes)
    assert (await client.post(TRIGGERS, headers=headers, json=BODY)).status_code == 403
    assert (await client.get(TRIGGERS, headers=headers)).status_code == 403
    assert (await client.delete(f"{TRIGGERS}/x", headers=headers)).status_code == 403


async def test_an_administrator_of_one_environment_makes_and_revokes_none_of_another(
    engine: FakeEngine, client: httpx.AsyncClient, path: str
) -> None:
    limited = engine.headers("admin", environments=("staging",))
    assert (await client.post(TRIGGERS, headers=limited, json=BODY)).status_code == 403
    assert (await client.delete(f"{TRIGGERS}/checkout-v2-production", headers=limited)).status_code == 403
    there = await client.post(TRIGGERS, headers=limited, json={**BODY, "environment": "staging"})
    assert there.json()["flag"]["environment"] == STAGING_FLAG.environment


async def test_a_name_is_taken_once_and_a_flag_must_be_known(
    engine: FakeEngine, client: httpx.AsyncClient, path: str
) -> None:
    headers = engine.headers("admin")
    assert (await client.post(TRIGGERS, headers=headers, json=BODY)).status_code == 409
    unknown = await client.post(TRIGGERS, headers=headers, json={**BODY, "flag": "chekcout-v2"})
    assert unknown.status_code == 404


async def test_the_public_url_leads_to_it(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    assert (await made(engine, client))["url"] == ""
