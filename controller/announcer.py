"""Unannounced audit rows → the channels their plan names. At least once, and in order for each channel.

A row stays unannounced in the store until every channel it is meant for has taken it. Who has taken it already
is only remembered here, so a restart may tell somebody twice and nobody never.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping, Sequence

import structlog
from msgspec import Struct

from controller.domain.audit import AuditEntry
from controller.domain.message import EVENTS, Message, message
from controller.domain.plan import RolloutPlan
from controller.errors import Unavailable
from controller.ports import Channel, Clock, Store
from controller.telemetry import Metrics

log = structlog.get_logger()

BATCH = 500
MAX_WAITING = 1_000
"""Rows kept for channels that do not answer; beyond it the oldest are given up (promise I20)."""

DELIVERY_TIMEOUT_SECONDS = 15.0
ROUND_SECONDS = 0.5
FIRST_BACK_OFF_SECONDS = 1.0
LONGEST_BACK_OFF_SECONDS = 300.0


def recipients(entry: AuditEntry, plans: Iterable[RolloutPlan]) -> list[tuple[str, RolloutPlan]]:
    """The channels to tell of this entry, each once, by name, with the first plan that wants it told there."""
    event = EVENTS.get(entry.action)
    wanted = ((notify.to, plan) for plan in plans for notify in plan.spec.notify if event in notify.events)
    found: dict[str, RolloutPlan] = {}
    for name, plan in wanted:
        found.setdefault(name, plan)
    return list(found.items())


class Waiting(Struct, frozen=True):
    message: Message


class Lane:
    """What one channel still has to be told, oldest first, and when it may be tried again."""

    def __init__(self, name: str, channel: Channel) -> None:
        self.name = name
        self.channel = channel
        self.waiting: deque[Waiting] = deque()
        self.failures = 0
        self.not_before = 0.0
        self.task: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        return self.task is not None and not self.task.done()


class Announcer:
    """`announce` is called about once a second. It returns quickly, whatever the channels do."""

    def __init__(
        self,
        *,
        store: Store,
        channels: Mapping[str, Channel],
        clock: Clock,
        metrics: Metrics,
        public_url: str = "",
    ) -> None:
        self._store = store
        self._public_url = public_url
        self._clock = clock
        self._metrics = metrics
        self._lanes = {name: Lane(name, channel) for name, channel in channels.items()}
        self._owed: dict[int, set[str]] = {}

    async def announce(self) -> None:
        """Take what is new, try every channel that is due, mark what all have taken. Raises StoreUnavailable."""
        for sequence, entry in await self._store.unannounced(len(self._owed) + BATCH):
            if sequence not in self._owed:
                await self._take(sequence, entry)
        self._shed()
        await self._deliver()
        settled = [sequence for sequence, owed in self._owed.items() if not owed]
        if settled:
            await self._store.announced(settled)
        for sequence in settled:
            del self._owed[sequence]

    async def close(self) -> None:
        """Stop delivering and close the channels. What was not taken is told after the next start."""
        for lane in self._lanes.values():
            if lane.task is not None:
                lane.task.cancel()
                await asyncio.wait([lane.task])
            await lane.channel.close()

    async def _take(self, sequence: int, entry: AuditEntry) -> None:
        names = recipients(entry, await self._plans(entry)) if entry.action in EVENTS else []
        self._owed[sequence] = set()
        for name, plan in names:
            if name not in self._lanes:
                log.error("notification_channel_unknown", channel=name, run=entry.run, action=entry.action)
            elif told := message(sequence, entry, plan, self._public_url):
                self._owed[sequence].add(name)
                self._lanes[name].waiting.append(Waiting(told))

    async def _plans(self, entry: AuditEntry) -> Sequence[RolloutPlan]:
        """The plan the run is pinned to; for a flag that was killed without a run, every plan that names it."""
        found = await self._store.run(entry.run) if entry.run else None
        if found is None:
            return [one.plan for one in await self._store.plans() if str(one.plan.spec.flag) == entry.flag]
        run, _ = found
        revision = await self._store.plan(run.plan, run.plan_revision)
        return [revision.plan] if revision else []

    def _shed(self) -> None:
        excess = len(self._owed) - MAX_WAITING
        for sequence in sorted(self._owed)[: max(excess, 0)]:
            for name in self._owed[sequence]:
                lane = self._lanes[name]
                lane.waiting = deque(waiting for waiting in lane.waiting if waiting.message.sequence != sequence)
                log.error("notification_given_up", channel=name, sequence=sequence, why="too many are waiting")
                self._metrics.notification(name, "given_up")
            self._owed[sequence].clear()

    async def _deliver(self) -> None:
        now = self._clock.monotonic()
        for lane in self._lanes.values():
            if lane.waiting and not lane.busy and lane.not_before <= now:
                lane.task = asyncio.create_task(self._drain(lane))
        tasks = [lane.task for lane in self._lanes.values() if lane.task is not None and lane.busy]
        if tasks:
            # A slow channel goes on in its own task: the next round serves the others.
            await asyncio.wait(tasks, timeout=ROUND_SECONDS)

    async def _drain(self, lane: Lane) -> None:
        while lane.waiting:
            waiting = lane.waiting[0]
            if not await self._tell(lane, waiting.message):
                return
            # Meanwhile it may have been given up to make room.
            if lane.waiting and lane.waiting[0] is waiting:
                lane.waiting.popleft()
                self._owed[waiting.message.sequence].discard(lane.name)

    async def _tell(self, lane: Lane, told: Message) -> bool:
        """Whether the channel is done with this message: told, or unable to ever tell it."""
        try:
            async with asyncio.timeout(DELIVERY_TIMEOUT_SECONDS):
                await lane.channel.announce(told)
        except (Unavailable, TimeoutError) as error:
            self._back_off(lane, str(error) or "timed out")
            return False
        except Exception:
            # Not a fault of the moment: trying again would hold up everything behind it.
            log.exception("notification_failed", channel=lane.name, run=told.run, event_told=told.event)
            self._metrics.notification(lane.name, "failed")
            return True
        lane.failures = 0
        self._metrics.notification(lane.name, "ok")
        return True

    def _back_off(self, lane: Lane, why: str) -> None:
        pause = min(FIRST_BACK_OFF_SECONDS * 2**lane.failures, LONGEST_BACK_OFF_SECONDS)
        lane.failures += 1
        lane.not_before = self._clock.monotonic() + pause
        log.warning("notification_delayed", channel=lane.name, error=why, again_in_seconds=pause)
        self._metrics.notification(lane.name, "unavailable")
