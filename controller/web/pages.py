"""What people look at, and how they come in. Nothing here changes anything."""

from typing import Any
from urllib.parse import urlencode

from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.exceptions import NotFoundException, ServiceUnavailableException, TooManyRequestsException
from litestar.params import FromPath, SkipValidation
from litestar.response import Stream

from controller.attempts import address_of
from controller.errors import Unauthenticated
from controller.web.orders import ORDERS, REASONS
from controller.web.reader import Rollout
from controller.web.screens import chosen_of
from controller.web.sessions import require_own_page
from controller.web.site import HEADERS, Site, fields_of

Served = SkipValidation[NamedDependency[Site]]
AnyRequest = Request[Any, Any, Any]

APPROVALS_SHOWN = 25
FOREVER = "public, max-age=31536000, immutable"


# — in and out —


@get("/login")
async def login(site: Served, request: AnyRequest) -> Response[str]:
    return site.page(
        "login.html", None, title="Log in", next=own_path(request.query_params.get("next", "/")), problem=""
    )


@post("/login", status_code=303)
async def log_in(site: Served, request: AnyRequest) -> Response[Any]:
    require_own_page(request)
    fields = await fields_of(request)
    secret, target = fields.get("token", [""])[0].strip(), own_path(fields.get("next", ["/"])[0])
    try:
        cookie = site.sessions.begin(secret, site.engine.clock.now())
    except Unauthenticated as error:
        wait = site.limiter.wrong_token(address_of(request), site.engine.clock.monotonic())
        if wait:
            raise TooManyRequestsException(
                "too many wrong tokens from this address", headers={"Retry-After": str(int(wait) + 1)}
            ) from None
        return site.page("login.html", None, code=401, title="Log in", next=target, problem=_wrong(error))
    return site.redirect(target, [cookie])


def _wrong(error: Unauthenticated) -> str:
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}."


def own_path(path: str) -> str:
    """Where to go after logging in: nowhere but here."""
    inside = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if inside and "\\" not in path else "/"


@post("/logout", status_code=303)
async def log_out(site: Served, request: AnyRequest) -> Response[Any]:
    await site.form(request)
    return site.redirect("/login", [site.sessions.end()])


# — what lives —


@get("/")
async def rollouts(site: Served, request: AnyRequest) -> Response[str]:
    session = site.required(request, "read")
    chosen = chosen_of(request.query_params)
    screen = await site.screens.list(chosen, session.actor)
    query = {"state": chosen.state, "owner": chosen.owner, "q": chosen.text, "page": str(chosen.page)}
    return site.screen(screen, "list", session, query, "/")


@get("/rollouts/{name:str}")
async def rollout(site: Served, request: AnyRequest, name: FromPath[str]) -> Response[str]:
    session = site.required(request, "read")
    screen = await site.screens.desk(name, session.actor)
    return site.screen(screen, "desk", session, {"name": name}, f"/rollouts/{name}")


@get("/r/{name:str}")
async def phone(site: Served, request: AnyRequest, name: FromPath[str]) -> Response[str]:
    session = site.required(request, "read", "kill")
    screen = await site.screens.phone(name, session.actor)
    return site.screen(screen, "phone", session, {"name": name}, f"/r/{name}")


@get("/r/{name:str}/killed")
async def killed(site: Served, request: AnyRequest, name: FromPath[str]) -> Response[str]:
    session = site.required(request, "read", "kill")
    screen = await site.screens.killed(name, session.actor)
    return site.screen(screen, "killed", session, {"name": name}, f"/r/{name}/killed")


@get("/stream")
async def stream(site: Served, request: AnyRequest) -> Stream:
    session = site.required(request, "read", "kill")
    query = {**request.query_params}
    kind, seen = query.pop("screen", ""), query.pop("seen", "")
    if kind in ("list", "desk"):
        site.required(request, "read")
    look = site.screens.source(kind, query, session.actor)
    if look is None:
        raise NotFoundException(f"there is no stream of {kind}")
    if site.live.full:
        raise ServiceUnavailableException("too many streams are open; the page asks again by itself")
    actor = session.actor
    topic = urlencode({"screen": kind, **query, "who": f"{actor.scopes} {actor.environments}"})
    frames = site.live.frames(topic, look, seen, lambda: site.session(request) is not None)
    return Stream(
        frames,
        media_type="text/event-stream",
        headers={**HEADERS, "Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


# — forms —


@get("/r/{name:str}/kill")
async def kill_form(site: Served, request: AnyRequest, name: FromPath[str]) -> Response[str]:
    """From memory alone."""
    session = site.required(request, "kill")
    flag = site.reader.flag_of(name)
    kills = site.reader.kills_of(flag) if flag else []
    return site.page(
        "kill.html",
        session,
        title=f"Kill {name}",
        name=name,
        flag=flag,
        kills=kills,
        reasons=REASONS,
        now=site.engine.clock.now(),
    )


@get("/r/{name:str}/order/{verb:str}")
async def order_form(site: Served, request: AnyRequest, name: FromPath[str], verb: FromPath[str]) -> Response[str]:
    return await _order_form(site, request, name, verb)


@get("/r/{name:str}/order/pause")
async def pause_form(site: Served, request: AnyRequest, name: FromPath[str]) -> Response[str]:
    return await _order_form(site, request, name, "pause")


async def _order_form(site: Site, request: AnyRequest, name: str, verb: str) -> Response[str]:
    order = ORDERS.get(verb)
    if order is None:
        raise NotFoundException(f"there is no order called {verb}")
    session = site.required(request, *order.scopes)
    found = await site.reader.rollout(name)
    return site.page(
        "order.html",
        session,
        title=f"{order.label}: {name}",
        order=order,
        rollout=found,
        name=name,
        reasons=REASONS,
        warning=objection(found, session.actor.name) if verb == "approve" else "",
        now=site.engine.clock.now(),
    )


@get("/approvals")
async def approvals(site: Served, request: AnyRequest) -> Response[str]:
    session = site.required(request, "read")
    listing = await site.reader.listing()
    names = sorted(row.plan for row in listing.rows if row.waits_for_approval)
    found = [await site.reader.rollout(name) for name in names[:APPROVALS_SHOWN]]
    waiting = [
        (one, _objection(one, session.actor.name, may=session.actor.may("approve", one.flag.environment)))
        for one in found
        if one.status is not None and one.status.approval is not None
    ]
    return site.page(
        "approvals.html",
        session,
        here="approvals",
        title="Approvals",
        listing=listing,
        waiting=waiting,
        more=max(0, len(names) - APPROVALS_SHOWN),
    )


def _objection(rollout: Rollout, who: str, *, may: bool) -> str:
    if not may:
        return f'Your token lacks the scope "approve" in {rollout.flag.environment}.'
    return objection(rollout, who)


def objection(rollout: Rollout, who: str) -> str:
    """Why this person cannot approve it; empty when nothing is known against it."""
    status = rollout.status
    if status is not None and who in (status.author, status.started_by):
        did = "wrote the plan" if who == status.author else "started the run"
        return f"You {did}: it takes a second person."
    return ""


# — files —


@get("/assets/{version:str}/{name:str}")
async def asset(site: Served, version: FromPath[str], name: FromPath[str]) -> Response[bytes]:
    found = site.renderer.assets.get(name)
    if found is None or found.version != version:
        raise NotFoundException("there is no such file; load the page again")
    headers = {**HEADERS, "Cache-Control": FOREVER}
    return Response(found.body, media_type=found.media_type, headers=headers)


HANDLERS = [login, log_in, log_out, rollouts, rollout, phone, order_form, approvals]
STOPPING = [kill_form, killed, pause_form]
"""On the way to a kill or a pause."""
