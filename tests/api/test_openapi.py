"""The OpenAPI document is true: what it describes is what is answered (checked by schemathesis)."""

from typing import Any

import httpx
import schemathesis
from hypothesis import HealthCheck, Phase, settings

from controller.api import create_app
from controller.api.bodies import REQUEST_BODIES
from tests.api.fake_engine import FakeClock, FakeEngine
from tests.api.manifests import SETTINGS
from tests.support.engine import ModelProvider


class HastyClock(FakeClock):
    """A minute passes at each look, so that the many wrong tokens tried here are not put off."""

    def monotonic(self) -> float:
        self.looks = getattr(self, "looks", 0) + 1
        return 60.0 * self.looks


ENGINE = FakeEngine(settings=SETTINGS, providers={"main": ModelProvider()})
ENGINE.clock = HastyClock()
HEADERS = ENGINE.headers()
# What has the right shape may still make no sense (422); what has the wrong shape is a 400 and nothing else.
CHECKS = {
    "positive_data_acceptance": {"expected-statuses": ["2xx", "404", "409", "422"]},
    "negative_data_rejection": {"expected-statuses": ["400", "401", "404", "405"]},
}
CONFIG = schemathesis.Config.from_dict({"checks": CHECKS})
SCHEMA = schemathesis.openapi.from_asgi("/api/v1/openapi.json", create_app(ENGINE), config=CONFIG)


@SCHEMA.parametrize()
@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_as_described(case: Any) -> None:
    case.call_and_validate(headers=HEADERS)


async def document(client: httpx.AsyncClient) -> dict[str, Any]:
    answer = await client.get("/api/v1/openapi.json")
    assert answer.headers["content-type"] == "application/vnd.oai.openapi+json"
    described: dict[str, Any] = answer.json()
    return described


async def test_request_bodies_are_closed(client: httpx.AsyncClient) -> None:
    schemas = (await document(client))["components"]["schemas"]
    for body in REQUEST_BODIES:
        assert schemas[body.__name__]["additionalProperties"] is False
    assert schemas["TokenBody"]["required"] == ["name", "scopes"]


async def test_every_operation_answers_failure_with_a_problem(client: httpx.AsyncClient) -> None:
    described = await document(client)
    for path, item in described["paths"].items():
        for operation in item.values():
            assert "application/problem+json" in operation["responses"]["default"]["content"], path
            assert "400" not in operation["responses"], path


async def test_there_is_no_page_that_loads_anything_from_elsewhere(client: httpx.AsyncClient) -> None:
    for path in ("swagger", "redoc", "rapidoc", "elements", "scalar"):
        for base in ("/schema", "/api/v1", "/api/v1/openapi.json"):
            assert (await client.get(f"{base}/{path}")).status_code == 404
