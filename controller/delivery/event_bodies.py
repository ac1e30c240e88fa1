"""What SDKs send as events, read as far as it is counted.

Kinds that are not known, and whatever else an event says, are passed over: the next SDK may send more.
"""

import zlib
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

MAX_BYTES = 10 * 1024 * 1024
"""Of one delivery, also unpacked: as many events as SDKs hold unless told otherwise (10,000), of 1 KB each."""

MAX_COUNT = 1_000_000_000
"""Of one counter: what is more was never counted."""

GZIP = 16 + zlib.MAX_WBITS
# What the decoder raises for bytes that are no JSON, no text, or nested too deeply.
GARBLED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class TooLarge(ValueError):
    """More than MAX_BYTES, or that when unpacked."""


class Garbled(ValueError):
    """Not what an SDK sends; says why."""


NOTHING = Raw()


class Served(Struct, gc=False):
    """How often one variation was served; none when the caller's default was."""

    count: Annotated[int, Meta(ge=0, le=MAX_COUNT)] = 0
    variation: int | None = None
    version: int | None = None


class Feature(Struct, gc=False):
    counters: list[Served] = []


class Event(Struct, gc=False, rename="camel"):
    """Of any kind. Dates are milliseconds since 1970 by the clock of whoever sent it.

    `context` stays as it came, empty when it did not: most events of a delivery repeat one that was read already.
    """

    kind: str
    creation_date: float = 0.0
    start_date: float = 0.0
    key: str = ""
    context: Raw = NOTHING
    context_keys: dict[str, str] | None = None
    metric_value: float | None = None
    variation: int | None = None
    features: dict[str, Feature] = {}


ALL = msgspec.json.Decoder(list[Event])
EACH = msgspec.json.Decoder(list[Raw])
ONE = msgspec.json.Decoder(Event)
CONTEXT = msgspec.json.Decoder(dict[str, Any])


def unpacked(body: bytes, encoding: str) -> bytes:
    """Raises TooLarge, before more than that was unpacked, and Garbled."""
    if encoding not in ("gzip", "", "identity"):
        raise Garbled(f"the content encoding {encoding[:20]!r} is not known; send gzip or none")
    if encoding != "gzip":
        return body
    unpacker = zlib.decompressobj(GZIP)
    try:
        content = unpacker.decompress(body, MAX_BYTES + 1)
    except zlib.error as error:
        raise Garbled(f"the body is not gzip: {error}") from error
    if len(content) > MAX_BYTES:
        raise TooLarge
    if not unpacker.eof or unpacker.unused_data:
        raise Garbled("the body is not one whole gzip stream")
    return content


def events(content: bytes) -> tuple[list[Event], int]:
    """The events of a delivery, and how many more could not be read. Raises Garbled when it is no list."""
    try:
        return ALL.decode(content), 0
    except GARBLED:
        pass  # one event that is no event: the others are read one by one
    try:
        parts = EACH.decode(content)
    except GARBLED as error:
        raise Garbled(f"not a JSON list of events: {error}") from error
    read = list(_readable(parts))
    return read, len(parts) - len(read)


def _readable(parts: list[Raw]) -> Iterator[Event]:
    for part in parts:
        try:
            yield ONE.decode(part)
        except GARBLED:
            continue  # whoever asked counts those that are missing
