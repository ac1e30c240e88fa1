"""The door for SDKs: what LaunchDarkly's server-side SDKs expect of a stream, a poll and an events endpoint."""

from controller.delivery.keys import SdkKeyBook
from controller.delivery.server_sdk import ServerSdkDoor, handlers

__all__ = ["SdkKeyBook", "ServerSdkDoor", "handlers"]
