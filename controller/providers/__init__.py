"""Whose flags we turn. A new kind is one module, one line in the table below and one in the import contracts."""

from collections.abc import Callable

from controller.providers.builtin import BuiltinProvider
from controller.providers.flagd import FlagdProvider
from controller.providers.host import Host, Provider
from controller.providers.launchdarkly import LaunchDarklyProvider
from controller.providers.unleash import UnleashProvider
from controller.settings import (
    BuiltinProviderSettings,
    FlagdProviderSettings,
    LaunchDarklyProviderSettings,
    ProviderSettings,
    UnleashProviderSettings,
)

KINDS: dict[type[ProviderSettings], Callable[..., Provider]] = {
    BuiltinProviderSettings: BuiltinProvider,
    FlagdProviderSettings: FlagdProvider,
    LaunchDarklyProviderSettings: LaunchDarklyProvider,
    UnleashProviderSettings: UnleashProvider,
}


def build(name: str, settings: ProviderSettings, host: Host) -> Provider:
    """The provider named `name` in the settings. Raises SettingsError when they lead nowhere."""
    return KINDS[type(settings)](name, settings, host)
