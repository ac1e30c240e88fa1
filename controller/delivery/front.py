"""Which endpoint answers: by path, and in front of the rest of the server.

Litestar finds no endpoint with parameters that is plain ASGI, knows no REPORT, and remembers the paths that were
asked for: here they hold whole contexts, one for each visitor.
"""

from collections.abc import Iterable

import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from controller.admission import cut_off
from controller.delivery.answers import TEXT, answer
from controller.delivery.entrance import Endpoint

log = structlog.get_logger()


class Branch:
    """Where paths part: by their next segment, or at any segment where an endpoint has a parameter."""

    def __init__(self) -> None:
        self.named: dict[str, Branch] = {}
        self.any: Branch | None = None
        self.endpoint: Endpoint | None = None


class FrontDoor:
    def __init__(self, endpoints: Iterable[Endpoint], rest: ASGIApp) -> None:
        self._rest = rest
        self._root = Branch()
        for endpoint in endpoints:
            self._add(endpoint)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._find(scope["path"]) if scope["type"] == ScopeType.HTTP else None
        if found is None:
            await self._rest(scope, receive, send)
            return
        endpoint, scope["path_params"] = found
        await _guarded(endpoint, scope, receive, send)

    def _add(self, endpoint: Endpoint) -> None:
        branch = self._root
        for segment in _segments(endpoint.path):
            if _is_parameter(segment):
                branch.any = branch = branch.any or Branch()
            else:
                branch = branch.named.setdefault(segment, Branch())
        if branch.endpoint is not None:
            raise ValueError(f"two endpoints answer at {endpoint.path}")
        branch.endpoint = endpoint

    def _find(self, path: str) -> tuple[Endpoint, dict[str, str]] | None:
        """The endpoint, and the values of its parameters by name. A named segment wins over any segment."""
        branch: Branch | None = self._root
        values = []
        for segment in _segments(path):
            if branch is None:
                return None
            if segment not in branch.named:
                values.append(segment)
            branch = branch.named.get(segment, branch.any)
        if branch is None or branch.endpoint is None:
            return None
        names = (segment.strip("{}") for segment in _segments(branch.endpoint.path) if _is_parameter(segment))
        return branch.endpoint, dict(zip(names, values, strict=True))


async def _guarded(endpoint: Endpoint, scope: Scope, receive: Receive, send: Send) -> None:
    """A fault of ours is an answer like any other, unless the answer has begun."""
    begun = False

    async def watched(message: Message) -> None:
        nonlocal begun
        begun = True
        await send(message)

    try:
        await endpoint.app(scope, receive, watched)
    except Exception:
        log.exception("endpoint_failed", path=endpoint.path)
        if begun:
            cut_off(scope)
        else:
            await answer(send, 500, TEXT, body=b"internal error; the log of the server says more\n")


def _segments(path: str) -> list[str]:
    return [segment for segment in path.split("/") if segment]


def _is_parameter(segment: str) -> bool:
    return segment.startswith("{")
