"""What the process lends to its providers."""

from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol

from controller.ports import Clock, FlagProvider, Store
from controller.snapshot import FlagBoard
from controller.telemetry import Metrics


class Host(NamedTuple):
    """`replica` is how this process is called in answers to a kill."""

    store: Store
    board: FlagBoard
    clock: Clock
    metrics: Metrics
    replica: str


class Provider(FlagProvider, Protocol):
    """A provider as the shell holds it: started once in the event loop, closed at the end."""

    def start(self) -> None:
        """Begin what runs beside the calls, such as listening for changes. Waits for nothing."""

    async def problems(self, environments: Collection[str]) -> Sequence[str]:
        """What keeps it from reading or writing flags there now, rights included; empty when nothing does."""
