"""How much is let in at a time, and how long a body may take. The kill routes have a budget of their own."""

import asyncio
from collections.abc import Callable

from litestar.exceptions import HTTPException, ServiceUnavailableException
from litestar.types import ASGIApp, HTTPReceiveMessage, Receive, Scope, Send, WebSocketReceiveMessage

BODY_WITHIN_SECONDS = 10.0
MAX_BODY_BYTES = 1024 * 1024


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
