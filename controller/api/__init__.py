"""The JSON door: parse, call the engine, encode. There are no rules in here.

Every route is behind a guard, except the ones in OPEN; a protected route that names no scope is closed.
"""

from collections.abc import Sequence
from typing import Any

from litestar import Litestar, Request, Router
from litestar.datastructures import ResponseHeader
from litestar.di import Provide
from litestar.types import ControllerRouterHandler

from controller.access import Actor
from controller.admission import MAX_BODY_BYTES, budget_of
from controller.api import (
    administration,
    alerts,
    audit,
    freezes,
    health,
    kills,
    notifications,
    peers,
    plans,
    raises,
    triggers,
)
from controller.api.authentication import authenticated
from controller.api.openapi import openapi_config
from controller.api.pressing import Press
from controller.api.problems import exception_handlers
from controller.attempts import FailureLimiter
from controller.facade import Engine

__all__ = ["create_app", "exception_handlers", "handlers", "openapi_config"]

PREFIX = "/api/v1"
REQUESTS_AT_ONCE = 128
KILLS_AT_ONCE = 128
PEERS_AT_ONCE = 64
PRESSES_AT_ONCE = 64
ALERTS_AT_ONCE = 16

PROTECTED = [
    *plans.HANDLERS,
    *kills.RESET_HANDLERS,
    *raises.HANDLERS,
    *notifications.HANDLERS,
    *freezes.HANDLERS,
    *triggers.HANDLERS,
    *administration.HANDLERS,
    *audit.HANDLERS,
    health.doctor,
    health.send_test_messages,
]
KILLS = kills.KILL_HANDLERS
ALERTS = alerts.HANDLERS
OPEN = [health.version]
HEALTH = [health.healthz, health.readyz]


def handlers(engine: Engine) -> list[ControllerRouterHandler]:
    """Everything under /api/v1, and /healthz, /readyz and /metrics. The OpenAPI page comes with its config."""
    limiter = FailureLimiter()
    guard = authenticated(engine, limiter)
    requests, urgent = budget_of(REQUESTS_AT_ONCE), budget_of(KILLS_AT_ONCE)
    open_metrics = engine.settings.server.allow_unauthenticated_metrics

    def served() -> Engine:
        return engine

    dependencies = {"engine": Provide(served, sync_to_thread=False)}
    shared: dict[str, Any] = {
        "dependencies": dependencies,
        "request_max_body_size": MAX_BODY_BYTES,
        "response_headers": [ResponseHeader(name="Cache-Control", value="no-store")],
    }
    protected: dict[str, Any] = {
        **shared,
        "guards": [guard],
        "dependencies": {**dependencies, "actor": Provide(_actor, sync_to_thread=False)},
    }
    routers = [
        Router(PREFIX, route_handlers=PROTECTED, middleware=[requests], **protected),
        Router(PREFIX, route_handlers=KILLS, middleware=[urgent], **protected),
        Router(PREFIX, route_handlers=ALERTS, middleware=[budget_of(ALERTS_AT_ONCE)], **protected),
        Router(PREFIX, route_handlers=OPEN, **shared),
        Router("/", route_handlers=HEALTH, **shared),
        Router(
            "/",
            route_handlers=Press(engine, limiter).handlers(),
            middleware=[budget_of(PRESSES_AT_ONCE)],
            **shared,
        ),
    ]
    if engine.peers.secret_digest:
        told: dict[str, Any] = {**shared, "guards": [peers.peers_only(engine, limiter)]}
        routers.append(
            Router(PREFIX, route_handlers=peers.HANDLERS, middleware=[budget_of(PEERS_AT_ONCE)], **told)
        )
    if open_metrics:
        return [*routers, Router("/", route_handlers=[health.OPEN_METRICS], **shared)]
    return [*routers, Router("/", route_handlers=[health.PROTECTED_METRICS], **protected)]


def _actor(request: Request[Any, Any, Any]) -> Actor:
    caller: Actor = request.user
    return caller


def create_app(engine: Engine, extra_handlers: Sequence[ControllerRouterHandler] = (), **options: Any) -> Litestar:
    """The JSON door and `extra_handlers` as one application; `options` go to Litestar (hooks and the like)."""
    return Litestar(
        route_handlers=[*handlers(engine), *extra_handlers],
        exception_handlers=exception_handlers(),
        openapi_config=openapi_config(),
        logging_config=None,
        **options,
    )
