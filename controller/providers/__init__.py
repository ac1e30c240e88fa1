"""Whose flags we turn. A new kind is one module and one line in the table below."""

from collections.abc import Callable
from typing import Any, Protocol

from controller.ports import FlagProvider, Store
from controller.providers.builtin import BuiltinProvider
from controller.settings import BuiltinProviderSettings, ProviderSettings
from controller.snapshot import FlagBoard


class Provider(FlagProvider, Protocol):
    """A provider as the shell holds it: it may need to look for what other replicas changed."""

    async def refresh(self) -> None:
        """Called every few seconds. Raises StoreUnavailable."""


KINDS: dict[type[ProviderSettings], Callable[..., Provider]] = {BuiltinProviderSettings: BuiltinProvider}


def build(name: str, settings: ProviderSettings, *, store: Store, board: FlagBoard, replica: str) -> Provider:
    """The provider named `name` in the settings; `replica` is how this process is called in answers to a kill."""
    plug: Callable[[str, Any, Store, FlagBoard, str], Provider] = KINDS[type(settings)]
    return plug(name, settings, store, board, replica)
