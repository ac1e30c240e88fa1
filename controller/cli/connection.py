"""The way to the server: HTTP through the standard library, because a kill must not wait for imports."""

import http.client
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec
from msgspec import Struct

from controller import __version__, settings
from controller.cli.exits import Exit, Failure

DEFAULT_URL = "http://127.0.0.1:8400"
TIMEOUT_SECONDS = 30.0
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
TRY_ANOTHER_URL = "is `rampart serve` running there? Another address: --url or RAMPART_URL"

T = TypeVar("T")


class Finding(Struct, frozen=True, kw_only=True):
    """One entry of `problems`: with a field (`path`), or with a manifest (`file` and what follows it)."""

    message: str
    path: str = ""
    file: str = ""
    line: int = 1
    column: int = 1
    length: int = 1
    code: str = ""
    help: str = ""
    severity: str = "error"
    source_line: str = ""


class Problem(Struct, frozen=True, kw_only=True):
    """An error answer of the server (RFC 9457)."""

    type: str = ""
    title: str = ""
    status: int = 0
    detail: str = ""
    blocks: list[str] = []
    problems: list[Finding] = []


class ServerRefusal(Failure):
    """The server answered, and the answer is an error."""

    def __init__(self, problem: Problem, code: Exit, *, hint: str = "") -> None:
        points = problem.blocks or [_finding_text(finding) for finding in problem.problems]
        message = problem.detail or problem.title or f"the server answered {problem.status}"
        # The server repeats a single problem or block in its detail; once is enough for a reader.
        shown = [point for point in points if point not in message]
        super().__init__(message, code, points=shown, hint=hint)
        self.problem = problem


class Unreachable(Failure):
    """No answer. `sent`: the request may have arrived, so whether it was carried out is unknown."""

    def __init__(self, message: str, *, sent: bool = False, hint: str = TRY_ANOTHER_URL) -> None:
        super().__init__(message, Exit.UNREACHABLE, hint=hint)
        self.sent = sent


class Answer(Struct, frozen=True):
    """What the server sent: `body` verbatim, for `-o json`, and decoded on demand."""

    status: int
    body: bytes
    url: str

    def decode(self, wanted: type[T]) -> T:
        try:
            return msgspec.json.decode(self.body, type=wanted)
        except msgspec.DecodeError as error:
            raise Failure(
                f"{self.url} answered something this version does not understand: {error}",
                Exit.UNREACHABLE,
                hint="compare both sides of `rampart version`",
            ) from error


# Problem types decide; the status is for servers in between that answer without one.
CODES_BY_TYPE: Mapping[str, Exit] = {
    "urn:rampart:refused": Exit.REFUSED,
    "urn:rampart:forbidden": Exit.REFUSED,
    "urn:rampart:unauthenticated": Exit.REFUSED,
    "urn:rampart:conflict": Exit.CONFLICT,
    "urn:rampart:kill-in-force": Exit.CONFLICT,
}
CODES_BY_STATUS: Mapping[int, Exit] = {
    401: Exit.REFUSED,
    403: Exit.REFUSED,
    408: Exit.UNREACHABLE,
    409: Exit.CONFLICT,
    429: Exit.UNREACHABLE,
}


class Connection:
    """One kept-alive connection, opened at the first request. Every fault is a Failure with a sentence."""

    def __init__(
        self, url: str, *, timeout: float = TIMEOUT_SECONDS, environ: Mapping[str, str] = os.environ
    ) -> None:
        self.url = url.rstrip("/")
        self._scheme, self._host, self._port, self._base = _parts(self.url)
        self._timeout = timeout
        self._environ = environ
        self._token: str | None = None
        self._http: http.client.HTTPConnection | None = None

    def within(self, seconds: float) -> "Connection":
        """Another connection to the same server with less patience."""
        return Connection(self.url, timeout=seconds, environ=self._environ)

    def get(self, *path: str, **query: object) -> Answer:
        return self._ask("GET", _path(path, query), None)

    def post(self, *path: str, body: Mapping[str, Any]) -> Answer:
        return self._ask("POST", _path(path, {}), msgspec.json.encode(body))

    def delete(self, *path: str) -> Answer:
        return self._ask("DELETE", _path(path, {}), None)

    def probe(self, name: str) -> Answer:
        """What a prober asks: it stands beside the API."""
        return self._ask("GET", f"/{name}", None)

    def close(self) -> None:
        if self._http is not None:
            self._http.close()
            self._http = None

    def _ask(self, method: str, path: str, body: bytes | None) -> Answer:
        reused = self._http is not None
        try:
            return self._exchange(method, path, body)
        except Unreachable as failure:
            self.close()
            # A kept-alive connection may have been closed while idle; only reading may be repeated unseen.
            closed_while_idle = reused and isinstance(failure.__cause__, ConnectionError)
            if not (closed_while_idle and method == "GET"):
                raise
        try:
            return self._exchange(method, path, body)
        except Unreachable:
            self.close()
            raise

    def _exchange(self, method: str, path: str, body: bytes | None) -> Answer:
        if self._token is None:
            self._token = find_token(self._host, self._environ)
        if self._http is None:
            self._http = self._opened()
        try:
            self._http.request(method, f"{self._base}{path}", body=body, headers=self._headers(body))
            response = self._http.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error, sent=True) from error
        answer = Answer(response.status, content, self.url)
        if response.status >= 300:
            raise _refusal(answer, response)
        return answer

    def _opened(self) -> http.client.HTTPConnection:
        secure = self._scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=self._timeout)
        try:
            connection.connect()
        except OSError as error:
            raise self._unreachable(error, sent=False) from error
        return connection

    def _headers(self, body: bytes | None) -> dict[str, str]:
        headers = {
            "Accept": "application/json, application/problem+json",
            "User-Agent": f"rampart-cli/{__version__}",
        }
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        if body is not None:
            headers["Content-Type"] = "application/json"
        return headers

    def _unreachable(self, error: Exception, *, sent: bool) -> Unreachable:
        if isinstance(error, TimeoutError):
            why = f"no answer within {self._timeout:g} s"
        elif isinstance(error, socket.gaierror):
            why = f'no address is known for "{self._host}"'
        elif isinstance(error, ConnectionRefusedError):
            why = "nothing listens there"
        else:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return Unreachable(f"cannot reach Rampart at {self.url}: {why}", sent=sent)


def _parts(url: str) -> tuple[str, str, int | None, str]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Failure(f'"{url}" is not a URL: {error}', Exit.USAGE) from error
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise Failure(f'"{url}" is not a server\'s URL', Exit.USAGE, hint="write http://host:port or https://host")
    if parts.username or parts.password:
        raise Failure(
            "a URL with a password in it is visible to everybody on this machine",
            Exit.USAGE,
            hint="put the token into RAMPART_TOKEN or the file RAMPART_TOKEN_FILE",
        )
    return parts.scheme, parts.hostname, port, parts.path.rstrip("/")


def _path(segments: tuple[str, ...], query: Mapping[str, object]) -> str:
    asked = {name: value for name, value in query.items() if value is not None}
    path = "/api/v1/" + "/".join(quote(segment, safe="") for segment in segments)
    return f"{path}?{urlencode(asked)}" if asked else path


def find_token(host: str, environ: Mapping[str, str]) -> str:
    """RAMPART_TOKEN, RAMPART_TOKEN_FILE, or, for a server on this machine, its own admin token; else empty."""
    if value := environ.get("RAMPART_TOKEN"):
        return _checked_token(value, "RAMPART_TOKEN")
    if path := environ.get("RAMPART_TOKEN_FILE"):
        return _checked_token(settings.secret_file(path), path)
    if host not in LOOPBACK:
        return ""
    path = environ.get("RAMPART_ADMIN_TOKEN_FILE")
    local = Path(path) if path else settings.load(environ=environ).data_path / "admin.token"
    return _checked_token(settings.secret_file(str(local)), str(local)) if local.is_file() else ""


def _checked_token(text: str, origin: str) -> str:
    token = text.strip()
    # Without this the HTTP client would complain with the token in its message.
    if not token.isascii() or not token.isprintable() or " " in token:
        raise Failure(f"what is in {origin} is not a token", Exit.USAGE, hint="a token begins with rampart_")
    return token


def _refusal(answer: Answer, response: http.client.HTTPResponse) -> Failure:
    if answer.status < 400:
        target = response.getheader("Location", "elsewhere")
        return Failure(
            f"{answer.url} redirects to {target}",
            Exit.UNREACHABLE,
            hint="give that server as --url or RAMPART_URL",
        )
    try:
        problem = msgspec.json.decode(answer.body, type=Problem)
    except msgspec.DecodeError:
        return Failure(
            f"{answer.url} answered {answer.status} {response.reason}, and not as Rampart does",
            CODES_BY_STATUS.get(answer.status, Exit.UNREACHABLE),
            hint=TRY_ANOTHER_URL,
        )
    return ServerRefusal(problem, _exit_code(problem, answer.status), hint=_hint(answer.status))


def _exit_code(problem: Problem, status: int) -> Exit:
    if problem.type in CODES_BY_TYPE:
        return CODES_BY_TYPE[problem.type]
    if any(finding.file for finding in problem.problems):
        return Exit.FINDING
    return CODES_BY_STATUS.get(status, Exit.UNREACHABLE if status >= 500 else Exit.USAGE)


def _hint(status: int) -> str:
    if status == 401:
        return "put the token into RAMPART_TOKEN, or its file's path into RAMPART_TOKEN_FILE"
    return ""


def _finding_text(finding: Finding) -> str:
    if finding.file:
        return f"{finding.file}:{finding.line}:{finding.column}: {finding.code} {finding.message}"
    return f"{finding.path}: {finding.message}" if finding.path else finding.message
