"""Events of SDKs: taken in and counted, not kept."""

from litestar.handlers import ASGIRouteHandler
from litestar.types import Receive, Scope, Send

from controller.delivery.answers import TEXT, answer, body_of
from controller.delivery.entrance import CLIENT, ID_PARAMETER, MOBILE, SERVER, Entrance
from controller.domain.catalogue import SdkKey

MAX_EVENTS_BYTES = 5 * 1024 * 1024


class EventsDoor:
    """`posts` is how many deliveries of events came in."""

    def __init__(self, entrance: Entrance) -> None:
        self.posts = 0
        self._entrance = entrance

    def handlers(self) -> list[ASGIRouteHandler]:
        paths = {
            "/bulk": SERVER,
            "/diagnostic": SERVER,
            "/mobile": MOBILE,
            "/mobile/events/diagnostic": MOBILE,
            f"/events/bulk/{{{ID_PARAMETER}:str}}": CLIENT,
            f"/events/diagnostic/{{{ID_PARAMETER}:str}}": CLIENT,
        }
        return [
            self._entrance.endpoint(path, (b"POST",), credential, self._events)
            for path, credential in paths.items()
        ]

    async def _events(self, key: SdkKey, scope: Scope, receive: Receive, send: Send) -> None:
        """The server's Date header is what SDKs set their debugging clock by."""
        self.posts += 1
        if await body_of(receive, MAX_EVENTS_BYTES) is not None:
            await answer(send, 202)
        else:
            # Not 413: that would make SDKs stop sending events for good.
            await answer(send, 400, (b"connection", b"close"), TEXT, body=b"more than 5 MB of events at once\n")
