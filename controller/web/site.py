"""What all pages share: who may see them, what is sent with each, and what becomes of an error."""

import traceback
import uuid
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, quote, urlencode

import structlog
from litestar import Request, Response
from litestar.datastructures import Cookie
from litestar.exceptions import HTTPException
from litestar.response import Redirect
from msgspec import Struct

from controller import errors
from controller.attempts import FailureLimiter
from controller.domain.catalogue import Scope
from controller.errors import Forbidden
from controller.facade import Engine
from controller.web.live import Live
from controller.web.reader import Reader
from controller.web.rendering import Renderer
from controller.web.screens import Screen, Screens
from controller.web.sessions import COOKIE, Session, Sessions, require_csrf, require_own_page

log = structlog.get_logger()

MAX_FIELDS = 1_000
HTML = "text/html"
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not no-referrer: browsers then send `Origin: null` with our own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}

PROBLEMS: Mapping[type[errors.RampartError], tuple[int, str]] = {
    errors.Unauthenticated: (401, "Log in first"),
    errors.Forbidden: (403, "Not allowed"),
    errors.NotFound: (404, "Not found"),
    errors.Invalid: (422, "That does not work"),
    errors.Refused: (422, "Refused"),
    errors.KillInForce: (409, "Killed"),
    errors.Conflict: (409, "It changed meanwhile"),
    errors.Unavailable: (503, "No answer"),
}
"""An error is answered as the nearest of its ancestors that stands here."""


class Form(Struct, frozen=True):
    """What somebody sent from a page of ours, in a session of theirs."""

    session: Session
    fields: Mapping[str, list[str]]

    def text(self, name: str, most: int = 1_000) -> str:
        return self.fields.get(name, [""])[0].strip()[:most]

    def all(self, name: str) -> list[str]:
        return self.fields.get(name, [])


class Site:
    """What handlers are given: the parts of the door, and answers made of them."""

    def __init__(self, engine: Engine, renderer: Renderer | None = None) -> None:
        self.engine = engine
        secure = engine.settings.server.public_url.startswith("https://")
        self.sessions = Sessions(engine.tokens, engine.session_key, secure=secure)
        self.limiter = FailureLimiter()
        self.reader = Reader(engine)
        self.renderer = renderer or Renderer()
        self.screens = Screens(engine, self.reader, self.renderer)
        self.live = Live()

    # — who asks —

    def session(self, request: Request[Any, Any, Any]) -> Session | None:
        return self.sessions.open(request.cookies.get(COOKIE), self.engine.clock.now())

    def required(self, request: Request[Any, Any, Any], *scopes: Scope) -> Session:
        """A session with one of these scopes somewhere. Raises Unauthenticated, Forbidden."""
        session = self.session(request)
        if session is None:
            raise errors.Unauthenticated("your session has ended, or there was none")
        if scopes:
            self.required_scopes(session, *scopes)
        return session

    def required_scopes(self, session: Session, *scopes: Scope) -> None:
        """Any one of them, somewhere: the engine asks for the environment. Raises Forbidden."""
        if not any(session.actor.may(scope) for scope in scopes):
            either = " or ".join(f'"{scope}"' for scope in scopes)
            raise Forbidden(f'token "{session.actor.name}" lacks the scope {either}')

    async def form(self, request: Request[Any, Any, Any]) -> Form:
        """Raises Unauthenticated, and Forbidden for what did not come from a page of this session."""
        require_own_page(request)
        session = self.required(request)
        fields = await fields_of(request)
        require_csrf(session, fields.get("csrf", [""])[0])
        return Form(session, fields)

    # — answers —

    def page(
        self,
        template: str,
        session: Session | None,
        *,
        code: int = 200,
        here: str = "",
        headers: Mapping[str, str] | None = None,
        cookies: Sequence[Cookie] = (),
        **context: Any,
    ) -> Response[str]:
        text = self.renderer.page(template, session=session, here=here, **context)
        return Response(
            text,
            status_code=code,
            media_type=HTML,
            headers={**HEADERS, **(headers or {})},
            cookies=list(cookies),
        )

    def screen(
        self, screen: Screen, kind: str, session: Session, query: Mapping[str, str], path: str
    ) -> Response[str]:
        """With a stream of what changes, or asked for again now and then while too many streams are open."""
        told = {"screen": kind, **query, "seen": screen.digest()}
        full = self.live.full
        return self.page(
            screen.template,
            session,
            here=kind,
            title=screen.title,
            parts=screen.parts,
            stream="" if full else f"/stream?{urlencode(told)}",
            poll=f"{path}?{urlencode(query)}" if full else "",
            **screen.context,
        )

    def redirect(self, path: str, cookies: Sequence[Cookie] = ()) -> Response[Any]:
        return Redirect(path, status_code=303, headers=dict(HEADERS), cookies=list(cookies))

    # — errors, in words —

    def on_error(self, request: Request[Any, Any, Any], error: errors.RampartError) -> Response[Any]:
        known = next((cls for cls in type(error).__mro__ if cls in PROBLEMS), None)
        if known is None:
            return self.on_unexpected(request, error)
        if known is errors.Unauthenticated and request.method == "GET":
            return self.redirect(f"/login?next={quote(_path_of(request), safe='')}")
        status, title = PROBLEMS[known]
        blocks = error.blocks if isinstance(error, errors.Refused) else ()
        return self._problem(request, status, title, str(error), blocks=blocks)

    def on_http_error(self, request: Request[Any, Any, Any], error: HTTPException) -> Response[Any]:
        match error.status_code:
            case 413:
                detail = "the form is larger than this server takes"
            case 405:
                detail = "this page takes no such request"
            case 503:
                detail = "too many requests at the same time; try again in a moment"
            case _:
                detail = str(error.detail)
        return self._problem(request, error.status_code, "That did not work", detail, headers=error.headers or {})

    def on_unexpected(self, request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
        """Nothing of the inside is shown (promise I17); the incident number finds it in the log."""
        incident = uuid.uuid4().hex[:12]
        trace = "".join(traceback.format_exception(error))
        log.error("page_failed", incident=incident, method=request.method, path=request.url.path, trace=trace)
        detail = f"something went wrong inside Rampart; its log has more under incident {incident}"
        return self._problem(request, 500, "That did not work", detail)

    def _problem(
        self,
        request: Request[Any, Any, Any],
        status: int,
        title: str,
        detail: str,
        *,
        blocks: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
    ) -> Response[Any]:
        session = self.session(request)
        name = request.path_params.get("name", "")
        ways = [(f"/r/{name}", "Back to the rollout")] if name and status != 404 else []
        ways += [("/", "All rollouts")] if session else [("/login", "Log in")]
        hint = ""
        if status == 503 and name:
            hint = "A kill needs no database and works all the same."
            ways.insert(0, (f"/r/{name}/kill", "Kill it"))
        return self.page(
            "problem.html",
            session,
            code=status,
            headers=headers,
            title=title,
            detail=detail[:1].upper() + detail[1:],
            blocks=blocks,
            hint=hint,
            ways=ways,
        )


async def fields_of(request: Request[Any, Any, Any]) -> dict[str, list[str]]:
    """Raises Invalid."""
    body = await request.body()
    try:
        return parse_qs(body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError as error:
        raise errors.Invalid("the form cannot be read") from error


def _path_of(request: Request[Any, Any, Any]) -> str:
    query = request.url.query
    return request.url.path + (f"?{query}" if query else "")
