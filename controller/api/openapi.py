"""The OpenAPI document: Litestar's, with what it leaves out put in. One JSON page, nothing from a CDN."""

from typing import Any

import msgspec
from litestar import Request, Router
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme

from controller import __version__
from controller.api.bodies import FOREIGN_BODIES, REQUEST_BODIES
from controller.api.problems import HTTP_KINDS, PROBLEM_JSON, STATUSES, Problem

DOCUMENT_PATH = "/api/v1/openapi.json"
REFERENCES = "#/components/schemas/{name}"


def openapi_config() -> OpenAPIConfig:
    bearer = SecurityScheme(
        type="http", scheme="bearer", description="A named token: Authorization: Bearer rampart_…"
    )
    return OpenAPIConfig(
        title="Rampart",
        version=__version__,
        description="Raises feature flags step by step, and kills them.",
        path=DOCUMENT_PATH,
        render_plugins=[CompletedDocument(path=["/", "/openapi.json"])],
        components=Components(security_schemes={"token": bearer}),
    )


class CompletedDocument(JsonRenderPlugin):
    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        return self.render_json(request, completed(openapi_schema))

    def receive_router(self, router: Router) -> None:
        """Litestar answers with an HTML page to whatever else is asked for here; ours are problems."""
        router.routes = [route for route in router.routes if not route.path_parameters]


def completed(document: dict[str, Any]) -> dict[str, Any]:
    """The document with closed request bodies, and with problems as the answer to everything that fails."""
    schemas = {**document["components"]["schemas"], **_exact_schemas()}
    schemas.pop("ValidationException", None)
    paths = {path: _completed_path(item, schemas) for path, item in document["paths"].items()}
    return {**document, "paths": paths, "components": {**document["components"], "schemas": schemas}}


def _exact_schemas() -> dict[str, Any]:
    # msgspec describes its own types to the letter: unknown fields, patterns and lengths included.
    _, exact = msgspec.json.schema_components((*REQUEST_BODIES, *FOREIGN_BODIES, Problem), ref_template=REFERENCES)
    return exact


def _completed_path(item: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _completed_operation(value, schemas) if isinstance(value, dict) else value
        for key, value in item.items()
    }


def _completed_operation(operation: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    responses = {status: answer for status, answer in operation["responses"].items() if status != "400"}
    completed_operation = {**operation, "responses": {**responses, "default": _problem_response()}}
    if body := operation.get("requestBody"):
        name = body["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        completed_operation["requestBody"] = {**body, "required": bool(schemas[name].get("required"))}
    return completed_operation


def _problem_response() -> dict[str, Any]:
    kinds = {status: {kind} for status, kind in HTTP_KINDS.items()}
    for status, kind, _ in STATUSES.values():
        kinds.setdefault(status, set()).add(kind)
    listed = "; ".join(f"{status} {', '.join(sorted(kinds[status]))}" for status in sorted(kinds))
    return {
        "description": f"A problem (RFC 9457). `type` is urn:rampart: and one of: {listed}; 500 internal",
        "content": {PROBLEM_JSON: {"schema": {"$ref": REFERENCES.format(name="Problem")}}},
    }
