"""Who is told. A new kind is one module, one line in the table below and one in the import contracts."""

from collections.abc import Callable
from typing import Any

from controller.channels.email import EmailChannel
from controller.channels.log import LogChannel
from controller.channels.pagerduty import PagerDutyChannel
from controller.channels.slack import SlackChannel
from controller.channels.webhook import WebhookChannel
from controller.ports import Channel, Clock
from controller.settings import (
    ChannelSettings,
    EmailChannelSettings,
    LogChannelSettings,
    PagerDutyChannelSettings,
    SlackChannelSettings,
    WebhookChannelSettings,
)

KINDS: dict[type[ChannelSettings], Callable[[str, Any, Clock], Channel]] = {
    LogChannelSettings: LogChannel,
    WebhookChannelSettings: WebhookChannel,
    SlackChannelSettings: SlackChannel,
    PagerDutyChannelSettings: PagerDutyChannel,
    EmailChannelSettings: EmailChannel,
}


def build(name: str, settings: ChannelSettings, clock: Clock) -> Channel:
    """The channel named `name` in the settings. Raises SettingsError when they lead nowhere."""
    return KINDS[type(settings)](name, settings, clock)
