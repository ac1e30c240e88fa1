"""Every route is closed unless a token opens it (promise I19). The routes come from the OpenAPI document."""

from typing import Any

import httpx
import pytest

from controller.api import authentication
from controller.attempts import FailureLimiter
from controller.domain.catalogue import SCOPES, Scope
from controller.settings import ServerSettings, Settings
from tests.api.fake_engine import FakeEngine, Gone, client_of

OPEN = {("GET", "/api/v1/version"), ("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/metrics")}
VALUES = {"plan": "checkout-v2", "name": "some-name", "key": "checkout-v2", "environment": "production"}


class Route:
    def __init__(self, method: str, path: str, operation: dict[str, Any]) -> None:
        self.method, self.template = method.upper(), path
        self.path = path.format(**VALUES)
        self.opens: set[str] = {scope for one in operation.get("security", []) for scope in one["token"]}

    async def call(self, client: httpx.AsyncClient, headers: dict[str, str] | None = None) -> httpx.Response:
        body: dict[str, Any] | None = {} if self.method == "POST" else None
        return await client.request(self.method, self.path, headers=headers, json=body)


async def routes(client: httpx.AsyncClient) -> list[Route]:
    document = (await client.get("/api/v1/openapi.json")).json()
    return [
        Route(method, path, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
    ]


async def protected(client: httpx.AsyncClient) -> list[Route]:
    found = [route for route in await routes(client) if (route.method, route.template) not in OPEN]
    assert len(found) > 25
    return found


async def test_a_route_is_either_listed_as_open_here_or_names_its_scopes(client: httpx.AsyncClient) -> None:
    found = await routes(client)
    assert {(route.method, route.template) for route in found if not route.opens} == OPEN
    for route in found:
        assert route.opens <= set(SCOPES)


async def test_no_route_opens_without_a_token(client: httpx.AsyncClient) -> None:
    for route in await protected(client):
        answer = await route.call(client)
        assert answer.status_code == 401, route.template
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.headers["content-type"] == "application/problem+json"


async def test_no_route_opens_to_an_unknown_token(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FailureLimiter, "wrong_token", lambda *_: 0.0)
    for route in await protected(client):
        answer = await route.call(client, {"Authorization": "Bearer rampart_guessed"})
        assert answer.status_code == 401, route.template


async def test_no_route_opens_to_an_expired_token(
    engine: FakeEngine, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FailureLimiter, "wrong_token", lambda *_: 0.0)
    secret = engine.secret_of(*SCOPES, expires_in=60)
    headers = {"Authorization": f"Bearer {secret}"}
    assert (await client.get("/api/v1/plans", headers=headers)).status_code == 200
    engine.clock.passed = 60
    for route in await protected(client):
        answer = await route.call(client, headers)
        assert answer.status_code == 401, route.template
        assert "expired" in answer.json()["detail"]


async def test_no_route_opens_to_a_token_of_every_other_scope(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    for route in await protected(client):
        others: list[Scope] = [scope for scope in SCOPES if scope not in {*route.opens, "admin"}]
        answer = await route.call(client, engine.headers(*others))
        assert answer.status_code == 403, route.template
        assert answer.json()["type"] == "urn:rampart:forbidden"


async def test_each_named_scope_opens_its_route_by_itself(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    for route in await protected(client):
        for scope in route.opens:
            headers = engine.headers(scope)  # type: ignore[arg-type]
            answer = await route.call(client, headers)
            assert answer.status_code not in (401, 403, 405, 500), (route.template, scope, answer.text)


async def test_no_flag_or_run_moves_with_a_token_of_another_environment(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    headers = engine.headers(environments=("staging",))
    kill_ids = {"kill_ids": ["kill-1"]}
    await client.post("/api/v1/flags/checkout-v2/kill", headers=engine.headers("kill"))
    before = dict(engine.kills.in_force)
    for path, body in [
        ("environments/production/flags/checkout-v2/kill", {}),
        ("environments/production/flags/checkout-v2/reset", kill_ids),
        ("flags/checkout-v2/kill", {}),
        ("flags/checkout-v2/reset", kill_ids),
        *((f"plans/checkout-v2/{verb}", {}) for verb in ("start", "advance", "pause", "resume", "step-back")),
        *((f"plans/checkout-v2/{verb}", {}) for verb in ("abandon", "approve", "adopt")),
    ]:
        answer = await client.post(f"/api/v1/{path}", headers=headers, json=body)
        assert answer.status_code == 403, path
    assert engine.kills.in_force == before
    assert engine.commands.log == []


async def test_a_token_of_one_environment_kills_there(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    headers = engine.headers("kill", environments=("staging",))
    answer = await client.post("/api/v1/environments/staging/flags/checkout-v2/kill", headers=headers)
    assert answer.status_code == 200
    assert [kill.flag.environment for kill in engine.kills.in_force.values()] == ["staging"]


@pytest.mark.parametrize(
    "path", ["/api/v1/version/../plans", "/api/v1//plans", "/api/v1/plans/", "/healthz/../api/v1/plans"]
)
async def test_a_crooked_path_opens_nothing(client: httpx.AsyncClient, path: str) -> None:
    request = client.build_request("GET", "/healthz")
    request.url = request.url.copy_with(raw_path=path.encode())
    assert (await client.send(request)).status_code in (401, 404)


async def test_a_route_that_names_no_scope_is_closed_even_to_admin(engine: FakeEngine) -> None:
    from litestar import Litestar, Router, get

    from controller.api import exception_handlers

    @get("/forgotten")
    async def forgotten() -> str:
        return "open"

    guarded = Router(
        "/", route_handlers=[forgotten], guards=[authentication.authenticated(engine, FailureLimiter())]
    )
    app: Any = Litestar(route_handlers=[guarded], exception_handlers=exception_handlers(), openapi_config=None)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://rampart.test") as client:
        assert (await client.get("/forgotten", headers=engine.headers())).status_code == 403


async def test_authentication_and_kills_need_no_database(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    headers = engine.headers("kill", "read")
    engine.store = Gone()
    assert (await client.post("/api/v1/flags/checkout-v2/kill", headers=headers)).status_code == 200
    assert len((await client.get("/api/v1/kills", headers=headers)).json()) == 2
    assert (await client.get("/api/v1/plans", headers=headers)).status_code == 503


async def test_metrics_are_closed_when_the_settings_say_so() -> None:
    settings = Settings(server=ServerSettings(allow_unauthenticated_metrics=False))
    engine = FakeEngine(settings=settings)
    async with client_of(engine) as client:
        assert (await client.get("/metrics")).status_code == 401
        assert (await client.get("/metrics", headers=engine.headers("kill"))).status_code == 403
        answer = await client.get("/metrics", headers=engine.headers("read"))
        assert answer.text == "rampart_build_info 1\n"


async def test_many_wrong_tokens_are_put_off_and_good_ones_are_not(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    wrong = {"Authorization": "Bearer rampart_guess"}
    statuses = [(await client.get("/api/v1/plans", headers=wrong)).status_code for _ in range(30)]
    assert statuses[0] == 401
    assert statuses[-1] == 429
    refused = await client.get("/api/v1/plans", headers=wrong)
    assert int(refused.headers["retry-after"]) > 0
    assert refused.json()["type"] == "urn:rampart:too-many-attempts"
    assert (await client.get("/api/v1/plans", headers=engine.headers("read"))).status_code == 200
    async with client_of(engine, address="192.0.2.2") as neighbour:
        assert (await neighbour.get("/api/v1/plans", headers=wrong)).status_code == 401
    engine.clock.passed += 60
    assert (await client.get("/api/v1/plans", headers=wrong)).status_code == 401


async def test_a_forged_forwarding_header_buys_no_new_allowance(client: httpx.AsyncClient) -> None:
    answers = [
        await client.get(
            "/api/v1/plans", headers={"Authorization": "Bearer x", "X-Forwarded-For": f"198.51.100.{number}"}
        )
        for number in range(30)
    ]
    assert answers[-1].status_code == 429


def test_the_limiter_forgets_nobody_under_a_flood_of_addresses() -> None:
    limiter = FailureLimiter(burst=2, per_minute=2, addresses=100)
    for _ in range(3):
        last = limiter.wrong_token("attacker", 0.0)
    assert last > 0
    for number in range(5_000):
        limiter.wrong_token(f"address-{number}", 0.5 + number / 1e6)
    assert len(limiter) <= 100
    assert limiter.wrong_token("attacker", 1.0) > 0
    assert limiter.wrong_token("one-more", 1.0) > 0


def test_the_limiter_makes_room_for_new_addresses_when_old_ones_have_waited() -> None:
    limiter = FailureLimiter(burst=2, per_minute=2, addresses=10)
    for number in range(10):
        limiter.wrong_token(f"address-{number}", 0.0)
    assert limiter.wrong_token("later", 600.0) == 0
    assert len(limiter) == 1
