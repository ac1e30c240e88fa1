"""flagd's sync service: flagd itself and in-process providers subscribe to a document, and get each new one whole.

The messages are those of `flagd.sync.v1`; there are so few of them that they are written and read here.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import grpc
import grpc.aio
import structlog

from controller.providers.flagd.environment import Environment

log = structlog.get_logger()

SERVICE = "flagd.sync.v1.FlagSyncService"
SELECTOR_HEADER = "flagd-selector"
STREAMS = 1000
"""How many subscribers there may be. One more is turned away, and tries again."""

LARGEST_BYTES = 64 * 1024 * 1024

SELECTOR_FIELD = 2


class SyncServer:
    """Serves the documents of all environments at one address. A subscriber names the one it wants."""

    def __init__(
        self, environments: Mapping[str, Environment], bind: str, *, may_serve: Callable[[], bool]
    ) -> None:
        """`may_serve`: whether all kills are known that there were when the process began."""
        self._environments = environments
        self._bind = bind
        self._may_serve = may_serve
        self._server: grpc.aio.Server | None = None
        self._serving = asyncio.Event()
        self.problem = "the sync service has not started yet"
        self.port = 0

    async def start(self) -> None:
        """Never raises: what is wrong is told as `problem`."""
        # Without reuseport: two processes at one address would share the subscribers without a word.
        options = [("grpc.max_send_message_length", LARGEST_BYTES), ("grpc.so_reuseport", 0)]
        server = grpc.aio.server(maximum_concurrent_rpcs=STREAMS, options=options)
        server.add_generic_rpc_handlers((self._handlers(),))
        try:
            self.port = server.add_insecure_port(self._bind)
            await server.start()
        except (RuntimeError, OSError) as error:
            self.problem = f"the sync service cannot listen on {self._bind}: {error}"
            log.error("flagd_sync_not_started", bind=self._bind, error=str(error))
            return
        self._server, self.problem = server, ""

    def look(self) -> None:
        """Called again and again: whether it may serve may have changed."""
        if self._may_serve():
            self._serving.set()

    async def close(self) -> None:
        if self._server is not None:
            await self._server.stop(grace=None)

    def _handlers(self) -> grpc.GenericRpcHandler:
        handlers = {
            "SyncFlags": grpc.unary_stream_rpc_method_handler(self._sync_flags),
            "FetchAllFlags": grpc.unary_unary_rpc_method_handler(self._fetch_all_flags),
            "GetMetadata": grpc.unary_unary_rpc_method_handler(self._metadata),
        }
        return grpc.method_handlers_generic_handler(SERVICE, handlers)

    async def _sync_flags(self, request: bytes, context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        """The newest document, again at each change. Whoever is slow gets fewer of them, not older ones."""
        environment = await self._chosen(request, context)
        await self._serving.wait()
        sent = None
        while True:
            changed, shown = environment.changed, environment.shown()
            if shown is not None and shown != sent:
                yield field(1, shown)
                sent = shown
            await changed.wait()

    async def _fetch_all_flags(self, request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        environment = await self._chosen(request, context)
        shown = environment.shown() if self._serving.is_set() else None
        if shown is None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the flags are not loaded yet; try again")
        return field(1, shown or b"")

    async def _metadata(self, request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        """Nothing, but there: some providers look into it unasked."""
        return field(2, b"")

    async def _chosen(self, request: bytes, context: grpc.aio.ServicerContext) -> Environment:
        """By header, as flagd's newer providers ask, by the request, or the only one there is."""
        headers = dict(context.invocation_metadata() or ())
        selector = str(headers.get(SELECTOR_HEADER) or selector_of(request))
        name = selector.removeprefix("environment=")
        if not selector and len(self._environments) == 1:
            return next(iter(self._environments.values()))
        if name not in self._environments:
            known = ", ".join(self._environments)
            asked = f'"{selector}" selects no environment' if selector else "a selector must name the environment"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{asked}; there are {known}")
        return self._environments[name]


# — messages: a field is its number and kind, its length, its bytes —


def field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def selector_of(request: bytes) -> str:
    """Of a SyncFlagsRequest or FetchAllFlagsRequest. Empty when there is none, or what came is neither."""
    at = 0
    while at < len(request):
        tag, at = _read_varint(request, at)
        if tag & 7 != 2:
            return ""
        length, at = _read_varint(request, at)
        if tag >> 3 == SELECTOR_FIELD:
            return request[at : at + length].decode(errors="replace")
        at += length
    return ""


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def _read_varint(content: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while at < len(content):
        number |= (content[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if content[at - 1] < 128:
            break
    return number, at
