"""The door behind a trigger's address: GET shows a button, POST kills. It needs no token and no database.

A link is fetched by previews, scanners and browsers on a whim: so nothing but a POST does anything. Whatever is
wrong with the body, the flag is killed: somebody's alerting may send what it likes.
"""

import asyncio
from typing import Annotated, Any
from urllib.parse import parse_qs

import msgspec
from litestar import Request, Response, get, post
from litestar.exceptions import HTTPException, NotFoundException
from litestar.params import PathParameter

from controller.api.authentication import wrong
from controller.api.bodies import KillAnswer
from controller.api.pressing_page import CONTENT_POLICY, button_page, result_page
from controller.api.problems import TRIGGERS
from controller.attempts import FailureLimiter
from controller.domain.catalogue import Trigger
from controller.domain.status import KillReceipt
from controller.errors import NotFound
from controller.facade import Engine
from controller.telemetry import hide
from controller.triggers import presser

Asked = Request[Any, Any, Any]
Secret = Annotated[str, PathParameter()]

BODY_WITHIN_SECONDS = 1.0
MOST_BYTES = 16 * 1024
LONGEST_REASON = 2000
NOT_GIVEN = "no reason given"
HEADERS = {
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
    "Content-Security-Policy": CONTENT_POLICY,
}


class Press:
    """The two handlers, bound to an engine and to the count of wrong secrets."""

    def __init__(self, engine: Engine, limiter: FailureLimiter) -> None:
        self._engine = engine
        self._limiter = limiter

    def handlers(self) -> list[Any]:
        @get(f"{TRIGGERS}/{{secret:str}}", include_in_schema=False)
        async def show(request: Asked, secret: Secret) -> Response[Any]:
            trigger = self._trigger(request, secret)
            receipts = self._engine.killbook.receipts(trigger.flag)
            if "text/html" in _accepted(request):
                return _answered(button_page(trigger, self._engine.killbook.kills_of(trigger.flag)), "text/html")
            if receipts:
                return _told(request, receipts)
            return _answered(f"{trigger.flag} is not killed; POST here kills it\n", "text/plain")

        @post(f"{TRIGGERS}/{{secret:str}}", status_code=200, include_in_schema=False)
        async def press(request: Asked, secret: Secret) -> Response[Any]:
            trigger = self._trigger(request, secret)
            return _told(request, await self._kill(trigger, await _reason(request)))

        return [show, press]

    def _trigger(self, request: Asked, secret: str) -> Trigger:
        trigger = self._engine.triggers.of(secret)
        if trigger is None:
            wrong(request, self._engine, self._limiter)
            raise NotFoundException
        hide(secret)
        return trigger

    async def _kill(self, trigger: Trigger, reason: str) -> list[KillReceipt]:
        """Pressed again while its kill is in force, it answers with that one: alerting repeats itself."""
        actor, killbook = presser(trigger), self._engine.killbook
        before = {kill.kill_id for kill in killbook.kills_of(trigger.flag) if kill.actor == actor.name}
        if before:
            return [receipt for receipt in killbook.receipts(trigger.flag) if receipt.kill_id in before]
        done = await self._engine.killer.kill_flags([trigger.flag], actor=actor, reason=reason)
        if done.refused:
            raise NotFound(done.refused[0].why)
        return done.kills


async def _reason(request: Asked) -> str:
    given = request.query_params.get("reason") or await _reason_in_body(request)
    return given.replace("\0", "").strip()[:LONGEST_REASON] or NOT_GIVEN


async def _reason_in_body(request: Asked) -> str:
    body = b""
    try:
        async with asyncio.timeout(BODY_WITHIN_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MOST_BYTES:
                    return ""
    except (TimeoutError, HTTPException):
        return ""  # too slow or too large: the kill does not wait for a reason
    text = body.decode(errors="replace")
    if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return parse_qs(text).get("reason", [""])[0]
    try:
        sent = msgspec.json.decode(body) if body else None
    except msgspec.DecodeError:
        return ""  # not ours to complain of: it came with the order to kill
    reason = sent.get("reason") if isinstance(sent, dict) else None
    return reason if isinstance(reason, str) else ""


def _accepted(request: Asked) -> str:
    return request.headers.get("accept", "").lower()


def _told(request: Asked, receipts: list[KillReceipt]) -> Response[Any]:
    """As JSON, or as a page or a line of text for whoever asks for that."""
    status = 200 if all(receipt.confirmed_at for receipt in receipts) else 202
    accepted = _accepted(request)
    if "text/html" in accepted:
        return _answered(result_page(receipts), "text/html", status)
    if "text/plain" in accepted:
        return _answered("".join(_line(receipt) for receipt in receipts), "text/plain", status)
    return Response(KillAnswer(kills=receipts), status_code=status, headers=HEADERS)


def _line(receipt: KillReceipt) -> str:
    state = "read back as off" if receipt.confirmed_at else "not read back as off yet, tried again without end"
    return f"killed {receipt.flag} ({receipt.kill_id}): {state}\n"


def _answered(text: str, kind: str, status: int = 200) -> Response[Any]:
    return Response(text, status_code=status, media_type=kind, headers=HEADERS)
