"""What the process lends to its sources."""

from typing import NamedTuple

from controller.ports import Clock, EventStore


class Host(NamedTuple):
    clock: Clock
    events: EventStore
