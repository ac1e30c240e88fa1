"""Whether exposure may rise at all, and a person's word that it may although a replica is missing."""

import uuid

from litestar import get, post
from litestar.params import JSONBody

from controller.access import Actor
from controller.api.authentication import needs
from controller.api.bodies import NoteBody
from controller.api.decoding import JsonBody
from controller.domain.audit import AuditEntry
from controller.domain.status import Raises, Released
from controller.errors import Forbidden
from controller.facade import Caller, Served

NO_NOTE = NoteBody()


@get("/raises", summary="Whether exposure may rise at all, and which replicas are there", **needs("read"))
async def show_raises(engine: Served) -> Raises:
    return engine.presence.raises()


@post(
    "/raises/release",
    status_code=200,
    dto=JsonBody[NoteBody],
    return_dto=None,
    summary="Forget absent replicas and lower barriers, so that exposure may rise again",
    **needs("operate"),
)
async def release_raises(engine: Served, actor: Caller, data: JSONBody[NoteBody] = NO_NOTE) -> Released:
    _everywhere(actor)
    reason = f"{actor.name} released all raises" + (f": {data.note}" if data.note else "")
    entry = AuditEntry(
        id=uuid.uuid4().hex,
        at=engine.clock.now(),
        actor=actor.name,
        action="release_raises",
        cause="user",
        subject="raises",
        environment="",
        reason=reason,
    )
    released = await engine.store.release_raises(entry)
    await engine.presence.check_in()
    return Released(released=list(released), raises=engine.presence.raises())


def _everywhere(actor: Actor) -> None:
    if actor.environments:
        raise Forbidden(
            f'token "{actor.name}" is limited to {", ".join(actor.environments)}; this is for all environments'
        )


HANDLERS = [show_raises, release_raises]
