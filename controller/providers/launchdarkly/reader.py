"""Asking the REST API for flags, seldom: one by one, or a hundred at a time when many are out of date."""

import asyncio
import math
from collections.abc import Callable, Collection, Iterable
from datetime import timedelta
from operator import itemgetter

import structlog

from controller.providers.launchdarkly.faults import NOT_FOUND, Failed, explained
from controller.providers.launchdarkly.model import RestFlag
from controller.providers.launchdarkly.reading import moment
from controller.providers.launchdarkly.record import Record
from controller.providers.launchdarkly.rest import PAGE_SIZE, RestApi

log = structlog.get_logger()

ONE_BY_ONE = 5
"""So many flags are read alone; more of one environment are listed, if that takes fewer requests."""
OURS = "Rampart"
"""How the comment of every change of ours begins."""
SAME_CHANGE = timedelta(seconds=2)
"""An entry of the audit log that is further from the flag's own time of change is of another change."""


class Reader:
    def __init__(self, rest: RestApi, *, clock: Callable[[], float], poll_seconds: float) -> None:
        self._rest = rest
        self._clock = clock
        self._poll_seconds = poll_seconds
        self._listing: dict[str, asyncio.Lock] = {}

    def outdated(self, records: Iterable[Record]) -> list[Record]:
        now = self._clock()
        return [record for record in records if record.outdated(now, self._poll_seconds)]

    async def refresh(self, environment: str, records: Collection[Record]) -> None:
        """Ask for those of one environment that are out of date. What fails is noted in the record."""
        wanted = self.outdated(records)
        if len(wanted) > ONE_BY_ONE:
            async with self._listing.setdefault(environment, asyncio.Lock()):
                wanted = self.outdated(wanted)
                try:
                    await self._list(environment, wanted)
                except Failed as failed:
                    for record in wanted:
                        record.cannot_be_read(explained(failed))
                    wanted = [record for record in wanted if record.killing]
            wanted = self.outdated(wanted)
        await asyncio.gather(*(self._read_again(record) for record in wanted))
        await asyncio.gather(*(self._ask_who(one) for one in [one for one in records if one.whose][:ONE_BY_ONE]))

    async def sweep(self, environment: str, records: Collection[Record]) -> None:
        """Ask for all of them, whatever the stream says: what it missed shows now."""
        since = self._clock()
        try:
            if len(records) > ONE_BY_ONE:
                async with self._listing.setdefault(environment, asyncio.Lock()):
                    await self._list(environment, records)
            for record in [one for one in records if one.read_at < since]:
                await self.read(record)
        except Failed as failed:
            log.warning("launchdarkly_not_swept", environment=environment, error=explained(failed))

    async def read(self, record: Record, *, urgent: bool = False) -> RestFlag:
        """Raises Failed."""
        began = self._clock()
        flag = record.flag
        rest = await self._rest.flag(flag.key, flag.environment, "kill" if urgent else "read")
        config = rest.environments.get(flag.environment)
        if config is not None and not config.complete:
            raise Failed("its answer leaves out what the flag serves")
        record.take_in(rest, began)
        return rest

    async def _read_again(self, record: Record) -> None:
        async with record.reading:
            if not self.outdated([record]):
                return
            try:
                await self.read(record, urgent=record.killing)
            except Failed as failed:
                record.cannot_be_read(explained(failed, flag=record.flag.key))
                if failed.status == NOT_FOUND:
                    record.missing_at = self._clock()

    async def _list(self, environment: str, records: Collection[Record]) -> None:
        """All pages, unless reading what is left one by one takes fewer requests. Raises Failed."""
        wanted = {record.flag.key: record for record in records}
        # One time for all pages: else they are out of date at different times, and each takes a list of its own.
        began = self._clock()
        offset, total = 0, math.inf
        while wanted and offset < total:
            page = await self._rest.page(environment, offset)
            for flag in page.items:
                config = flag.environments.get(environment)
                if flag.key in wanted and config is not None and config.complete:
                    wanted.pop(flag.key).take_in(flag, began)
            offset += PAGE_SIZE
            total = page.total_count if page.total_count is not None else offset + len(page.items)
            if not page.items or (total - offset) / PAGE_SIZE > len(wanted):
                return

    async def _ask_who(self, record: Record) -> None:
        """A name is worth having, and nothing depends on it: the token may not read the audit log."""
        flag, changed_at = record.flag, record.changed_at
        record.whose = False
        if changed_at is None:
            return
        try:
            items = await self._rest.latest_changes(flag.key)
        except Failed as failed:
            log.info("launchdarkly_author_unknown", flag=str(flag), error=explained(failed))
            return
        aside, nearest = min(
            ((abs(moment(item.date) - changed_at), item) for item in items),
            key=itemgetter(0),
            default=(SAME_CHANGE, None),
        )
        if nearest is not None and aside < SAME_CHANGE and not (nearest.comment or "").startswith(OURS):
            record.changed_by = nearest.actor
