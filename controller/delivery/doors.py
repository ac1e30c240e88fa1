"""All doors for SDKs, wired."""

from collections.abc import Collection
from functools import partial

from litestar.types import ASGIApp

from controller.delivery.audience import Audience
from controller.delivery.client_sdk import ClientSdkDoor
from controller.delivery.client_values import ClientValues
from controller.delivery.cors import ANY, Cors
from controller.delivery.entrance import Entrance
from controller.delivery.evaluations import Evaluations
from controller.delivery.event_book import EventBook
from controller.delivery.events import EventsDoor
from controller.delivery.front import FrontDoor
from controller.delivery.fronts import Front
from controller.delivery.keys import SdkKeyBook
from controller.delivery.ofrep import OfrepDoor
from controller.delivery.server_sdk import ServerSdkDoor
from controller.delivery.streaming import Streams
from controller.delivery.turns import Turns
from controller.ports import Clock
from controller.snapshot import FlagBoard


class Doors:
    """`origins`: whose web pages may ask the doors for browsers.

    Anybody may open streams with a public client-side ID: they have a budget of their own and take nothing from
    servers.
    """

    def __init__(
        self,
        board: FlagBoard,
        keys: SdkKeyBook,
        clock: Clock,
        *,
        origins: Collection[str] = (ANY,),
        streams: Streams | None = None,
        client_streams: Streams | None = None,
        turns: Turns | None = None,
        event_book: EventBook | None = None,
        fronts: Collection[Front] = (),
    ) -> None:
        self.streams = streams or Streams(clock)
        self.client_streams = client_streams or Streams(clock)
        turns = turns or Turns()
        entrance = Entrance(board, keys, Cors(origins))
        evaluations = Evaluations(board)
        audience = Audience(board, evaluations)
        forwarders = {one.environment: one.forwarder for one in fronts}
        for front in fronts:
            front.show_streams(partial(self._open_streams, front.environment))
        self.events = EventsDoor(entrance, board, clock, event_book, forwarders)
        self._server = ServerSdkDoor(board, entrance, self.streams)
        self._client = ClientSdkDoor(
            board, entrance, self.client_streams, audience, ClientValues(evaluations), turns
        )
        self._ofrep = OfrepDoor(board, entrance, self.client_streams, audience, evaluations, turns)

    def _open_streams(self, environment: str) -> int:
        return self.streams.open_in[environment] + self.client_streams.open_in[environment]

    def before(self, app: ASGIApp) -> FrontDoor:
        """Answers at the endpoints for SDKs; everything else is the app's."""
        endpoints = [
            *self._server.endpoints(),
            *self._client.endpoints(),
            *self._ofrep.endpoints(),
            *self.events.handlers(),
        ]
        return FrontDoor(endpoints, app)
