"""Server-sent events from the chunks of a response, as far as flag streams use them."""

from collections.abc import Iterator
from typing import NamedTuple

MAX_EVENT_BYTES = 256 * 1024 * 1024
"""Of one event: more than any environment has."""


class TooLong(Exception):
    """One event does not end."""


class ServerEvent(NamedTuple):
    kind: str
    data: bytes


class ServerEvents:
    """Fed with chunks as they come, cut anywhere. Comments, which keep a stream alive, are passed over."""

    def __init__(self, limit: int = MAX_EVENT_BYTES) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._kind = "message"
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> Iterator[ServerEvent]:
        """The events that end in this chunk. Raises TooLong."""
        searched = len(self._buffer)
        self._buffer += chunk
        begin = 0
        while (end := self._buffer.find(b"\n", max(begin, searched))) >= 0:
            line = bytes(self._buffer[begin:end]).removesuffix(b"\r")
            begin = end + 1
            if line:
                self._field(line)
            elif self._data:
                yield self._event()
            else:
                self._kind = "message"
        del self._buffer[:begin]
        if len(self._buffer) + self._size > self._limit:
            raise TooLong(f"one event has more than {self._limit:,} bytes")

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"event":
            self._kind = value.decode("utf-8", "replace")
        elif name == b"data":
            self._data.append(value)
            self._size += len(value)

    def _event(self) -> ServerEvent:
        event = ServerEvent(self._kind, b"\n".join(self._data))
        self._kind, self._data, self._size = "message", [], 0
        return event
