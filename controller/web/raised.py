"""What was raised lately, and killing several of it at once: for when something broke and nobody knows why."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from litestar import Response, get, post
from msgspec import Struct

from controller.access import Actor
from controller.domain.plan import FlagRef
from controller.domain.quantities import seconds
from controller.domain.status import PlanSummary, RunStatus
from controller.errors import NotFound, RampartError
from controller.web.actions import kill_rollout, reason_of
from controller.web.orders import REASONS
from controller.web.pages import AnyRequest, Served
from controller.web.reader import Listing
from controller.web.screens import state_of
from controller.web.site import Site

WINDOWS = ("30m", "2h", "24h")
MOST_SHOWN = 100
MOST_AT_ONCE = 200


class Raised(Struct, frozen=True, kw_only=True):
    """A rollout whose exposure was changed within the window, and is above nothing."""

    plan: str
    flag: FlagRef
    state: str
    exposure: int
    at: datetime
    owner: str
    reason: str
    may_kill: bool


class Target(Struct, frozen=True, kw_only=True):
    name: str
    flag: FlagRef
    status: RunStatus | None


class Result(Struct, frozen=True, kw_only=True):
    """`problem` is empty for a kill in force."""

    name: str
    problem: str
    confirmed: bool


@get("/raised")
async def raised(site: Served, request: AnyRequest) -> Response[str]:
    session = site.required(request, "read")
    asked = request.query_params.get("within", WINDOWS[0])
    within = asked if asked in WINDOWS else WINDOWS[0]
    listing = await site.reader.listing()
    now = site.engine.clock.now()
    found = lately(listing, site.reader.killed(), now - timedelta(seconds=seconds(within)), session.actor)
    return site.page(
        "raised.html",
        session,
        here="raised",
        title="Raised lately",
        windows=WINDOWS,
        within=within,
        raised=found[:MOST_SHOWN],
        more=max(0, len(found) - MOST_SHOWN),
        stale=listing.stale,
        as_of=listing.as_of,
        now=now,
    )


def lately(listing: Listing, killed: Mapping[FlagRef, Any], since: datetime, actor: Actor) -> list[Raised]:
    """Newest first."""
    found = [
        _raised(row, row.exposed_since, state_of(row, killed, listing), actor)
        for row in listing.rows
        if row.exposed_since is not None and row.exposed_since >= since and row.desired_exposure > 0
    ]
    return sorted(found, key=lambda one: one.at, reverse=True)


def _raised(row: PlanSummary, at: datetime, state: str, actor: Actor) -> Raised:
    return Raised(
        plan=row.plan,
        flag=row.flag,
        state=state,
        exposure=row.desired_exposure,
        at=at,
        owner=row.owner,
        reason=row.reason,
        may_kill=actor.may("kill", row.flag.environment),
    )


@get("/raised/kill")
async def preview(site: Served, request: AnyRequest) -> Response[str]:
    """From memory alone, as the kills that follow."""
    session = site.required(request, "kill")
    return site.page(
        "kill_several.html",
        session,
        here="raised",
        title="Kill several",
        targets=_targets(site, request.query_params.getall("plan", [])),
        reasons=REASONS,
    )


def _targets(site: Site, names: Sequence[str]) -> list[Target]:
    """Raises NotFound for a name that is no plan's."""
    return [_target(site, name) for name in dict.fromkeys(names[:MOST_AT_ONCE])]


def _target(site: Site, name: str) -> Target:
    flag = site.reader.flag_of(name)
    if flag is None:
        raise NotFound(f'no plan is called "{name}"; nothing was killed')
    known = site.engine.recent.of(name)
    return Target(name=name, flag=flag, status=known.status if known else None)


@post("/raised/kill", status_code=303)
async def kill_several(site: Served, request: AnyRequest) -> Response[Any]:
    """All at once: what is wrong with one hinders no other."""
    form = await site.form(request)
    site.required_scopes(form.session, "kill")
    targets = _targets(site, form.all("plan"))
    actor, reason = form.session.actor, reason_of(form)
    await asyncio.gather(*(_attempt(site, target.name, actor, reason) for target in targets))
    return site.redirect(f"/raised/killed?{urlencode([('plan', target.name) for target in targets])}")


async def _attempt(site: Site, name: str, actor: Actor, reason: str) -> None:
    try:
        await kill_rollout(site, name, actor, reason)
    except RampartError:
        return  # the page that follows looks at what is in force, and says so


@get("/raised/killed")
async def results(site: Served, request: AnyRequest) -> Response[str]:
    session = site.required(request, "kill")
    targets = _targets(site, request.query_params.getall("plan", []))
    return site.page(
        "killed_several.html",
        session,
        here="raised",
        title="Kills",
        results=[_result(site, target, session.actor) for target in targets],
    )


def _result(site: Site, target: Target, actor: Actor) -> Result:
    kills = site.reader.kills_of(target.flag)
    problem = ""
    if not kills:
        where = target.flag.environment
        lacks = f'your token lacks the scope "kill" in {where}'
        problem = "no kill is in force" if actor.may("kill", where) else lacks
    confirmed = all(kill.receipt.confirmed_at is not None for kill in kills)
    return Result(name=target.name, problem=problem, confirmed=confirmed)


STOPS = [preview, kill_several, results]
