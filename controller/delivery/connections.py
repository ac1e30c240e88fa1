"""uvicorn's connections, with what ASGI leaves out: a request may cut its connection off."""

from collections.abc import Mapping
from typing import Any

from litestar.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

CUT_OFF = "rampart.cut_off"


class Connection(HttpToolsProtocol):
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {CUT_OFF: {"now": self.transport.abort}}


def cut_off(scope: Scope) -> None:
    """Closing would wait until the client has read what was sent; one that never reads would stay for ever."""
    extensions: Mapping[str, Any] = scope.get("extensions") or {}
    if CUT_OFF in extensions:
        extensions[CUT_OFF]["now"]()
