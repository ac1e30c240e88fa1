"""Telling one channel what waits for it: the oldest of each flag first, several flags at once.

A message that a receiver refuses is a dead letter, and what is behind it goes on. One that cannot be taken now is
tried again, ever more rarely; until then its flag rests, so that the order is kept, and the others go on. While
nothing of theirs is taken either, the channel is down, and one attempt at a time finds out when it is back.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import structlog
from msgspec import Struct

from controller.domain.notification import NotificationResult, Waiting
from controller.errors import StoreUnavailable, Unavailable, Undeliverable
from controller.ports import Channel, Clock, NotificationStore
from controller.telemetry import Metrics, without_secrets

log = structlog.get_logger()

AT_ONCE = 4
WINDOW = 100
DELIVERY_TIMEOUT_SECONDS = 11.0
FIRST_BACK_OFF_SECONDS = 1.0
LONGEST_BACK_OFF_SECONDS = 300.0
LONGEST_CHANNEL_BACK_OFF_SECONDS = 15.0
"""Of a channel as a whole: who knows whether not only one flag's message is what it stumbles over."""

LONGEST_ASKED_SECONDS = 3600.0
"""However late a receiver asks us to come back: it may have meant milliseconds."""

GIVE_UP_SECONDS = 24 * 3600.0
GIVE_UP_ATTEMPTS = 8
"""Both: what waited while Rampart itself was away is not given up at the first failure."""

WHY_CHARACTERS = 500


class Rest(Struct):
    """After `failures` in a row nothing more is tried before `until`; the last one began at `failed_at`."""

    failures: int = 0
    until: float = 0.0
    failed_at: float = float("-inf")


class Lane:
    """One channel. `go_on` is called about once a second while something waits for it."""

    def __init__(
        self,
        name: str,
        channel: Channel,
        *,
        notifications: NotificationStore,
        clock: Clock,
        metrics: Metrics,
        chance: Callable[[], float],
    ) -> None:
        self.name = name
        self.channel = channel
        self._notifications = notifications
        self._clock = clock
        self._metrics = metrics
        self._chance = chance
        self._whole = Rest()
        self._threads: dict[str, Rest] = {}
        self._told: set[str] = set()
        self._until = 0.0
        self._away: StoreUnavailable | None = None
        self._task: asyncio.Task[None] | None = None

    def go_on(self, until: float) -> asyncio.Task[None]:
        """Tell what is due, but begin nothing that might last beyond monotonic time `until`."""
        self._until = until
        if self._task is None or self._task.done():
            self._away = None
            self._task = asyncio.create_task(self._run())
        return self._task

    def pause(self) -> None:
        """Begin nothing more."""
        self._until = 0.0

    async def finish(self, grace_seconds: float) -> None:
        """Begin nothing more, and wait so long for what is on its way."""
        self.pause()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=grace_seconds)
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            while self._open():
                await self._forget_told()
                waiting = await self._due()
                if not waiting:
                    return
                await self._tell_all(waiting)
        except StoreUnavailable as error:
            self._away = error
        except Exception:
            log.exception("notifications_failed", channel=self.name)
        if self._away:
            log.warning("notifications_wait_for_database", channel=self.name, error=str(self._away))

    def _open(self) -> bool:
        now = self._clock.monotonic()
        in_time = now + DELIVERY_TIMEOUT_SECONDS <= self._until
        return in_time and self._away is None and now >= self._whole.until

    async def _due(self) -> Sequence[Waiting]:
        """One message while it is open whether the channel takes any: of a flag that did not fail if it can."""
        now = self._clock.monotonic()
        resting = [thread for thread, rest in self._threads.items() if rest.until > now]
        if not self._whole.failures:
            return await self._notifications.waiting(self.name, resting=resting, limit=WINDOW)
        fresh = await self._notifications.waiting(self.name, resting=list(self._threads), limit=1)
        return fresh or await self._notifications.waiting(self.name, resting=resting, limit=1)

    async def _tell_all(self, waiting: Sequence[Waiting]) -> None:
        threads: dict[str, list[Waiting]] = {}
        for one in waiting:
            threads.setdefault(one.thread, []).append(one)
        queue = deque(threads.values())
        await asyncio.gather(*(self._work(queue) for _ in range(min(AT_ONCE, len(queue)))))

    async def _work(self, threads: deque[list[Waiting]]) -> None:
        while threads:
            for one in threads.popleft():
                if not self._open() or not await self._tell(one):
                    break

    async def _tell(self, one: Waiting) -> bool:
        """Whether the channel is done with this message: told, or never to be told."""
        began = self._clock.monotonic()
        try:
            async with asyncio.timeout(DELIVERY_TIMEOUT_SECONDS):
                await self.channel.announce(one.message)
        except (Unavailable, TimeoutError) as error:
            return await self._not_now(one, began, error)
        except Undeliverable as error:
            await self._bury(one, "undeliverable", str(error))
        except Exception as error:
            # Not a fault of the moment: trying again would hold up everything behind it.
            log.exception("notification_failed", channel=self.name, run=one.message.run, told=one.message.event)
            await self._bury(one, "failed", f"{type(error).__name__}, a defect; the server's log tells where")
        else:
            self._metrics.notification(self.name, "ok")
            self._told.add(one.message.id)
            await self._noted(self._forget_told())
        self._answered(one.thread)
        return True

    async def _not_now(self, one: Waiting, began: float, error: Exception) -> bool:
        self._metrics.notification(self.name, "unavailable")
        why = _plain(str(error) or f"no answer within {DELIVERY_TIMEOUT_SECONDS:g} s")
        thread = self._threads.setdefault(one.thread, Rest())
        said = error.again_in if isinstance(error, Unavailable) else None
        asked = said if said is not None else 0.0
        self._back_off(thread, began, asked, LONGEST_BACK_OFF_SECONDS)
        self._back_off(self._whole, began, asked, LONGEST_CHANNEL_BACK_OFF_SECONDS)
        log.warning(
            "notification_delayed",
            channel=self.name,
            error=why,
            again_in_seconds=round(self._whole.until - self._clock.monotonic(), 1),
        )
        in_a_row = max(thread.failures, self._whole.failures)
        if one.waited_seconds > GIVE_UP_SECONDS and in_a_row >= GIVE_UP_ATTEMPTS:
            await self._bury(one, "given_up", why)
            return True
        await self._noted(self._notifications.failed(self.name, one.message.id, why))
        return False

    def _back_off(self, rest: Rest, began: float, asked_seconds: float, longest_seconds: float) -> None:
        """Exponential, with full jitter. Attempts that were under way together count as one."""
        now = self._clock.monotonic()
        if began > rest.failed_at:
            rest.failures += 1
        at_most = min(FIRST_BACK_OFF_SECONDS * 2 ** min(rest.failures - 1, 16), longest_seconds)
        pause = max(self._chance() * at_most, min(asked_seconds, LONGEST_ASKED_SECONDS))
        rest.failed_at, rest.until = now, now + pause

    def _answered(self, thread: str) -> None:
        """The channel is there, and so it was not for their own sake that others failed while it was not."""
        self._threads.pop(thread, None)
        if self._whole.failures > 1:
            for rest in self._threads.values():
                rest.until = 0.0
        self._whole = Rest()

    async def _bury(self, one: Waiting, result: NotificationResult, why: str) -> None:
        why = _plain(why)
        log.error("notification_dead", channel=self.name, result=result, error=why, run=one.message.run)
        self._metrics.notification(self.name, result)
        await self._noted(self._notifications.bury(self.name, one.message.id, why))

    async def _forget_told(self) -> None:
        told = list(self._told)
        if told:
            await self._notifications.told(self.name, told)
            self._told.difference_update(told)

    async def _noted(self, work: Awaitable[None]) -> None:
        """While the database is away nothing more is begun: it would be told again after a restart."""
        try:
            await work
        except StoreUnavailable as error:
            self._away = error


def _plain(why: str) -> str:
    """For the database, people and programs: no secret, no more than a few lines."""
    return without_secrets(why).replace("\x00", "")[:WHY_CHARACTERS]
