"""Unannounced audit rows → a queue for each channel → the channels. At least once, and in order for each flag.

An audit row counts as announced once all that is owed for it waits in the database; a message waits there until
its channel has taken it, or is a dead letter. So a crash loses nothing, and repeats only what was on its way.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence

import structlog

from controller.announcer.lane import GIVE_UP_SECONDS, Lane
from controller.announcer.recipients import Recipients, recipients
from controller.domain.notification import Backlog, Shed
from controller.ports import Channel, Clock, NotificationStore, Store
from controller.telemetry import Metrics

__all__ = ["Announcer", "recipients"]

log = structlog.get_logger()

BATCH = 200
MAX_WAITING = 10_000
MAX_DEAD = 1_000
"""Of one channel, in the database; in memory are those that are just being told (promise I20)."""

ROUND_SECONDS = 0.2
GRACE_SECONDS = 2.0
NO_SUCH_CHANNEL = "no channel of this name is in the settings"


class Announcer:
    """`announce` is called about once a second. It returns quickly, whatever the channels do.

    `chance` gives numbers from 0 to 1; it spreads when a channel that failed is tried again.
    """

    def __init__(
        self,
        *,
        store: Store,
        notifications: NotificationStore,
        channels: Mapping[str, Channel],
        clock: Clock,
        metrics: Metrics,
        chance: Callable[[], float],
        public_url: str = "",
    ) -> None:
        self._store = store
        self._notifications = notifications
        self._metrics = metrics
        self._recipients = Recipients(store, channels, public_url)
        self._finishing = False
        self._lanes = {
            name: Lane(name, channel, notifications=notifications, clock=clock, metrics=metrics, chance=chance)
            for name, channel in channels.items()
        }

    async def announce(self, *, until: float) -> None:
        """Take up what is new, and have every channel told that is due, but nobody at monotonic time `until`.

        Raises StoreUnavailable.
        """
        await self._take()
        backlog = await self._bounded(await self._notifications.backlog())
        self._metrics.notifications_left(backlog, self._lanes)
        if self._finishing:
            return
        tasks = [
            self._lanes[one.channel].go_on(until) for one in backlog if one.waiting and one.channel in self._lanes
        ]
        if tasks:
            # A slow channel goes on in its own task, and the next round finds it still at it.
            await asyncio.wait(tasks, timeout=ROUND_SECONDS)

    def rest(self) -> None:
        """Another replica announces: begin nothing more, and say nothing of what waits."""
        for lane in self._lanes.values():
            lane.pause()
        self._metrics.notifications_left([], ())

    async def finish(self) -> None:
        """What is on its way may arrive, for a moment. What was not taken is told by others, or after a start."""
        self._finishing = True
        await asyncio.gather(*(lane.finish(GRACE_SECONDS) for lane in self._lanes.values()))

    async def close(self) -> None:
        await self.finish()
        for lane in self._lanes.values():
            await lane.channel.close()

    async def _take(self) -> None:
        while True:
            rows = await self._store.unannounced(BATCH)
            if rows:
                owed = await self._recipients.owed(rows)
                await self._notifications.take([entry.id for _, entry in rows], owed)
            if len(rows) < BATCH:
                return

    async def _bounded(self, backlog: Sequence[Backlog]) -> Sequence[Backlog]:
        """The same again, after what waits too long for nobody, and what is too much, was given up or dropped."""
        late = [
            one.channel
            for one in backlog
            if one.channel not in self._lanes and one.waiting and one.oldest_waiting_seconds > GIVE_UP_SECONDS
        ]
        too_many = any(one.waiting > MAX_WAITING or one.dead > MAX_DEAD for one in backlog)
        for name in late:
            given_up = await self._notifications.give_up(
                name, older_than_seconds=GIVE_UP_SECONDS, why=NO_SUCH_CHANNEL
            )
            self._gone(Shed(channel=name, given_up=given_up))
        if too_many:
            for shed in await self._notifications.shed(waiting=MAX_WAITING, dead=MAX_DEAD):
                self._gone(shed)
        return await self._notifications.backlog() if late or too_many else backlog

    def _gone(self, shed: Shed) -> None:
        log.error("notifications_shed", channel=shed.channel, given_up=shed.given_up, dropped=shed.dropped)
        self._metrics.notification(shed.channel, "given_up", shed.given_up)
        self._metrics.notification(shed.channel, "dropped", shed.dropped)
