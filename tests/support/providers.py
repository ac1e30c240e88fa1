"""What a provider needs of the process it runs in."""

from typing import Any

from controller.ports import Clock
from controller.providers.host import Host
from controller.snapshot import FlagBoard
from controller.telemetry import Metrics
from tests.support.tracking import RealClock


def make_host(store: Any, board: FlagBoard, *, clock: Clock | None = None, replica: str = "r1") -> Host:
    return Host(store=store, board=board, clock=clock or RealClock(), metrics=Metrics(), replica=replica)
