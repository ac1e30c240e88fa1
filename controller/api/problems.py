"""Every error as an RFC 9457 problem. The table from errors to answers is here and nowhere else."""

import traceback
import uuid
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.types import ExceptionHandlersMap
from msgspec import UNSET, Struct, UnsetType

from controller import errors
from controller.manifests.problem import Problem as ManifestProblem
from controller.registrar import InvalidManifests

log = structlog.get_logger()

PROBLEM_JSON = "application/problem+json"
RETRY_AFTER_SECONDS = 2
TRIGGERS = "/k"

STATUSES: Mapping[type[errors.RampartError], tuple[int, str, str]] = {
    errors.Unauthenticated: (401, "unauthenticated", "Not authenticated"),
    errors.Forbidden: (403, "forbidden", "Forbidden"),
    errors.NotFound: (404, "not-found", "Not found"),
    errors.Invalid: (422, "invalid", "Invalid"),
    errors.Refused: (422, "refused", "Refused"),
    errors.KillInForce: (409, "kill-in-force", "Kill in force"),
    errors.Conflict: (409, "conflict", "Conflict"),
    errors.Unavailable: (503, "unavailable", "Unavailable"),
}
"""An error is answered as the nearest of its ancestors that stands here."""

HTTP_KINDS: Mapping[int, str] = {
    400: "malformed",
    404: "not-found",
    405: "method-not-allowed",
    408: "too-slow",
    413: "too-large",
    429: "too-many-attempts",
    503: "busy",
}


class Finding(Struct, frozen=True, kw_only=True):
    """What is wrong: with a field (`path`), or with a manifest (`file` and what follows it)."""

    message: str
    path: str | UnsetType = UNSET
    file: str | UnsetType = UNSET
    line: int | UnsetType = UNSET
    column: int | UnsetType = UNSET
    length: int | UnsetType = UNSET
    code: str | UnsetType = UNSET
    help: str | UnsetType = UNSET
    severity: str | UnsetType = UNSET
    source_line: str | UnsetType = UNSET


class Problem(Struct, frozen=True, kw_only=True):
    """`type` is stable: scripts decide by it. `blocks` are the conditions in the way of what was refused."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    blocks: list[str] | UnsetType = UNSET
    problems: list[Finding] | UnsetType = UNSET
    reasons: list[str] | UnsetType = UNSET


def exception_handlers() -> ExceptionHandlersMap:
    return {
        errors.RampartError: on_rampart_error,
        HTTPException: on_http_exception,
        Exception: on_unexpected,
    }


def on_rampart_error(request: Request[Any, Any, Any], error: errors.RampartError) -> Response[Problem]:
    known = next((cls for cls in type(error).__mro__ if cls in STATUSES), None)
    if known is None:
        return on_unexpected(request, error)
    status, kind, title = STATUSES[known]
    headers: dict[str, str] = {}
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="rampart"'
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    extensions: dict[str, Any] = {}
    if isinstance(error, errors.Refused) and error.blocks:
        extensions["blocks"] = list(error.blocks)
    if isinstance(error, errors.Invalid):
        extensions["problems"] = _findings(error)
    return answer(request, status, kind, title, str(error), headers=headers, **extensions)


def _findings(error: errors.Invalid) -> list[Finding]:
    if isinstance(error, InvalidManifests):
        return [_manifest_finding(problem) for problem in error.findings]
    return [Finding(path=path, message=message) for path, message in error.problems]


def _manifest_finding(problem: ManifestProblem) -> Finding:
    fields = msgspec.structs.asdict(problem)
    # What would mend it is for whoever has the file.
    del fields["fix"]
    return Finding(**fields)


def on_http_exception(request: Request[Any, Any, Any], error: HTTPException) -> Response[Problem]:
    kind = HTTP_KINDS.get(error.status_code)
    if kind is None:
        return on_unexpected(request, error)
    title = HTTPStatus(error.status_code).phrase
    extensions: dict[str, Any] = {}
    detail = error.detail
    match error.status_code:
        case 404:
            detail = f"there is nothing at {_place(request)}"
        case 405:
            detail = f"{request.method} is not possible at {_place(request)}"
        case 413:
            detail = "the body is larger than this server takes"
    if isinstance(error, ValidationException):
        findings = _field_findings(error.extra)
        extensions["problems"] = findings
        if detail.startswith("Validation failed"):
            detail = "; ".join(f"{one.path}: {one.message}" if one.path else one.message for one in findings)
    return answer(request, error.status_code, kind, title, detail, headers=error.headers or {}, **extensions)


def _field_findings(extra: Any) -> list[Finding]:
    reported: Sequence[Mapping[str, Any]] = extra if isinstance(extra, list) else []
    return [_field_finding(str(one.get("key", "")), str(one.get("message", ""))) for one in reported]


def _field_finding(key: str, message: str) -> Finding:
    # "data" is Litestar's own name for the body as a whole, and it complains of it only when there is none.
    if key == "data":
        return Finding(path="", message="the body is missing")
    return Finding(path=key, message=message)


def on_unexpected(request: Request[Any, Any, Any], error: Exception) -> Response[Problem]:
    """Nothing of the inside is shown (promise I17); the incident number finds it in the log."""
    incident = uuid.uuid4().hex[:12]
    # Formatted here: a renderer that shows local variables would log the caller's token.
    trace = "".join(traceback.format_exception(error))
    log.error("request_failed", incident=incident, method=request.method, path=_place(request), trace=trace)
    detail = f"something went wrong inside Rampart; its log has more under incident {incident}"
    return answer(request, 500, "internal", "Internal error", detail)


def _place(request: Request[Any, Any, Any]) -> str:
    """Where it was. What follows in the address of a trigger is a secret."""
    path: str = request.url.path
    return f"{TRIGGERS}/…" if path.startswith(f"{TRIGGERS}/") else path


def answer(
    request: Request[Any, Any, Any],
    status: int,
    kind: str,
    title: str,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    **extensions: Any,
) -> Response[Problem]:
    problem = Problem(
        type=f"urn:rampart:{kind}",
        title=title,
        status=status,
        detail=detail,
        instance=_place(request),
        **extensions,
    )
    return Response(
        problem,
        status_code=status,
        media_type=PROBLEM_JSON,
        headers={"Cache-Control": "no-store", **(headers or {})},
    )
