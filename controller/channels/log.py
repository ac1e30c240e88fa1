"""The channel that needs nothing: one structured line in Rampart's own log."""

import structlog

from controller.domain.message import Message
from controller.ports import Clock
from controller.settings import LogChannelSettings

log = structlog.get_logger()


class LogChannel:
    resolves = False

    def __init__(self, name: str, settings: LogChannelSettings, clock: Clock) -> None:
        self._name = name

    async def announce(self, message: Message) -> None:
        log.info(
            "announced",
            channel=self._name,
            told=message.event,
            cause=message.cause,
            run=message.run,
            flag=message.flag,
            environment=message.environment,
            actor=message.actor,
            reason=message.reason,
            at=message.at.isoformat(),
        )

    async def close(self) -> None:
        pass
