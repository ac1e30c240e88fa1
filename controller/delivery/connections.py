"""uvicorn's connections, with what ASGI leaves out: requests may cut theirs off, and their heads have an end."""

from httptools import HttpParserError
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from controller.admission import CUT_OFF

MAX_HEAD_BYTES = 128 * 1024
"""Of address and headers together. The largest context in an address takes 88 KB."""


class Connection(HttpToolsProtocol):
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._room = MAX_HEAD_BYTES
        self.scope["extensions"] = {CUT_OFF: {"now": self.transport.abort}}

    def on_url(self, url: bytes) -> None:
        self._take(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._take(len(name) + len(value))
        super().on_header(name, value)

    def _take(self, size: int) -> None:
        """Without an end, a head would be kept until memory is."""
        self._room -= size
        if self._room < 0:
            raise HttpParserError("the head of the request is too large")
