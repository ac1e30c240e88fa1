"""Triggers as an administrator sees them: addresses that kill one flag, made, listed and revoked."""

import re
import uuid
from typing import Annotated, Any

from litestar import delete, get, post
from litestar.params import JSONBody, PathParameter

from controller.access import Actor, digest, new_secret
from controller.api.authentication import needs
from controller.api.bodies import NewTrigger, TriggerBody, TriggerView
from controller.api.decoding import JsonBody
from controller.api.problems import TRIGGERS
from controller.domain.audit import AuditEntry
from controller.domain.catalogue import Trigger
from controller.domain.plan import FlagRef
from controller.domain.quantities import NAME_PATTERN
from controller.errors import Conflict, Invalid, NotFound
from controller.facade import Caller, Engine, Served
from controller.telemetry import hide

TriggerName = Annotated[str, PathParameter(pattern=NAME_PATTERN)]


@get("/triggers", summary="All addresses that kill a flag, without their secrets", **needs("admin"))
async def list_triggers(engine: Served) -> list[TriggerView]:
    return [TriggerView(**_shown(trigger)) for trigger in await engine.store.triggers()]


@post(
    "/triggers",
    dto=JsonBody[TriggerBody],
    return_dto=None,
    summary="Create an address that kills one flag; the answer shows it once",
    **needs("admin"),
)
async def create_trigger(engine: Served, actor: Caller, data: JSONBody[TriggerBody]) -> NewTrigger:
    actor.require("admin", data.environment)
    flag = _the_flag(engine, data)
    name = data.name or _named_after(flag)
    if any(trigger.name == name for trigger in await engine.store.triggers()):
        raise Conflict(f'a trigger is called "{name}" already; revoke it first or choose another name')
    secret = new_secret()
    hide(secret)
    trigger = Trigger(
        name=name, digest=digest(secret), flag=flag, created_at=engine.clock.now(), created_by=actor.name
    )
    what = f"created the trigger {name}, which kills {flag}"
    await engine.store.save_trigger(trigger, _entry(engine, actor, "create_trigger", trigger, what))
    await engine.triggers_changed()
    path, public = f"{TRIGGERS}/{secret}", engine.settings.server.public_url.rstrip("/")
    return NewTrigger(**_shown(trigger), path=path, url=f"{public}{path}" if public else "")


def _the_flag(engine: Engine, data: TriggerBody) -> FlagRef:
    """Exactly one: an address that kills more than its name says would be a trap."""
    flags = engine.killbook.match(data.flag, data.environment, data.provider)
    if len(flags) > 1:
        raise Conflict(f"several flags are meant: {', '.join(map(str, flags))}; give the key and the provider")
    if not data.provider and not engine.killbook.knows(flags[0]):
        raise NotFound(
            f'no plan and no flag is called "{data.flag}" in {data.environment}; one that no plan names takes its '
            "provider, too"
        )
    return flags[0]


def _named_after(flag: FlagRef) -> str:
    name = f"{flag.key.lower()}-{flag.environment}"
    if not re.match(NAME_PATTERN, name):
        message = f'"{name}" is no name for a trigger; choose one'
        raise Invalid(f"name: {message}", problems=[("name", message)])
    return name


@delete("/triggers/{name:str}", summary="Revoke an address that kills", **needs("admin"))
async def revoke_trigger(engine: Served, actor: Caller, name: TriggerName) -> None:
    trigger = next((one for one in await engine.store.triggers() if one.name == name), None)
    if trigger is None:
        raise NotFound(f'no trigger is called "{name}"')
    actor.require("admin", trigger.flag.environment)
    entry = _entry(engine, actor, "revoke_trigger", trigger, f"revoked the trigger {name} of {trigger.flag}")
    await engine.store.revoke_trigger(name, entry)
    await engine.triggers_changed()


def _shown(trigger: Trigger) -> dict[str, Any]:
    return {
        "name": trigger.name,
        "flag": trigger.flag,
        "created_at": trigger.created_at,
        "created_by": trigger.created_by,
    }


def _entry(engine: Engine, actor: Actor, action: str, trigger: Trigger, what: str) -> AuditEntry:
    return AuditEntry(
        id=uuid.uuid4().hex,
        at=engine.clock.now(),
        actor=actor.name,
        action=action,
        cause="user",
        subject=f"trigger/{trigger.name}",
        environment=trigger.flag.environment,
        reason=f"{actor.name} {what}",
        flag=str(trigger.flag),
    )


HANDLERS = [list_triggers, create_trigger, revoke_trigger]
