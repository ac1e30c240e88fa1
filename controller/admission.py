"""How much is let in at a time, and how long clients may take. The kill routes have a budget of their own."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from litestar.exceptions import HTTPException, ServiceUnavailableException
from litestar.types import ASGIApp, HTTPReceiveMessage, Message, Receive, Scope, Send, WebSocketReceiveMessage

BODY_WITHIN_SECONDS = 10.0
MAX_BODY_BYTES = 1024 * 1024
READ_WITHIN_SECONDS = 30.0
"""How long a client may leave what is sent to it unread."""

CUT_OFF = "rampart.cut_off"
"""The extension of ASGI by which our connections are cut off."""


class BodyTooSlow(HTTPException):
    status_code = 408
    detail = f"the body did not arrive within {BODY_WITHIN_SECONDS:g} s"


def budget_of(limit: int) -> Callable[[ASGIApp], ASGIApp]:
    """One budget of requests in flight for all routes that get this middleware. Over it: 503, at once.

    A function, because Litestar copies middleware objects for each route, and with them their counters.
    """
    in_flight = 0

    def middleware(app: ASGIApp) -> ASGIApp:
        async def admitted(scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal in_flight
            if in_flight >= limit:
                raise ServiceUnavailableException(
                    "too many requests at the same time; try again", headers={"Retry-After": "1"}
                )
            in_flight += 1
            try:
                await app(scope, _hurried(receive), send)
            finally:
                in_flight -= 1

        return admitted

    return middleware


def _hurried(receive: Receive) -> Receive:
    deadline = asyncio.get_running_loop().time() + BODY_WITHIN_SECONDS
    complete = False

    async def hurried() -> HTTPReceiveMessage | WebSocketReceiveMessage:
        nonlocal complete
        if complete:
            return await receive()
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError:
            raise BodyTooSlow from None
        complete = not (message["type"] == "http.request" and message.get("more_body"))
        return message

    return hurried


def read_in_time(app: ASGIApp) -> ASGIApp:
    """For streams: who does not read what is sent is cut off, and takes no place any more."""

    async def cutting(scope: Scope, receive: Receive, send: Send) -> None:
        async def hurried(message: Message) -> None:
            try:
                async with asyncio.timeout(READ_WITHIN_SECONDS):
                    await send(message)
            except TimeoutError:
                cut_off(scope)
                raise

        await app(scope, receive, hurried)

    return cutting


def cut_off(scope: Scope) -> None:
    """Closing would wait until the client has read what was sent; one that never reads would stay for ever."""
    extensions: Mapping[str, Any] = scope.get("extensions") or {}
    if CUT_OFF in extensions:
        extensions[CUT_OFF]["now"]()
