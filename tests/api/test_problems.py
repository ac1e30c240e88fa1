"""Every error is a problem (RFC 9457) that scripts can tell apart and that shows nothing of the inside (I17)."""

import inspect
from typing import Any

import httpx
import pytest

from controller import errors
from controller.api.problems import STATUSES
from tests.api.fake_engine import FakeEngine, Gone

PAUSE = "/api/v1/plans/checkout-v2/pause"


def assert_problem(answer: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    problem: dict[str, Any] = answer.json()
    assert problem["type"] == f"urn:rampart:{kind}"
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert problem["instance"] == answer.request.url.path
    return problem


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (errors.Refused("not now"), 422, "refused"),
        (errors.Forbidden("not you"), 403, "forbidden"),
        (errors.NotFound("no such run"), 404, "not-found"),
        (errors.Invalid("wrong"), 422, "invalid"),
        (errors.Conflict("somebody was first"), 409, "conflict"),
        (errors.StaleLease("another replica holds it"), 409, "conflict"),
        (errors.KillInForce("a kill covers the flag"), 409, "kill-in-force"),
        (errors.StoreUnavailable("the database is away"), 503, "unavailable"),
        (errors.ProviderUnavailable("the provider is away"), 503, "unavailable"),
    ],
)
async def test_errors_are_told_apart_by_type_and_status(
    engine: FakeEngine, client: httpx.AsyncClient, error: Exception, status: int, kind: str
) -> None:
    engine.commands.failure = error
    answer = await client.post(PAUSE, headers=engine.headers())
    problem = assert_problem(answer, status, kind)
    assert problem["detail"] == str(error)
    assert ("retry-after" in answer.headers) == (status == 503)


def test_every_error_a_caller_can_cause_stands_in_the_table() -> None:
    theirs = [
        cls
        for _, cls in inspect.getmembers(errors, inspect.isclass)
        if issubclass(cls, errors.RampartError) and cls not in (errors.RampartError, errors.SettingsError)
    ]
    assert [cls for cls in theirs if not any(one in STATUSES for one in cls.__mro__)] == []


async def test_a_refusal_lists_what_is_in_the_way(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    engine.commands.failure = errors.Refused(
        "cannot advance now", blocks=["freeze black-friday", "12 of 200 requests"]
    )
    problem = assert_problem(await client.post(PAUSE, headers=engine.headers()), 422, "refused")
    assert problem["blocks"] == ["freeze black-friday", "12 of 200 requests"]


async def test_an_unexpected_failure_shows_nothing_of_the_inside(
    engine: FakeEngine, client: httpx.AsyncClient, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.commands.failure = ValueError("postgres://rampart:hunter2@db/rampart")
    answer = await client.post(PAUSE, headers=engine.headers())
    problem = assert_problem(answer, 500, "internal")
    assert "hunter2" not in answer.text
    assert "ValueError" not in answer.text
    logged = "".join(capsys.readouterr())
    incident = problem["detail"].rpartition(" ")[2]
    assert incident in logged
    assert engine.secret_of("read") not in logged


async def test_the_log_of_a_failure_never_holds_the_callers_token(
    engine: FakeEngine, client: httpx.AsyncClient, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.commands.failure = RuntimeError("boom")
    headers = engine.headers()
    await client.post(PAUSE, headers=headers)
    logged = "".join(capsys.readouterr())
    assert "boom" in logged
    assert headers["Authorization"].removeprefix("Bearer ") not in logged


@pytest.mark.parametrize("path", ["/nothing", "/api/v1", "/api/v1/nothing", "/api/v1/openapi.json/more"])
async def test_an_unknown_path_is_a_problem(client: httpx.AsyncClient, path: str) -> None:
    assert_problem(await client.get(path), 404, "not-found")


async def test_a_method_that_is_not_there_is_a_problem_that_names_the_possible_ones(
    client: httpx.AsyncClient,
) -> None:
    answer = await client.put("/api/v1/plans")
    assert_problem(answer, 405, "method-not-allowed")
    assert "GET" in answer.headers["allow"]


async def test_an_unknown_plan_is_a_problem(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    for path in ("plans/other", "plans/other/status", "plans/other/explain", "policies/other"):
        assert_problem(await client.get(f"/api/v1/{path}", headers=engine.headers()), 404, "not-found")


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("plans/checkout-v2/pause", b'{"note": 1}', "note"),
        ("plans/checkout-v2/pause", b'{"notes": "x"}', "notes"),
        ("plans/checkout-v2/pause", b'{"note": "\\u0000"}', "note"),
        ("flags/checkout-v2/reset", b'{"note": "x"}', "kill_ids"),
        ("flags/checkout-v2/reset", b'{"kill_ids": ["a", 2]}', "kill_ids[1]"),
        ("flags/checkout-v2/reset", b'{"kill_ids": []}', "kill_ids"),
        ("manifests", b'{"files": [{"name": "a.yaml"}]}', "files[0].text"),
        ("manifests", b'{"files": [{"name": "a", "text": ""}], "dry_run": "true"}', "dry_run"),
        ("manifests", b'{"files": [{"name": "a", "text": ""}], "dry_run": 1}', "dry_run"),
        ("tokens", b'{"name": "x", "scopes": ["everything"]}', "scopes[0]"),
        ("tokens", b'{"name": "X Y", "scopes": ["read"]}', "name"),
        ("sdk-keys", b'{"name": "x"}', "environment"),
    ],
)
async def test_a_body_of_the_wrong_shape_is_a_400_that_names_the_field(
    engine: FakeEngine, client: httpx.AsyncClient, path: str, body: bytes, field: str
) -> None:
    answer = await client.post(f"/api/v1/{path}", headers=engine.headers(), content=body)
    problem = assert_problem(answer, 400, "malformed")
    assert [one["path"] for one in problem["problems"]] == [field]
    assert field in problem["detail"]


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b"[]", b"null", b'"x"', b"[" * 100_000, b""])
async def test_what_is_no_json_object_is_a_400(engine: FakeEngine, client: httpx.AsyncClient, body: bytes) -> None:
    answer = await client.post("/api/v1/flags/checkout-v2/reset", headers=engine.headers(), content=body)
    assert_problem(answer, 400, "malformed")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("plans/checkout-v2/status?run=abc", "run"),
        ("plans/checkout-v2/status?run=0", "run"),
        ("audit?limit=100000", "limit"),
        ("audit?after=-1", "after"),
        ("audit?run=nonsense", "run"),
    ],
)
async def test_a_wrong_query_is_a_400_that_names_the_parameter(
    engine: FakeEngine, client: httpx.AsyncClient, query: str, field: str
) -> None:
    problem = assert_problem(await client.get(f"/api/v1/{query}", headers=engine.headers()), 400, "malformed")
    assert problem["problems"][0]["path"] == field


async def test_a_database_that_is_away_is_said_to_be_away(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    engine.store = Gone()
    for path in ("plans", "policies", "flags", "tokens", "sdk-keys", "audit", "audit/head", "audit/verify"):
        assert_problem(await client.get(f"/api/v1/{path}", headers=engine.headers()), 503, "unavailable")
