"""Who calls, and whether the route is theirs to call. From memory only: it works with the database away."""

from collections.abc import Callable
from typing import Any

import structlog
from litestar.connection import ASGIConnection
from litestar.exceptions import TooManyRequestsException
from litestar.handlers import BaseRouteHandler

from controller.access import Actor
from controller.attempts import FailureLimiter, address_of
from controller.domain.catalogue import Scope
from controller.errors import Forbidden, Unauthenticated
from controller.facade import Engine

log = structlog.get_logger()

Guard = Callable[[ASGIConnection[Any, Any, Any, Any], BaseRouteHandler], None]


def needs(*scopes: Scope) -> dict[str, Any]:
    """Handler arguments: any one of `scopes` opens the route. A route that names none is closed to everybody."""
    return {"opt": {"scopes": scopes}, "security": [{"token": [scope]} for scope in scopes]}


def authenticated(engine: Engine, limiter: FailureLimiter) -> Guard:
    """The guard of every protected router. It leaves the caller as `request.user`."""

    def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        actor = _caller(connection, engine, limiter)
        scopes: tuple[Scope, ...] = handler.opt.get("scopes", ())
        environment = connection.path_params.get("environment")
        if not any(actor.may(scope, environment) for scope in scopes):
            raise Forbidden(_refusal(actor, scopes, environment))
        connection.scope["user"] = actor

    return guard


def _refusal(actor: Actor, scopes: tuple[Scope, ...], environment: str | None) -> str:
    if not scopes:
        return "nobody may call this: the route names no scope"
    either = " or ".join(f'"{scope}"' for scope in scopes)
    where = f" in {environment}" if environment else ""
    return f'token "{actor.name}" needs the scope {either}{where} for this'


def _caller(connection: ASGIConnection[Any, Any, Any, Any], engine: Engine, limiter: FailureLimiter) -> Actor:
    secret = bearer(connection)
    try:
        return engine.tokens.authenticate(secret, engine.clock.now())
    except Unauthenticated:
        wrong(connection, engine, limiter)
        raise


def bearer(connection: ASGIConnection[Any, Any, Any, Any]) -> str:
    """What the caller presents. Raises Unauthenticated when that is nothing."""
    scheme, _, secret = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise Unauthenticated("send a token: Authorization: Bearer rampart_…")
    return secret.strip()


def wrong(connection: ASGIConnection[Any, Any, Any, Any], engine: Engine, limiter: FailureLimiter) -> None:
    """Count what was presented. Raises TooManyRequestsException when it was too often from there."""
    address = address_of(connection)
    wait = limiter.wrong_token(address, engine.clock.monotonic())
    if wait:
        raise TooManyRequestsException(
            "too many wrong tokens from this address", headers={"Retry-After": str(int(wait) + 1)}
        ) from None
    log.warning("authentication_failed", address=address)
