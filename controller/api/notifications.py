"""What channels were not told yet, and what they could not be told."""

import uuid
from typing import Annotated

from litestar import get, post
from litestar.params import JSONBody, QueryParameter
from msgspec.structs import replace

from controller.access import Actor
from controller.api.authentication import needs
from controller.api.bodies import LettersBody
from controller.api.decoding import JsonBody
from controller.domain.audit import AuditEntry
from controller.domain.notification import Backlog, DeadLetter, Letters, LettersChanged
from controller.domain.quantities import NAME_PATTERN
from controller.errors import Forbidden, Invalid, NotFound
from controller.facade import Caller, Served

PAGE = 1000
NONE_NAMED = LettersBody()

After = Annotated[int, QueryParameter(ge=0, le=2**53, description="only those with a higher id")]
Limit = Annotated[int, QueryParameter(ge=1, le=PAGE)]
ChannelName = Annotated[str | None, QueryParameter(pattern=NAME_PATTERN)]


@get("/notifications", summary="How much each channel was not told yet, or could not be told", **needs("read"))
async def list_channels(engine: Served) -> list[Backlog]:
    left = {one.channel: one for one in await engine.notifications.backlog()}
    names = sorted({*left, *engine.settings.channels})
    return [left.get(name, Backlog(channel=name)) for name in names]


@get("/notifications/dead", summary="The dead letters: messages that could not be delivered", **needs("read"))
async def list_dead(
    engine: Served, channel: ChannelName = None, after: After = 0, limit: Limit = 100
) -> list[DeadLetter]:
    return list(await engine.notifications.dead(channel=channel, after=after, limit=limit))


@post(
    "/notifications/dead/redeliver",
    status_code=200,
    dto=JsonBody[LettersBody],
    return_dto=None,
    summary="Try dead letters again",
    **needs("operate"),
)
async def redeliver_dead(
    engine: Served, actor: Caller, data: JSONBody[LettersBody] = NONE_NAMED
) -> LettersChanged:
    letters, entry = _meant(actor, data), _entry(engine, actor, data, "redeliver_notifications")
    return _changed(letters, list(await engine.notifications.redeliver(letters, entry)))


@post(
    "/notifications/dead/discard",
    status_code=200,
    dto=JsonBody[LettersBody],
    return_dto=None,
    summary="Forget dead letters that nobody needs any more",
    **needs("operate"),
)
async def discard_dead(engine: Served, actor: Caller, data: JSONBody[LettersBody] = NONE_NAMED) -> LettersChanged:
    letters, entry = _meant(actor, data), _entry(engine, actor, data, "discard_notifications")
    return _changed(letters, list(await engine.notifications.discard(letters, entry)))


def _meant(actor: Actor, data: LettersBody) -> Letters:
    if actor.environments:
        raise Forbidden(
            f'token "{actor.name}" is limited to {", ".join(actor.environments)}; channels are of all environments'
        )
    if not data.ids and data.channel is None and not data.everything:
        message = "name the ids of dead letters, a channel, or say everything"
        raise Invalid(message, problems=[("ids", message)])
    letters = Letters(channel=data.channel)
    return replace(letters, ids=tuple(data.ids)) if data.ids else letters


def _changed(letters: Letters, ids: list[str]) -> LettersChanged:
    if letters.ids and not ids:
        named = ", ".join(letters.ids)
        raise NotFound(f"no dead letter has the id {named}; it may have been sent again meanwhile")
    return LettersChanged(ids=ids)


def _entry(engine: Served, actor: Actor, data: LettersBody, action: str) -> AuditEntry:
    verb = "sent dead letters again" if action == "redeliver_notifications" else "discarded dead letters"
    return AuditEntry(
        id=uuid.uuid4().hex,
        at=engine.clock.now(),
        actor=actor.name,
        action=action,
        cause="user",
        subject="notifications",
        environment="",
        reason=f"{actor.name} {verb}" + (f": {data.note}" if data.note else ""),
    )


HANDLERS = [list_channels, list_dead, redeliver_dead, discard_dead]
