"""A stand-in for the server-SDK door: a LaunchDarkly stream that sends what a test tells it to."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Empty, SimpleQueue
from typing import Any

HEARTBEAT_SECONDS = 0.5


def boolean_flag(
    key: str, version: int, *, share: int, enabled: bool = True, staff_domain: str = ""
) -> dict[str, Any]:
    """An on/off flag as server-side SDKs read it; `share` in thousandths of a percent gets `on`."""
    rule = {
        "id": "staff",
        "variation": 0,
        "clauses": [{"attribute": "email", "op": "endsWith", "values": [staff_domain], "contextKind": "user"}],
    }
    weights = [{"variation": 0, "weight": share}, {"variation": 1, "weight": 100_000 - share}]
    return {
        "key": key,
        "version": version,
        "on": enabled,
        "salt": "salt",
        "variations": [True, False],
        "offVariation": 1,
        "fallthrough": {"rollout": {"variations": weights}},
        "rules": [rule] if staff_domain else [],
        "targets": [],
        "prerequisites": [],
    }


class FlagStream:
    """`send` reaches every connected SDK, and is what a new one starts with, beside the segments."""

    def __init__(self, segments: dict[str, dict[str, Any]]) -> None:
        self._flags: dict[str, dict[str, Any]] = {}
        self._segments = segments
        self._queues: list[SimpleQueue[bytes]] = []
        self._lock = threading.Lock()
        self.ready = True
        self.closing = False
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def send(self, flag: dict[str, Any]) -> None:
        with self._lock:
            self._flags[flag["key"]] = flag
            for queue in self._queues:
                queue.put(_event("patch", {"path": f"/flags/{flag['key']}", "data": flag}))

    def subscribe(self) -> SimpleQueue[bytes]:
        queue: SimpleQueue[bytes] = SimpleQueue()
        with self._lock:
            queue.put(_event("put", {"path": "/", "data": {"flags": self._flags, "segments": self._segments}}))
            self._queues.append(queue)
        return queue

    def close(self) -> None:
        self.closing = True
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def running_stream(segments: dict[str, dict[str, Any]] | None = None) -> Iterator[FlagStream]:
    stream = FlagStream(segments or {})
    try:
        yield stream
    finally:
        stream.close()


def _event(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def _handler(stream: FlagStream) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if not stream.ready:
                self.send_response(503)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            queue = stream.subscribe()
            while not stream.closing:
                try:
                    event = queue.get(timeout=HEARTBEAT_SECONDS)
                except Empty:
                    event = b":\n\n"
                try:
                    self.wfile.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")
                except OSError:  # The SDK hung up.
                    return

        def log_message(self, *_: object) -> None:
            """Quiet: a test says itself what went wrong."""

    return Handler
