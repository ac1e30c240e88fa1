"""What was raised lately, and killing several of it at once: for when something broke and nobody knows why."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from litestar import Response, get, post
from msgspec import Struct

from controller.access import Actor
from controller.domain.plan import FlagRef
from controller.domain.quantities import seconds
from controller.domain.selection import Selection
from controller.domain.status import RunStatus
from controller.errors import NotFound
from controller.web.actions import killed_just_now, reason_of
from controller.web.orders import REASONS
from controller.web.pages import AnyRequest, Served
from controller.web.site import Site

WINDOWS = ("30m", "2h", "24h")
MOST_SHOWN = 100
MOST_AT_ONCE = 200


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
    now = site.engine.clock.now()
    selection = Selection(raised_since=now - timedelta(seconds=seconds(within)))
    found = await site.engine.kill_selector.preview(selection, session.actor)
    newest_first = sorted([*found.targets, *found.killed], key=lambda one: one.raised_at or now, reverse=True)
    return site.page(
        "raised.html",
        session,
        here="raised",
        title="Raised lately",
        windows=WINDOWS,
        within=within,
        raised=newest_first[:MOST_SHOWN],
        killed={one.flag for one in found.killed},
        more=max(0, len(newest_first) - MOST_SHOWN),
        doubts=found.doubts,
        now=now,
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
    """All at once: what is wrong with one hinders no other. The page that follows says what is in force."""
    form = await site.form(request)
    site.required_scopes(form.session, "kill")
    targets = _targets(site, form.all("plan"))
    actor, reason = form.session.actor, reason_of(form)
    fresh = [one.flag for one in targets if not killed_just_now(site, one.flag, actor, reason)]
    await site.engine.killer.kill_flags(fresh, actor=actor, reason=reason)
    site.reader.forget()
    return site.redirect(f"/raised/killed?{urlencode([('plan', target.name) for target in targets])}")


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
