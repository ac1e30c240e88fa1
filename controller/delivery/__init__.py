"""The doors for SDKs: what they expect of a stream, a poll and an endpoint for events."""

from collections.abc import Collection

from litestar.handlers import ASGIRouteHandler

from controller.delivery.audience import Audience
from controller.delivery.client_sdk import ClientSdkDoor
from controller.delivery.client_values import ClientValues
from controller.delivery.cors import ANY, Cors
from controller.delivery.entrance import Entrance
from controller.delivery.evaluations import Evaluations
from controller.delivery.events import EventsDoor
from controller.delivery.keys import SdkKeyBook
from controller.delivery.ofrep import OfrepDoor
from controller.delivery.server_sdk import ServerSdkDoor
from controller.delivery.streaming import Streams
from controller.delivery.turns import Turns
from controller.ports import Clock
from controller.snapshot import FlagBoard

__all__ = ["SdkKeyBook", "handlers"]


def handlers(
    board: FlagBoard, keys: SdkKeyBook, clock: Clock, origins: Collection[str] = (ANY,)
) -> list[ASGIRouteHandler]:
    """Every endpoint for SDKs. `origins`: whose pages may ask those for browsers."""
    entrance = Entrance(board, keys, Cors(origins))
    evaluations, turns = Evaluations(board), Turns()
    audience = Audience(board, evaluations)
    # Anybody may open a stream with a public ID: those have a budget of their own and take nothing from servers.
    streams = Streams(clock)
    return [
        *ServerSdkDoor(board, entrance, Streams(clock)).handlers(),
        *ClientSdkDoor(board, entrance, streams, audience, ClientValues(evaluations), turns).handlers(),
        *OfrepDoor(board, entrance, streams, audience, evaluations, turns).handlers(),
        *EventsDoor(entrance).handlers(),
    ]
