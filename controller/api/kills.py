"""The kill routes: answered from memory, with a budget of their own. Nothing here waits for a database."""

from typing import Annotated

from litestar import Response, get, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import JSONBody, PathParameter

from controller.access import Actor
from controller.api.authentication import needs
from controller.api.bodies import KillAnswer, KillBody, ResetBody
from controller.api.decoding import JsonBody
from controller.domain.quantities import KEY_PATTERN, NAME_PATTERN
from controller.domain.status import KillStatus
from controller.facade import Caller, Served

FlagKey = Annotated[str, PathParameter(pattern=KEY_PATTERN, description="a flag's key, or the name of a plan")]
Environment = Annotated[str, PathParameter(pattern=NAME_PATTERN)]

NO_REASON = KillBody()
NOT_GIVEN = "no reason given"


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


@get("/kills", summary="The kills in force", **needs("read"))
async def list_kills(engine: Served) -> list[KillStatus]:
    return engine.killbook.active()


KILL_HANDLERS = [kill_everywhere, kill_in_environment, list_kills]
RESET_HANDLERS = [reset_everywhere, reset_in_environment]
