"""Who may come in at an endpoint for SDKs, and by which key.

Answers are chosen by what SDKs do with them. On 401 and 404 some give up for the life of the process, so that is
said only when it is certain; as long as keys or flags are not loaded everybody gets 503 and comes back in seconds.
"""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from litestar.types import Receive, Scope, Send

from controller.delivery.answers import JSON, TEXT, Header, answer, busy, header
from controller.delivery.cors import Cors
from controller.delivery.keys import SdkKeyBook
from controller.domain.catalogue import SdkKey, SdkKeyKind
from controller.snapshot import FlagBoard

SCHEME_PREFIX = "api_key "
"""Some SDKs put this before the key."""

ID_PARAMETER = "client_side_id"
STREAM_PARAMETER = "stream"
KINDS: tuple[SdkKeyKind, ...] = ("server", "mobile", "client")

App = Callable[[Scope, Receive, Send], Awaitable[None]]

Serve = Callable[[SdkKey, Scope, Receive, Send], Awaitable[None]]
"""Serves one request whose key is known: (key, scope, receive, send)."""


class Refusal(NamedTuple):
    status: int
    header: Header
    body: bytes


class Endpoint(NamedTuple):
    """What answers at a path. A segment of it in braces stands for any, and is found in `path_params`."""

    path: str
    app: App


class Credential(NamedTuple):
    """Where a request says which key it has. `browsers`: pages of any allowed origin may ask."""

    find: Callable[[SdkKeyBook, Scope], SdkKey | None]
    refusal: Refusal
    browsers: bool = False


class Entrance:
    """The way in to all endpoints for SDKs."""

    def __init__(self, board: FlagBoard, keys: SdkKeyBook, cors: Cors | None = None) -> None:
        self._board = board
        self._keys = keys
        self._cors = cors or Cors()

    def admits(self, key: SdkKey) -> bool:
        """Whether the key still opens what it opened."""
        return self._keys.holds(key)

    def stream_of(self, key: SdkKey) -> str:
        """The name under which the key's holder hears of changes, and can do nothing else."""
        return self._keys.stream_of(key)

    def endpoint(self, path: str, methods: tuple[bytes, ...], credential: Credential, serve: Serve) -> Endpoint:
        allowed = b", ".join((*methods, b"OPTIONS"))
        allow = (b"allow", allowed)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            method = str(scope.get("method")).encode()
            if credential.browsers:
                send = self._cors.opened(scope, send)
            if method == b"OPTIONS":
                granted = self._cors.preflight(scope, allowed) if credential.browsers else []
                await answer(send, 204, allow, *granted)
            elif method not in methods:
                await answer(send, 405, allow, TEXT, body=b"method not allowed\n")
            elif not (self._keys.loaded and self._board.ready):
                await busy(send, b"SDK keys and flags are not loaded yet; try again\n")
            elif (key := credential.find(self._keys, scope)) is None:
                refusal = credential.refusal
                await answer(send, refusal.status, refusal.header, body=refusal.body)
            elif not self._board.knows(key.environment):
                await busy(send, b"the flags of this environment have not come yet; try again\n")
            else:
                await serve(key, scope, receive, send)

        return Endpoint(path, app)


def _authorized(kind: SdkKeyKind) -> Callable[[SdkKeyBook, Scope], SdkKey | None]:
    def find(keys: SdkKeyBook, scope: Scope) -> SdkKey | None:
        return keys.find(kind, header(scope, b"authorization").removeprefix(SCHEME_PREFIX))

    return find


def _in_path(keys: SdkKeyBook, scope: Scope) -> SdkKey | None:
    return keys.find("client", str(scope.get("path_params", {}).get(ID_PARAMETER, "")))


def _any_key(keys: SdkKeyBook, scope: Scope) -> SdkKey | None:
    scheme, _, secret = header(scope, b"authorization").partition(" ")
    secret = header(scope, b"x-api-key") if scheme.lower() != "bearer" else secret.strip()
    found = (keys.find(kind, secret) for kind in KINDS)
    return next((key for key in found if key is not None), None)


def _subscribed(keys: SdkKeyBook, scope: Scope) -> SdkKey | None:
    return keys.by_stream(str(scope.get("path_params", {}).get(STREAM_PARAMETER, "")))


SERVER = Credential(
    _authorized("server"),
    Refusal(401, TEXT, b"unknown SDK key; make one with `rampart sdk-key create`\n"),
)
MOBILE = Credential(
    _authorized("mobile"),
    Refusal(401, TEXT, b"unknown mobile key; make one with `rampart sdk-key create --kind mobile`\n"),
    browsers=True,  # some frameworks for apps run in a web view
)
CLIENT = Credential(
    _in_path,
    Refusal(404, TEXT, b"unknown client-side ID; make one with `rampart sdk-key create --kind client`\n"),
    browsers=True,
)
BEARER = Credential(
    _any_key,
    Refusal(401, JSON, b'{"errorDetails":"unknown key; make one with `rampart sdk-key create`"}'),
    browsers=True,
)
SUBSCRIBER = Credential(
    _subscribed,
    Refusal(404, TEXT, b"no such stream: ask for all flags again, the answer names it\n"),
    browsers=True,
)
