"""The doors for SDKs: what they expect of a stream, a poll and an endpoint for events."""

from controller.delivery.doors import Doors
from controller.delivery.fronts import build as fronts
from controller.delivery.keys import SdkKeyBook

__all__ = ["Doors", "SdkKeyBook", "fronts"]
