"""A server that answers the routes of the API with given values, and remembers what it was asked."""

import threading
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
from msgspec import Struct

from controller.api.bodies import (
    AdoptBody,
    CompareBody,
    FreezeBody,
    KillBody,
    KillSeveralBody,
    LettersBody,
    LiftBody,
    ManifestsBody,
    NoteBody,
    ResetBody,
    SdkKeyBody,
    TokenBody,
    TriggerBody,
)

TOKEN = "rampart_stub"
COMMANDS = ("start", "advance", "pause", "resume", "step-back", "abandon", "approve", "adopt")


class Asked(Struct, frozen=True):
    method: str
    path: str
    query: dict[str, str]
    body: Any
    token: str
    agent: str


class Reply(Struct, frozen=True):
    """`value` as JSON; None as an empty body, bytes as they are. `hangs` never answers."""

    value: Any
    status: int = 200
    hangs: bool = False
    headers: Mapping[str, str] = {}


class Nothing(Struct, forbid_unknown_fields=True):
    """A route that takes no body."""


def problem(kind: str, status: int, detail: str, **more: Any) -> Reply:
    return Reply(
        {"type": f"urn:rampart:{kind}", "title": kind, "status": status, "detail": detail, **more}, status
    )


def body_type(path: str) -> type[Struct]:
    """The type the server decodes a body of this route into; it forbids unknown fields."""
    match path.split("/"):
        case ["plans", _, verb] if verb in COMMANDS:
            return NoteBody
        case ["doctor", "test-messages"]:
            return Nothing
        case ["raises", "release"]:
            return NoteBody
        case ["notifications", "dead", "redeliver" | "discard"]:
            return LettersBody
        case ["manifests"]:
            return ManifestsBody
        case ["manifests", "compare"]:
            return CompareBody
        case ["kills"] | ["kills", "preview"]:
            return KillSeveralBody
        case ["triggers"]:
            return TriggerBody
        case ["freezes"]:
            return FreezeBody
        case ["freezes", _, "lift"]:
            return LiftBody
        case ["tokens"]:
            return TokenBody
        case ["sdk-keys"]:
            return SdkKeyBody
        case [*_, "flags", _, "kill"]:
            return KillBody
        case ["flags", _, "adopt"]:
            return AdoptBody
        case [*_, "flags", _, "reset"]:
            return ResetBody
    raise AssertionError(f"the API has no POST {path}")


PROBES = ("/healthz", "/readyz")
OPEN = ("version", "healthz", "readyz")


class StubServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[Asked] = []
        self.released = threading.Event()
        self._replies: dict[tuple[str, str], list[Reply]] = {}
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def answers(self, method: str, path: str, *values: Any) -> None:
        """One value a request, the last one for ever."""
        self._replies[method, path] = [value if isinstance(value, Reply) else Reply(value) for value in values]

    def reply(self, asked: Asked) -> Reply:
        with self._lock:
            self.asked.append(asked)
            if asked.token != TOKEN and asked.path not in OPEN:
                return problem("unauthenticated", 401, "unknown token; create one with `rampart token create`")
            replies = self._replies.get((asked.method, asked.path), [])
            if len(replies) > 1:
                return replies.pop(0)
            return replies[0] if replies else problem("not-found", 404, f"there is nothing at {asked.path}")

    def bodies(self, path: str) -> Sequence[Any]:
        return [asked.body for asked in self.asked if asked.path == path and asked.method == "POST"]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StubServer

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        prefix = "/api/v1/"
        path = parts.path.removeprefix("/") if parts.path in PROBES else parts.path.removeprefix(prefix)
        assert parts.path in PROBES or parts.path.startswith(prefix)
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = None
        if content:
            msgspec.json.decode(content, type=body_type(path))
            body = msgspec.json.decode(content)
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        query = dict(parse_qsl(parts.query))
        asked = Asked(self.command, path, query, body, token, self.headers["User-Agent"])
        self._send(self.server.reply(asked))

    def _send(self, reply: Reply) -> None:
        if reply.hangs:
            self.server.released.wait(30)
            self.close_connection = True
            return
        value = reply.value
        content = b"" if value is None else value if isinstance(value, bytes) else msgspec.json.encode(value)
        self.send_response(reply.status)
        kind = "application/json" if reply.status < 400 else "application/problem+json"
        for name, text in {"Content-Type": kind, "Content-Length": str(len(content)), **reply.headers}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_DELETE = _serve  # noqa: N815 - the names http.server calls

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Tests read what was asked, not a log."""
