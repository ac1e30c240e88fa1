"""Which web pages may read the answers of the doors for browsers.

A client-side ID is public and names the flags that everybody may see, and no cookie is ever looked at: so any
page may ask, unless the settings say otherwise.
"""

from collections.abc import Collection

from litestar.types import Message, Scope, Send

from controller.delivery.answers import Header, header

ANY = "*"
REMEMBER_SECONDS = 86_400
ALLOWED_HEADERS = (
    b"Accept, Authorization, Cache-Control, Content-Type, If-None-Match, X-API-Key, X-LaunchDarkly-Event-Schema, "
    b"X-LaunchDarkly-Payload-ID, X-LaunchDarkly-Tags, X-LaunchDarkly-User-Agent, X-LaunchDarkly-Wrapper"
)
EXPOSED_HEADERS = b"Date, ETag, Retry-After"


class Cors:
    """`origins` are pages' origins as browsers send them, or "*" for all."""

    def __init__(self, origins: Collection[str] = (ANY,)) -> None:
        self._origins = frozenset(origins)

    def preflight(self, scope: Scope, methods: bytes) -> list[Header]:
        """What a browser wants to know before it asks."""
        if not self._granted(scope):
            return []
        return [
            (b"access-control-allow-methods", methods),
            (b"access-control-allow-headers", ALLOWED_HEADERS),
            (b"access-control-max-age", str(REMEMBER_SECONDS).encode()),
        ]

    def opened(self, scope: Scope, send: Send) -> Send:
        """The same, with each answer readable by the page that asked for it."""
        extra = [*self._granted(scope), *self._varying()]

        async def opened(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *extra]
            await send(message)

        return opened

    def _granted(self, scope: Scope) -> list[Header]:
        origin = header(scope, b"origin")
        if ANY in self._origins:
            allowed = ANY
        elif origin in self._origins:
            allowed = origin
        else:
            return []
        return [
            (b"access-control-allow-origin", allowed.encode("latin-1")),
            (b"access-control-expose-headers", EXPOSED_HEADERS),
        ]

    def _varying(self) -> list[Header]:
        return [] if ANY in self._origins else [(b"vary", b"origin")]
