"""Freezes of the organisation. Who may operate may add one: it only ever keeps exposure from rising."""

import uuid
from typing import Annotated

from litestar import get, post
from litestar.params import JSONBody, PathParameter, QueryParameter
from msgspec.structs import asdict, replace

from controller.access import Actor
from controller.api.authentication import needs
from controller.api.bodies import FreezeBody, LiftBody
from controller.api.decoding import JsonBody
from controller.domain.audit import AuditEntry
from controller.domain.freezes import FreezeStatus, OrganisationFreeze, span
from controller.domain.quantities import NAME_PATTERN, seconds
from controller.domain.selector import selector_text
from controller.errors import Conflict, Forbidden, NotFound, Refused
from controller.facade import Caller, Engine, Served

MOST_STANDING = 100
"""Each tick of each run looks at all of them."""

Everything = Annotated[bool, QueryParameter(name="all", description="those that are over or were lifted, too")]
FreezeName = Annotated[str, PathParameter(pattern=NAME_PATTERN)]


@get("/freezes", summary="The freezes of the organisation that hold or are to come, or all", **needs("read"))
async def list_freezes(engine: Served, everything: Everything = False) -> list[FreezeStatus]:
    now = engine.clock.now()
    found = await (engine.store.latest_freezes() if everything else engine.store.freezes())
    return [_shown(engine, one) for one in found if everything or not one.is_over(now)]


@post(
    "/freezes",
    dto=JsonBody[FreezeBody],
    return_dto=None,
    summary="Freeze raises for a time, for all plans or for some",
    **needs("operate"),
)
async def add_freeze(engine: Served, actor: Caller, data: JSONBody[FreezeBody]) -> FreezeStatus:
    _within_reach(actor, tuple(data.environments))
    now = engine.clock.now()
    lasts = seconds(data.for_) if data.for_ else None
    starts_at, ends_at = span(data.from_, data.to, lasts, data.timezone, now)
    freeze = OrganisationFreeze(
        name=data.name,
        starts_at=starts_at,
        ends_at=ends_at,
        timezone=data.timezone,
        environments=tuple(sorted(set(data.environments))),
        labels=data.labels,
        reason=data.reason,
        added_by=actor.name,
        added_at=now,
    )
    if sum(not one.is_over(now) for one in await engine.store.freezes()) >= MOST_STANDING:
        raise Refused(f"{MOST_STANDING} freezes are there already; lift those that are not needed")
    what = f"{actor.name} froze {_whom(freeze)} from {_span_text(freeze)}: {data.reason}"
    if await engine.store.add_freeze(freeze, _entry(engine, actor, "add_freeze", freeze, what)) is None:
        raise Conflict(f'a freeze called "{data.name}" is there already; lift it first or choose another name')
    await engine.freezes_changed()
    return _shown(engine, freeze)


@post(
    "/freezes/{name:str}/lift",
    status_code=200,
    dto=JsonBody[LiftBody],
    return_dto=None,
    summary="End a freeze before its time",
    **needs("operate"),
)
async def lift_freeze(engine: Served, actor: Caller, name: FreezeName, data: JSONBody[LiftBody]) -> FreezeStatus:
    now = engine.clock.now()
    standing = (one for one in await engine.store.freezes() if one.name == name and not one.is_over(now))
    freeze = next(standing, None)
    if freeze is None:
        raise NotFound(f'no freeze called "{name}" holds or is to come')
    _within_reach(actor, freeze.environments)
    lifted = replace(freeze, lifted_at=now, lifted_by=actor.name, lifted_why=data.note)
    what = f"{actor.name} lifted the freeze {name}, which was to last until {_end(freeze)}: {data.note}"
    if not await engine.store.lift_freeze(lifted, _entry(engine, actor, "lift_freeze", freeze, what)):
        raise Conflict(f'"{name}" was lifted by somebody else, or is over by now')
    await engine.freezes_changed()
    return _shown(engine, lifted)


def _within_reach(actor: Actor, environments: tuple[str, ...]) -> None:
    """Nobody freezes, or thaws, what they may not operate."""
    for environment in environments:
        actor.require("operate", environment)
    if actor.environments and not environments:
        raise Forbidden(
            f'token "{actor.name}" is limited to {", ".join(actor.environments)}; this is for all environments'
        )


def _shown(engine: Engine, freeze: OrganisationFreeze) -> FreezeStatus:
    known = engine.killbook.known()
    fields = asdict(freeze)
    del fields["number"]
    return FreezeStatus(
        **(fields | {"environments": list(freeze.environments)}),
        state=freeze.state(engine.clock.now()),
        plans=sorted({one.plan for one in known if freeze.covers(one.flag.environment, one.labels)}),
    )


def _whom(freeze: OrganisationFreeze) -> str:
    plans = f"plans with {selector_text(freeze.labels)}" if freeze.labels else "all plans"
    return f"{plans} in {', '.join(freeze.environments) or 'all environments'}"


def _span_text(freeze: OrganisationFreeze) -> str:
    return f"{freeze.clock(freeze.starts_at)} to {_end(freeze)}"


def _end(freeze: OrganisationFreeze) -> str:
    return f"{freeze.clock(freeze.ends_at)} {freeze.timezone}"


def _entry(engine: Engine, actor: Actor, action: str, freeze: OrganisationFreeze, reason: str) -> AuditEntry:
    return AuditEntry(
        id=uuid.uuid4().hex,
        at=engine.clock.now(),
        actor=actor.name,
        action=action,
        cause="user",
        subject=f"freeze/{freeze.name}",
        environment=freeze.environments[0] if len(freeze.environments) == 1 else "",
        reason=reason,
        details={
            "starts_at": freeze.starts_at,
            "ends_at": freeze.ends_at,
            "timezone": freeze.timezone,
            "environments": list(freeze.environments),
            "labels": freeze.labels,
        },
    )


HANDLERS = [list_freezes, add_freeze, lift_freeze]
