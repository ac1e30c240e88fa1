"""The endpoints of LaunchDarkly's server-side SDKs, as plain ASGI: one pre-encoded frame serves all streams."""

from litestar.types import Receive, Scope, Send

from controller.delivery.answers import JSON, answer, header, matches
from controller.delivery.entrance import SERVER, Endpoint, Entrance
from controller.delivery.streaming import Streams
from controller.domain.catalogue import SdkKey
from controller.snapshot import FlagBoard


class ServerSdkDoor:
    def __init__(self, board: FlagBoard, entrance: Entrance, streams: Streams) -> None:
        self._board = board
        self._entrance = entrance
        self._streams = streams

    def endpoints(self) -> list[Endpoint]:
        return [
            self._entrance.endpoint("/all", (b"GET", b"HEAD"), SERVER, self._stream),
            self._entrance.endpoint("/sdk/latest-all", (b"GET", b"HEAD"), SERVER, self._latest),
        ]

    async def _stream(self, key: SdkKey, scope: Scope, receive: Receive, send: Send) -> None:
        await self._streams.serve(
            key.environment,
            self._board.listening(key.environment),
            lambda: self._entrance.admits(key),
            scope,
            receive,
            send,
        )

    async def _latest(self, key: SdkKey, scope: Scope, receive: Receive, send: Send) -> None:
        snapshot = self._board.snapshot(key.environment)
        headers = ((b"etag", snapshot.etag.encode()), (b"cache-control", b"no-cache"))
        if matches(header(scope, b"if-none-match"), snapshot.etag):
            await answer(send, 304, *headers)
        else:
            await answer(send, 200, JSON, *headers, body=snapshot.body)
