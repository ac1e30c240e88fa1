"""Who calls, and whether the route is theirs to call. From memory only: it works with the database away."""

import ipaddress
from collections.abc import Callable
from typing import Any

import structlog
from litestar.connection import ASGIConnection
from litestar.exceptions import TooManyRequestsException
from litestar.handlers import BaseRouteHandler
from msgspec import Struct

from controller.access import Actor
from controller.api.engine import Engine
from controller.domain.catalogue import Scope
from controller.errors import Forbidden, Unauthenticated

log = structlog.get_logger()

Guard = Callable[[ASGIConnection[Any, Any, Any, Any], BaseRouteHandler], None]

TIDY_SECONDS = 1.0
IPV6_SITE_BITS = 64
"""One IPv6 customer has at least that many addresses; they count as one."""


def needs(*scopes: Scope) -> dict[str, Any]:
    """Handler arguments: any one of `scopes` opens the route. A route that names none is closed to everybody."""
    return {"opt": {"scopes": scopes}, "security": [{"token": [scope]} for scope in scopes]}


class Allowance(Struct):
    """Wrong tokens this address may still present; refilled over time."""

    left: float
    at: float


class FailureLimiter:
    """Counts wrong tokens per client address in bounded memory (promise I20).

    Only a wrong token is ever slowed down, so that a flood from one address does not lock out its honest
    users. When the table is full, newcomers share one allowance: filling the table resets nobody's.
    """

    def __init__(self, *, burst: int = 20, per_minute: int = 20, addresses: int = 10_000) -> None:
        self._burst = burst
        self._per_second = per_minute / 60
        self._addresses = addresses
        self._allowances: dict[str, Allowance] = {}
        self._newcomers = Allowance(left=burst, at=0.0)
        self._tidied_at = 0.0

    def __len__(self) -> int:
        return len(self._allowances)

    def wrong_token(self, address: str, now: float) -> float:
        """Count one. Returns the seconds to wait, 0.0 while there is allowance. `now` is monotonic."""
        allowance = self._allowance(address, now)
        allowance.left = self._refilled(allowance, now)
        allowance.at = now
        if allowance.left < 1:
            return (1 - allowance.left) / self._per_second
        allowance.left -= 1
        return 0.0

    def _allowance(self, address: str, now: float) -> Allowance:
        found = self._allowances.get(address)
        if found is not None:
            return found
        if len(self._allowances) >= self._addresses and now - self._tidied_at >= TIDY_SECONDS:
            self._forget_refilled(now)
        if len(self._allowances) >= self._addresses:
            return self._newcomers
        return self._allowances.setdefault(address, Allowance(left=self._burst, at=now))

    def _refilled(self, allowance: Allowance, now: float) -> float:
        return min(self._burst, allowance.left + (now - allowance.at) * self._per_second)

    def _forget_refilled(self, now: float) -> None:
        self._tidied_at = now
        self._allowances = {
            address: allowance
            for address, allowance in self._allowances.items()
            if self._refilled(allowance, now) < self._burst
        }


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
    address = _address(connection)
    wait = limiter.wrong_token(address, engine.clock.monotonic())
    if wait:
        raise TooManyRequestsException(
            "too many wrong tokens from this address", headers={"Retry-After": str(int(wait) + 1)}
        ) from None
    log.warning("authentication_failed", address=address)


def _address(connection: ASGIConnection[Any, Any, Any, Any]) -> str:
    """The peer of the connection. X-Forwarded-For is whatever the caller likes it to be."""
    host = connection.client.host if connection.client else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.version == 4:
        return host
    return str(ipaddress.ip_network((address, IPV6_SITE_BITS), strict=False))
