"""The channel that needs nothing: one structured line in Rampart's own log."""

import structlog

from controller.domain.audit import AuditEntry
from controller.settings import LogChannelSettings

log = structlog.get_logger()


class LogChannel:
    def __init__(self, name: str, settings: LogChannelSettings) -> None:
        self._name = name

    async def announce(self, entry: AuditEntry) -> None:
        log.info(
            "announced",
            channel=self._name,
            action=entry.action,
            cause=entry.cause,
            run=entry.run,
            flag=entry.flag,
            environment=entry.environment,
            actor=entry.actor,
            reason=entry.reason,
            at=entry.at.isoformat(),
        )

    async def close(self) -> None:
        pass
