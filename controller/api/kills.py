"""The kill routes: answered from memory, with a budget of their own. Nothing here waits for a database."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated

from litestar import Response, get, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import JSONBody, PathParameter

from controller.access import Actor
from controller.api.authentication import needs
from controller.api.bodies import KillAnswer, KillBody, KillSeveralBody, ResetBody
from controller.api.decoding import JsonBody
from controller.domain.plan import FlagRef
from controller.domain.quantities import KEY_PATTERN, NAME_PATTERN, seconds
from controller.domain.selection import KillPreview, Selection
from controller.domain.status import KilledAndNot, KillStatus
from controller.errors import Invalid, NotFound, Refused
from controller.facade import Caller, Engine, Served

FlagKey = Annotated[str, PathParameter(pattern=KEY_PATTERN, description="a flag's key, or the name of a plan")]
Environment = Annotated[str, PathParameter(pattern=NAME_PATTERN)]

NO_REASON = KillBody()
NOTHING_SELECTED = KillSeveralBody()
NOT_GIVEN = "no reason given"
LONGEST_AGO_SECONDS = 24 * 3600
"""A kill by time is for what happened just now; for everything else there are labels."""


async def _kill(
    engine: Served, actor: Actor, key: str, environment: str | None, body: KillBody
) -> Response[KillAnswer]:
    receipts = await engine.killer.kill(
        key=key,
        environment=environment,
        provider=body.provider,
        actor=actor,
        reason=body.reason or NOT_GIVEN,
    )
    confirmed = all(receipt.confirmed_at is not None for receipt in receipts)
    return Response(KillAnswer(kills=receipts), status_code=200 if confirmed else 202)


UNCONFIRMED = {202: ResponseSpec(KillAnswer, description="Accepted; not yet read back as off everywhere")}


@post(
    "/flags/{key:str}/kill",
    status_code=200,
    responses=UNCONFIRMED,
    dto=JsonBody[KillBody],
    return_dto=None,
    summary="Serve the fallback to everyone, wherever the flag is known",
    **needs("kill"),
)
async def kill_everywhere(
    engine: Served, actor: Caller, key: FlagKey, data: JSONBody[KillBody] = NO_REASON
) -> Response[KillAnswer]:
    return await _kill(engine, actor, key, None, data)


@post(
    "/environments/{environment:str}/flags/{key:str}/kill",
    status_code=200,
    responses=UNCONFIRMED,
    dto=JsonBody[KillBody],
    return_dto=None,
    summary="Serve the fallback to everyone in one environment",
    **needs("kill"),
)
async def kill_in_environment(
    engine: Served, actor: Caller, environment: Environment, key: FlagKey, data: JSONBody[KillBody] = NO_REASON
) -> Response[KillAnswer]:
    return await _kill(engine, actor, key, environment, data)


async def _reset(
    engine: Served, actor: Actor, key: str, environment: str | None, body: ResetBody
) -> list[KillStatus]:
    return await engine.kill_ledger.reset(
        key=key,
        environment=environment,
        provider=body.provider,
        kill_ids=body.kill_ids,
        actor=actor,
        note=body.note,
    )


@post(
    "/flags/{key:str}/reset",
    status_code=200,
    dto=JsonBody[ResetBody],
    return_dto=None,
    summary="Release the named kills; the flag stays off",
    **needs("operate"),
)
async def reset_everywhere(
    engine: Served, actor: Caller, key: FlagKey, data: JSONBody[ResetBody]
) -> list[KillStatus]:
    return await _reset(engine, actor, key, None, data)


@post(
    "/environments/{environment:str}/flags/{key:str}/reset",
    status_code=200,
    dto=JsonBody[ResetBody],
    return_dto=None,
    summary="Release the named kills in one environment",
    **needs("operate"),
)
async def reset_in_environment(
    engine: Served, actor: Caller, environment: Environment, key: FlagKey, data: JSONBody[ResetBody]
) -> list[KillStatus]:
    return await _reset(engine, actor, key, environment, data)


@post(
    "/kills/preview",
    status_code=200,
    dto=JsonBody[KillSeveralBody],
    return_dto=None,
    summary="What a kill by labels or by time would hit",
    **needs("read", "kill"),
)
async def preview_kills(
    engine: Served, actor: Caller, data: JSONBody[KillSeveralBody] = NOTHING_SELECTED
) -> KillPreview:
    return await engine.kill_selector.preview(_selection(engine, data), actor)


SEVERAL = {
    **UNCONFIRMED,
    207: ResponseSpec(KilledAndNot, description="Some were refused; all others are accepted"),
}


@post(
    "/kills",
    status_code=200,
    responses=SEVERAL,
    dto=JsonBody[KillSeveralBody],
    return_dto=None,
    summary="Kill several flags at once: those named, or those that labels or a time select",
    **needs("kill"),
)
async def kill_several(
    engine: Served, actor: Caller, data: JSONBody[KillSeveralBody] = NOTHING_SELECTED
) -> Response[KilledAndNot]:
    flags: Sequence[FlagRef] = data.flags
    if flags and (data.labels or data.raised_within or data.environment or data.provider):
        raise Invalid("name flags, or say what selects them", problems=[("flags", "or a selection, not both")])
    if not flags:
        found = await engine.kill_selector.preview(_selection(engine, data), actor)
        flags = [one.flag for one in found.targets]
        if not flags:
            raise NotFound("nothing was killed: no flag fits that is not killed already")
    done = await engine.killer.kill_flags(flags, actor=actor, reason=data.reason or NOT_GIVEN)
    if not done.kills:
        raise Refused("nothing was killed", blocks=[f"{one.flag}: {one.why}" for one in done.refused])
    return Response(done, status_code=_status(done))


def _status(done: KilledAndNot) -> int:
    if done.refused:
        return 207
    return 200 if all(receipt.confirmed_at is not None for receipt in done.kills) else 202


def _selection(engine: Engine, body: KillSeveralBody) -> Selection:
    if not body.labels and not body.raised_within:
        message = "say which flags are meant: labels, raised_within, or both"
        raise Invalid(message, problems=[("labels", message)])
    within = seconds(body.raised_within) if body.raised_within else None
    if within is not None and not 0 < within <= LONGEST_AGO_SECONDS:
        message = f'"{body.raised_within}" is too long ago; at most 24h'
        raise Invalid(f"raised_within: {message}", problems=[("raised_within", message)])
    return Selection(
        labels=body.labels,
        raised_since=engine.clock.now() - timedelta(seconds=within) if within is not None else None,
        environment=body.environment,
        provider=body.provider,
    )


@get("/kills", summary="The kills in force", **needs("read"))
async def list_kills(engine: Served) -> list[KillStatus]:
    return engine.killbook.active()


KILL_HANDLERS = [kill_everywhere, kill_in_environment, preview_kills, kill_several, list_kills]
RESET_HANDLERS = [reset_everywhere, reset_in_environment]
