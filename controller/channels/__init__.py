"""Who is told. A new kind is one module and one line in the table below."""

from collections.abc import Callable
from typing import Any

from controller.channels.log import LogChannel
from controller.ports import Channel
from controller.settings import ChannelSettings, LogChannelSettings

KINDS: dict[type[ChannelSettings], Callable[[str, Any], Channel]] = {
    LogChannelSettings: LogChannel,
}


def build(name: str, settings: ChannelSettings) -> Channel:
    """The channel named `name` in the settings."""
    return KINDS[type(settings)](name, settings)
