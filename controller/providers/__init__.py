"""Whose flags we turn. A new kind is one module and one line in the table below."""

from collections.abc import Callable
from typing import Any

from controller.ports import FlagProvider, Store
from controller.providers.builtin import BuiltinProvider
from controller.settings import BuiltinProviderSettings, ProviderSettings
from controller.snapshot import FlagBoard

KINDS: dict[type[ProviderSettings], Callable[..., FlagProvider]] = {BuiltinProviderSettings: BuiltinProvider}


def build(name: str, settings: ProviderSettings, *, store: Store, board: FlagBoard, replica: str) -> FlagProvider:
    """The provider named `name` in the settings; `replica` is how this process is called in answers to a kill."""
    plug: Callable[[str, Any, Store, FlagBoard, str], FlagProvider] = KINDS[type(settings)]
    return plug(name, settings, store, board, replica)
