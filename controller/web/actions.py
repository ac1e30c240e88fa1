"""What people order. Each order comes from a form of their own session, and ends in a page to look at."""

from typing import Any

from litestar import Response, post
from litestar.exceptions import NotFoundException
from litestar.params import FromPath

from controller.access import Actor
from controller.domain.plan import FlagRef
from controller.errors import Conflict
from controller.web.orders import ORDERS, REASONS
from controller.web.pages import AnyRequest, Served, own_path
from controller.web.site import Form, Site

SAME_KILL_SECONDS = 10.0


@post("/r/{name:str}/kill", status_code=303)
async def kill(site: Served, request: AnyRequest, name: FromPath[str]) -> Response[Any]:
    """Waits for no database: session, form and kill are all in memory."""
    form = await site.form(request)
    await _kill(site, name, form.session.actor, reason_of(form))
    return site.redirect(f"/r/{name}/killed")


async def _kill(site: Site, name: str, actor: Actor, reason: str) -> None:
    flag = site.reader.flag_of(name)
    if flag is not None and killed_just_now(site, flag, actor, reason):
        return
    key, environment, provider = (flag.key, flag.environment, flag.provider) if flag else (name, None, None)
    await site.engine.killer.kill(key=key, environment=environment, provider=provider, actor=actor, reason=reason)
    site.reader.forget()


def killed_just_now(site: Site, flag: FlagRef, actor: Actor, reason: str) -> bool:
    """A finger that touched twice wants one kill. Only one that holds the flag still is taken for the same."""
    now = site.engine.clock.now()
    return any(
        (one.actor, one.reason) == (actor.name, reason)
        and (now - one.accepted_at).total_seconds() < SAME_KILL_SECONDS
        for one in site.engine.killbook.kills_of(flag)
    )


def reason_of(form: Form) -> str:
    """`latency: p99 at 4 s`; only what the page offers is taken for a kind of reason."""
    kind, text = form.text("reason"), form.text("text")
    kinds = [kind] if kind in REASONS and not (kind == "other" and text) else []
    return ": ".join([*kinds, *([text] if text else [])]) or "no reason given"


@post("/r/{name:str}/order/{verb:str}", status_code=303)
async def order(site: Served, request: AnyRequest, name: FromPath[str], verb: FromPath[str]) -> Response[Any]:
    form = await site.form(request)
    await _order(site, form, name, verb)
    return site.redirect(own_path(form.text("back")) if form.text("back") else f"/r/{name}")


@post("/r/{name:str}/order/pause", status_code=303)
async def pause(site: Served, request: AnyRequest, name: FromPath[str]) -> Response[Any]:
    form = await site.form(request)
    await site.engine.commands.pause(name, form.session.actor, reason_of(form))
    site.reader.forget()
    return site.redirect(f"/r/{name}")


async def _order(site: Site, form: Form, name: str, verb: str) -> None:
    found = ORDERS.get(verb)
    if found is None:
        raise NotFoundException(f"there is no order called {verb}")
    site.required_scopes(form.session, *found.scopes)
    if found.command is None:
        await _reset(site, form, name)
    else:
        await found.command(site.engine.commands, name, form.session.actor, form.text("text"))
    site.reader.forget()


async def _reset(site: Site, form: Form, name: str) -> None:
    flag = site.reader.flag_of(name)
    kill_ids = form.all("kill")
    if flag is None or not kill_ids:
        raise Conflict(f"no kill of {name} was named; load the page again")
    await site.engine.kill_ledger.reset(
        key=flag.key,
        environment=flag.environment,
        provider=flag.provider,
        kill_ids=kill_ids,
        actor=form.session.actor,
        note=form.text("text"),
    )


HANDLERS = [order]
STOPS = [kill, pause]
