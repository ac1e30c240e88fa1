"""How much is let in at a time, and how long a body may take. The kill routes have a budget of their own."""

import asyncio

from litestar.exceptions import HTTPException, ServiceUnavailableException
from litestar.types import ASGIApp, HTTPReceiveMessage, Receive, Scope, Send, WebSocketReceiveMessage

BODY_WITHIN_SECONDS = 10.0
MAX_BODY_BYTES = 1024 * 1024


class BodyTooSlow(HTTPException):
    status_code = 408
    detail = f"the body did not arrive within {BODY_WITHIN_SECONDS:g} s"


class Admission:
    """One budget of requests in flight, shared by all routes it is given to. Over it: 503, at once."""

    def __init__(self, limit: int, *, body_within_seconds: float = BODY_WITHIN_SECONDS) -> None:
        self._limit = limit
        self._body_within = body_within_seconds
        self.in_flight = 0

    def __call__(self, app: ASGIApp) -> ASGIApp:
        async def admitted(scope: Scope, receive: Receive, send: Send) -> None:
            if self.in_flight >= self._limit:
                raise ServiceUnavailableException(
                    "too many requests at the same time; try again", headers={"Retry-After": "1"}
                )
            self.in_flight += 1
            try:
                await app(scope, self._hurried(receive), send)
            finally:
                self.in_flight -= 1

        return admitted

    def _hurried(self, receive: Receive) -> Receive:
        deadline = asyncio.get_running_loop().time() + self._body_within
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
