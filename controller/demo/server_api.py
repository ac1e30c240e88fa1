"""The few calls the demo makes to its server."""

import http.client
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from controller.domain.audit import AuditEntry, ChainReport
from controller.domain.status import ApplyResult, RunStatus
from controller.errors import Refused, Unavailable

TIMEOUT_SECONDS = 30.0
AUDIT_PAGE = 1000

T = TypeVar("T")


class Record(Struct, frozen=True, kw_only=True):
    """One audit row."""

    sequence: int
    entry: AuditEntry


class Secret(Struct, frozen=True):
    secret: str


class Problem(Struct, frozen=True, kw_only=True):
    detail: str = ""
    blocks: list[str] = []


class ServerApi:
    """Raises Unavailable when the server does not answer, Refused with its reason when it says no."""

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def apply(self, files: Mapping[str, str]) -> ApplyResult:
        body = {"files": [{"name": name, "text": text} for name, text in files.items()]}
        return self._call("POST", "manifests", ApplyResult, body)

    def create_sdk_key(self, name: str, environment: str) -> str:
        return self._call("POST", "sdk-keys", Secret, {"name": name, "environment": environment}).secret

    def start(self, plan: str, note: str) -> RunStatus:
        return self._call("POST", f"plans/{plan}/start", RunStatus, {"note": note})

    def status(self, plan: str) -> RunStatus:
        return self._call("GET", f"plans/{plan}/status", RunStatus)

    def audit(self, after: int) -> list[Record]:
        return self._call("GET", f"audit?after={after}&limit={AUDIT_PAGE}", list[Record])

    def verify_audit(self) -> ChainReport:
        return self._call("GET", "audit/verify", ChainReport)

    def _call(self, method: str, path: str, wanted: type[T], body: Any = None) -> T:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT_SECONDS)
        content = None if body is None else msgspec.json.encode(body)
        try:
            connection.request(method, f"/api/v1/{path}", content, self._headers)
            answer = connection.getresponse()
            received = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"the server did not answer {method} {path}: {error}") from error
        finally:
            connection.close()
        if answer.status >= http.client.BAD_REQUEST:
            raise Refused(f"the server refused {method} {path} ({answer.status}): {_reason(received)}")
        return msgspec.json.decode(received, type=wanted)


def _reason(received: bytes) -> str:
    try:
        problem = msgspec.json.decode(received, type=Problem)
    except msgspec.DecodeError:
        return received.decode(errors="replace")
    return "; ".join([problem.detail, *problem.blocks])
