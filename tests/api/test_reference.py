from pathlib import Path

import httpx

from controller.api.reference import route_table, updated

PAGE = Path(__file__).parents[2] / "docs" / "api.md"


def test_the_documented_routes_are_the_routes() -> None:
    page = PAGE.read_text()
    assert updated(page) == page, "docs/api.md is stale; run `python -m controller.api.reference docs/api.md`"


async def test_every_route_that_is_described_is_in_the_table(client: httpx.AsyncClient) -> None:
    paths = (await client.get("/api/v1/openapi.json")).json()["paths"]
    table = route_table()
    described = [f"`{method.upper()} {path}`" for path, item in paths.items() for method in item]
    assert [route for route in described if route not in table] == []


def test_a_route_shows_its_scopes() -> None:
    table = route_table()
    assert "| `POST /api/v1/plans/{plan}/pause` | `operate` or `kill` | Hold the exposure |" in table
    assert "| `GET /healthz` | open |" in table
