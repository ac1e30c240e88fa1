"""What every door for SDKs says and reads, as plain ASGI."""

import asyncio

import msgspec
from litestar.types import Receive, Scope, Send

BODY_WITHIN_SECONDS = 10.0
RETRY_AFTER_SECONDS = 5
TEXT = (b"content-type", b"text/plain; charset=utf-8")
JSON = (b"content-type", b"application/json")

GARBLED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What the decoder raises for bytes that are no JSON, no text, or nested too deeply."""

Header = tuple[bytes, bytes]


def header(scope: Scope, name: bytes) -> str:
    """The first header of that lower-case name, or nothing."""
    values: list[bytes] = [value for key, value in scope.get("headers", []) if key == name]
    return values[0].decode("latin-1") if values else ""


def matches(if_none_match: str, etag: str) -> bool:
    offered = {one.strip().removeprefix("W/") for one in if_none_match.split(",")}
    return etag in offered or "*" in offered


async def body_of(receive: Receive, limit: int, within_seconds: float = BODY_WITHIN_SECONDS) -> bytes | None:
    """The request's body; None when it is longer than `limit` bytes, too slow, or the client left."""
    try:
        async with asyncio.timeout(within_seconds):
            return await _read(receive, limit)
    except TimeoutError:
        return None


async def _read(receive: Receive, limit: int) -> bytes | None:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message["body"])
        size += len(message["body"])
        if size > limit:
            return None
        if not message["more_body"]:
            return b"".join(parts)


async def answer(send: Send, status: int, *headers: Header, body: bytes = b"") -> None:
    length = [] if status in (204, 304) else [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *length]})
    await part(send, body, more=False)


async def busy(send: Send, why: bytes) -> None:
    """503: what every SDK takes for a reason to come back soon."""
    await answer(send, 503, (b"retry-after", str(RETRY_AFTER_SECONDS).encode()), TEXT, body=why)


async def part(send: Send, body: bytes, *, more: bool) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})
