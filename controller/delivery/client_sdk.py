"""The endpoints of LaunchDarkly's client-side SDKs: values for the one context that asks, and their changes.

Browsers say their public client-side ID in the path, apps their mobile key in a header. A stream sends each
context its own new value of the flag that changed: after a bare `ping` every client would ask for all flags anew,
and the last of ten thousand would learn of a kill seconds later.
"""

import base64
import binascii
import hashlib
from urllib.parse import parse_qs

import msgspec
from litestar.types import Receive, Scope, Send

from controller.delivery.answers import GARBLED, JSON, TEXT, answer, body_of, busy, header, matches
from controller.delivery.audience import Audience
from controller.delivery.client_values import Asker, ClientValues
from controller.delivery.entrance import CLIENT, ID_PARAMETER, MOBILE, Credential, Endpoint, Entrance
from controller.delivery.feeds import NoticeFeed, ValuesFeed
from controller.delivery.streaming import Streams
from controller.delivery.turns import Turns
from controller.domain.catalogue import SdkKey
from controller.domain.evaluation import parse_context
from controller.snapshot import FlagBoard

MAX_CONTEXT_BYTES = 64 * 1024
CONTEXT_PARAMETER = "context"
PING = b"event: ping\ndata: \n\n"

BY_PATH = (b"GET", b"HEAD")
BY_BODY = (b"REPORT",)


class UnreadableContext(Exception):
    """Says what is wrong with it."""


class ClientSdkDoor:
    def __init__(
        self,
        board: FlagBoard,
        entrance: Entrance,
        streams: Streams,
        audience: Audience,
        values: ClientValues,
        turns: Turns,
    ) -> None:
        self._board = board
        self._entrance = entrance
        self._streams = streams
        self._audience = audience
        self._values = values
        self._turns = turns

    def endpoints(self) -> list[Endpoint]:
        own = f"{{{ID_PARAMETER}}}"
        return [
            *self._paths(CLIENT, f"/sdk/evalx/{own}", f"/eval/{own}", f"/ping/{own}"),
            *self._paths(MOBILE, "/msdk/evalx", "/meval", "/mping"),
            self._entrance.endpoint(f"/sdk/goals/{own}", BY_PATH, CLIENT, _no_goals),
        ]

    def _paths(self, credential: Credential, values: str, stream: str, ping: str) -> list[Endpoint]:
        """A context comes in the path, or in the body of a REPORT; that of a `user` is of an older form."""
        endpoint, context = self._entrance.endpoint, f"{{{CONTEXT_PARAMETER}}}"
        return [
            endpoint(f"{values}/contexts/{context}", BY_PATH, credential, self._all),
            endpoint(f"{values}/users/{context}", BY_PATH, credential, self._all),
            endpoint(f"{values}/context", BY_BODY, credential, self._all),
            endpoint(f"{values}/user", BY_BODY, credential, self._all),
            endpoint(f"{stream}/{context}", BY_PATH, credential, self._stream),
            endpoint(stream, BY_BODY, credential, self._stream),
            endpoint(ping, BY_PATH, credential, self._pings),
        ]

    # — values —

    async def _all(self, key: SdkKey, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            written = await _written_context(scope, receive)
            asker = _asker(key, written, scope)
        except UnreadableContext as error:
            await _refuse(send, error)
            return
        etag = self._etag(asker, written)
        headers = ((b"etag", etag.encode()), (b"cache-control", b"private, no-cache"))
        if matches(header(scope, b"if-none-match"), etag):
            await answer(send, 304, *headers)
        elif self._turns.crowded:
            await busy(send, b"too many clients are asking at the same time; try again\n")
        else:
            async with self._turns.one():
                body = msgspec.json.encode(self._values.all(asker))
            await answer(send, 200, JSON, *headers, body=body)

    def _etag(self, asker: Asker, written: bytes) -> str:
        """Changes with any flag of the environment: cheaper to tell than what this one context gets."""
        snapshot = self._board.snapshot(asker.environment)
        whole = b"\0".join([snapshot.etag.encode(), asker.kind.encode(), b"%d" % asker.reasons, written])
        return f'"{hashlib.sha256(whole).hexdigest()[:32]}"'

    # — streams —

    async def _stream(self, key: SdkKey, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            asker = _asker(key, await _written_context(scope, receive), scope)
        except UnreadableContext as error:
            await _refuse(send, error)
            return
        feed = ValuesFeed(asker, self._values, self._turns)
        await self._serve(key, feed, scope, receive, send)

    async def _pings(self, key: SdkKey, scope: Scope, receive: Receive, send: Send) -> None:
        """For browsers that would send their context in a body, which their streams cannot have."""
        await self._serve(key, NoticeFeed(key.kind, lambda: PING), scope, receive, send)

    async def _serve(
        self, key: SdkKey, feed: ValuesFeed | NoticeFeed, scope: Scope, receive: Receive, send: Send
    ) -> None:
        await self._streams.serve(
            key.environment,
            self._audience.joined(key.environment, feed),
            lambda: self._entrance.admits(key),
            scope,
            receive,
            send,
        )


async def _no_goals(key: SdkKey, scope: Scope, receive: Receive, send: Send) -> None:
    """Clicks and page views that the older browser SDK would report: there are none."""
    await answer(send, 200, JSON, body=b"[]")


async def _refuse(send: Send, error: UnreadableContext) -> None:
    await answer(send, 400, TEXT, body=f"{error}\n".encode())


async def _written_context(scope: Scope, receive: Receive) -> bytes:
    """The context's JSON as it was sent. Raises UnreadableContext."""
    if scope.get("method") == "REPORT":
        body = await body_of(receive, MAX_CONTEXT_BYTES)
        if body is None:
            raise UnreadableContext(f"the context did not arrive, or has more than {MAX_CONTEXT_BYTES} bytes")
        return body
    text = str(scope.get("path_params", {}).get(CONTEXT_PARAMETER, ""))
    try:
        written = base64.b64decode(
            text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), altchars=b"-_", validate=True
        )
    except (binascii.Error, ValueError):
        raise UnreadableContext("the context in the path is not base64 as it is written in URLs") from None
    if len(written) > MAX_CONTEXT_BYTES:
        raise UnreadableContext(f"the context has more than {MAX_CONTEXT_BYTES} bytes")
    return written


def _asker(key: SdkKey, written: bytes, scope: Scope) -> Asker:
    """Raises UnreadableContext."""
    query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
    try:
        context = parse_context(msgspec.json.decode(written))
    except GARBLED as error:
        raise UnreadableContext(f"the context is not JSON: {error}") from None
    except ValueError as error:
        raise UnreadableContext(str(error)) from None
    reasons = query.get("withReasons", [""])[-1] == "true"
    return Asker(environment=key.environment, kind=key.kind, context=context, reasons=reasons)
