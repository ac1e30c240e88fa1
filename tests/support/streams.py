"""SDK streams in a process of their own, so that whoever listens does not slow down what is measured.

Raw clients of `/all` stamp each chunk before they look into it; real SDKs stamp the change of a flag after they
have evaluated it. Times are seconds of the monotonic clock, which all processes of a host share.
"""

import asyncio
import contextlib
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple, Self

import httptools
import ldclient
import msgspec
import uvloop
from ldclient.config import Config
from ldclient.interfaces import FlagChange
from msgspec import Struct

PARSE_AFTER_SECONDS = 0.1
RECONNECT_SECONDS = 0.1
ANSWER_SECONDS = 60.0
STAFF = ldclient.Context.builder("ana").set("email", "ana@acme.example").build()
"""In from the first stage on, so that only a kill takes the rollout variation away."""


class Arrival(NamedTuple):
    """Stream `stream` served `key` on or off from `at` on."""

    stream: int
    key: str
    on: bool
    version: int
    at: float


class Streams:
    """`count` streams of one SDK key, in a process of their own. `real`: LaunchDarkly SDKs, not raw clients."""

    def __init__(self, url: str, sdk_key: str, count: int, *, real: bool = False) -> None:
        self.count = count
        kind = "real" if real else "raw"
        command = [sys.executable, "-m", "tests.support.streams", kind, url, sdk_key, str(count)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def connected(self) -> bool:
        """Whether every stream has had all flags since it connected last."""
        return int(self._ask({"do": "connected"})) == self.count

    def arrivals(self) -> list[Arrival]:
        """Every change since this was asked last."""
        return [Arrival(*one) for one in self._ask({"do": "arrivals"})]

    def served(self, keys: Sequence[str]) -> list[list[bool | None]]:
        """What each stream serves now: on, off or None for a flag it does not have."""
        answer: list[list[bool | None]] = self._ask({"do": "served", "keys": list(keys)})
        return answer

    def _ask(self, question: Mapping[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question).encode() + b"\n")
        self._process.stdin.flush()
        timer = threading.Timer(ANSWER_SECONDS, self._process.kill)
        timer.start()
        try:
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        assert line, "the process of the streams ended or did not answer"
        return json.loads(line)


# — raw clients —


class _Flag(Struct):
    on: bool
    version: int


class _All(Struct):
    flags: dict[str, _Flag]


class _Put(Struct):
    data: _All


class _Patch(Struct):
    path: str
    data: _Flag


_put = msgspec.json.Decoder(_Put).decode
_patch = msgspec.json.Decoder(_Patch).decode


class _RawStream(asyncio.Protocol):
    """One connection after another. Nothing is parsed before a moment of quiet."""

    def __init__(self, number: int, request: bytes, lost: Callable[[], object]) -> None:
        self.flags: dict[str, _Flag] = {}
        self.arrivals: list[Arrival] = []
        self.connected = False
        self._number = number
        self._request = request
        self._lost = lost
        self._chunks: list[tuple[float, bytes]] = []
        self._body = bytearray()
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.WriteTransport) -> None:  # type: ignore[override]
        self._parser = httptools.HttpResponseParser(self)
        self._body.clear()
        self._chunks.clear()
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        at = time.monotonic()
        if not self._chunks:
            asyncio.get_running_loop().call_later(PARSE_AFTER_SECONDS, self.parse)
        self._chunks.append((at, data))

    def connection_lost(self, exc: Exception | None) -> None:
        self.parse()
        self.connected = False
        self._lost()

    def parse(self) -> None:
        chunks, self._chunks = self._chunks, []
        for at, data in chunks:
            self._parser.feed_data(data)
            if b"\n\n" in self._body:
                *events, self._body = self._body.split(b"\n\n")
                for event in events:
                    self._take(bytes(event), at)

    def on_headers_complete(self) -> None:
        if self._parser.get_status_code() != 200 and self._transport:
            self._transport.close()  # not ready yet; `lost` comes back

    def on_body(self, body: bytes) -> None:
        self._body += body

    def _take(self, event: bytes, at: float) -> None:
        name, _, data = event.partition(b"\ndata: ")
        if name == b"event: put":
            self.flags = _put(data).data.flags
            self.connected = True
        elif name == b"event: patch":
            patch = _patch(data)
            key = patch.path.removeprefix("/flags/")
            self.flags[key] = patch.data
            self.arrivals.append(Arrival(self._number, key, patch.data.on, patch.data.version, at))


class _RawClients:
    def __init__(self, url: str, sdk_key: str, count: int) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        request = f"GET /all HTTP/1.1\r\nHost: {host}\r\nAuthorization: {sdk_key}\r\n\r\n".encode()
        self._loop = uvloop.new_event_loop()
        self._address = (host, int(port))
        self._streams = [_RawStream(number, request, self._reconnect(number)) for number in range(count)]

    def start(self) -> None:
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        for number in range(len(self._streams)):
            self._loop.call_soon(self._reconnect(number))
        self._loop.run_forever()

    def _reconnect(self, number: int) -> Callable[[], object]:
        return lambda: self._loop.create_task(self._connect(number))

    async def _connect(self, number: int) -> None:
        while True:
            await asyncio.sleep(RECONNECT_SECONDS)
            with contextlib.suppress(OSError):  # the server is on its way
                await self._loop.create_connection(lambda: self._streams[number], *self._address)
                return

    def _settled(self, look: Callable[[], Any]) -> Any:
        async def once() -> Any:
            for stream in self._streams:
                stream.parse()
            return look()

        return asyncio.run_coroutine_threadsafe(once(), self._loop).result(ANSWER_SECONDS)

    def connected(self) -> int:
        return int(self._settled(lambda: sum(stream.connected for stream in self._streams)))

    def arrivals(self) -> list[Arrival]:
        def taken() -> list[Arrival]:
            found = [arrival for stream in self._streams for arrival in stream.arrivals]
            for stream in self._streams:
                stream.arrivals.clear()
            return found

        return list(self._settled(taken))

    def served(self, keys: Sequence[str]) -> list[list[bool | None]]:
        def one(stream: _RawStream) -> list[bool | None]:
            return [stream.flags[key].on if key in stream.flags else None for key in keys]

        return list(self._settled(lambda: [one(stream) for stream in self._streams]))


# — real SDKs —


class _RealClients:
    def __init__(self, url: str, sdk_key: str, count: int) -> None:
        logging.getLogger("ldclient.util").setLevel(logging.CRITICAL)  # a lost stream is what is being tested
        self._arrivals: list[Arrival] = []
        self._lock = threading.Lock()
        config = Config(
            sdk_key=sdk_key,
            base_uri=url,
            stream_uri=url,
            events_uri=url,
            initial_reconnect_delay=0.1,
            send_events=False,
            diagnostic_opt_out=True,
        )
        self._clients = [ldclient.LDClient(config, 0.0) for _ in range(count)]

    def start(self) -> None:
        for number, client in enumerate(self._clients):
            client.flag_tracker.add_listener(partial(self._changed, number))

    def _changed(self, number: int, change: FlagChange) -> None:
        key = change.key
        on = bool(self._clients[number].variation(key, STAFF, False))
        at = time.monotonic()
        with self._lock:
            self._arrivals.append(Arrival(number, key, on, 0, at))

    def connected(self) -> int:
        return sum(client.is_initialized() for client in self._clients)

    def arrivals(self) -> list[Arrival]:
        with self._lock:
            found, self._arrivals = self._arrivals, []
        return found

    def served(self, keys: Sequence[str]) -> list[list[bool | None]]:
        return [[client.variation(key, STAFF, None) for key in keys] for client in self._clients]


def _questions() -> Iterator[dict[str, Any]]:
    for line in sys.stdin:
        yield json.loads(line)


def main(kind: str, url: str, sdk_key: str, count: str) -> None:
    make: type[_RawClients] | type[_RealClients] = _RealClients if kind == "real" else _RawClients
    clients = make(url, sdk_key, int(count))
    clients.start()
    for question in _questions():
        match question["do"]:
            case "served":
                answer: Any = clients.served(question["keys"])
            case "arrivals":
                answer = clients.arrivals()
            case _:
                answer = clients.connected()
        print(json.dumps(answer), flush=True)  # noqa: T201 - this is how it answers


if __name__ == "__main__":
    main(*sys.argv[1:])
