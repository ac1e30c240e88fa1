"""The doors for SDKs: what they expect of a stream, a poll and an endpoint for events."""

from collections.abc import Collection

from litestar.handlers import ASGIRouteHandler

from controller.delivery.cors import ANY, Cors
from controller.delivery.entrance import Entrance
from controller.delivery.events import EventsDoor
from controller.delivery.keys import SdkKeyBook
from controller.delivery.server_sdk import ServerSdkDoor
from controller.delivery.streaming import Streams
from controller.ports import Clock
from controller.snapshot import FlagBoard

__all__ = ["SdkKeyBook", "handlers"]


def handlers(
    board: FlagBoard, keys: SdkKeyBook, clock: Clock, origins: Collection[str] = (ANY,)
) -> list[ASGIRouteHandler]:
    """Every endpoint for SDKs. `origins`: whose pages may ask those for browsers."""
    entrance = Entrance(board, keys, Cors(origins))
    return [
        *ServerSdkDoor(board, entrance, Streams(clock)).handlers(),
        *EventsDoor(entrance).handlers(),
    ]
