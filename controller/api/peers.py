"""The door for other replicas, and for nobody else: kills they accepted. It needs no database.

Only the secret that all replicas share opens it, and that secret opens nothing else. Without one there is no door.
It is left out of the OpenAPI document: replicas talk to each other, no client does.
"""

import hmac
from collections.abc import Sequence
from typing import Annotated, Any

import structlog
from litestar import post
from litestar.connection import ASGIConnection
from litestar.exceptions import ValidationException
from litestar.handlers import BaseRouteHandler
from litestar.params import JSONBody
from msgspec import Meta, Struct, field

from controller.access import digest
from controller.api.authentication import Guard, bearer, wrong
from controller.api.decoding import JsonBody
from controller.attempts import FailureLimiter
from controller.domain.catalogue import KillRecord, PeerAnswer
from controller.domain.quantities import KEY_PATTERN
from controller.errors import Unauthenticated
from controller.facade import Engine, Served

log = structlog.get_logger()

KILLS_AT_MOST = 1000
LONGEST_ID = 100


class PeerMessage(Struct, frozen=True, kw_only=True):
    """Fields of a newer version are passed over: replicas of two versions must be able to tell each other."""

    from_: Annotated[str, Meta(pattern=KEY_PATTERN)] = field(name="from")
    kills: Annotated[list[KillRecord], Meta(max_length=KILLS_AT_MOST)]


def peers_only(engine: Engine, limiter: FailureLimiter) -> Guard:
    """The guard of this door. A wrong secret counts like a wrong token."""

    def guard(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        if not hmac.compare_digest(digest(bearer(connection)), engine.peers.secret_digest):
            wrong(connection, engine, limiter)
            raise Unauthenticated("this is for replicas, with the secret that they share")

    return guard


@post("/peers/kills", status_code=200, dto=JsonBody[PeerMessage], return_dto=None, include_in_schema=False)
async def told_of_kills(engine: Served, data: JSONBody[PeerMessage]) -> PeerAnswer:
    _check(data.kills)
    if data.kills:
        log.info("peer_told", peer=data.from_, kills=len(data.kills))
    return await engine.killer.hear(data.kills)


def _check(kills: Sequence[KillRecord]) -> None:
    """What types do not say, and what would fail again and again later. Raises ValidationException."""
    for record in kills:
        kill = record.kill
        if not 0 < len(kill.id) <= LONGEST_ID or kill.accepted_at.tzinfo is None:
            raise ValidationException("a kill has an id and a time in a zone", extra=[])
        if "\0" in f"{kill.id}{kill.actor}{kill.reason}{kill.run}":
            raise ValidationException("no text of a kill holds a NUL character", extra=[])


HANDLERS = [told_of_kills]
