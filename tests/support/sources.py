"""What a process lends to its sources, for those that need little of it."""

from controller.ports import Clock, EventStore
from controller.sources.host import Host
from tests.support.event_memory import EventMemory


def lent(clock: Clock, events: EventStore | None = None) -> Host:
    return Host(clock=clock, events=events or EventMemory(clock.monotonic))
