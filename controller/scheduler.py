"""When things run. In-memory timers only: all coordination between replicas is in the database.

Each job is short or bounded, never runs twice at once, and its failure is one log line and the next round.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import structlog
from msgspec import Struct

from controller.domain.catalogue import Claim
from controller.errors import StoreUnavailable
from controller.killer import Killer
from controller.ports import Clock, Timers
from controller.presence import Presence
from controller.reconciler import Reconciler
from controller.telemetry import Metrics

log = structlog.get_logger()


class Pace(Struct, frozen=True, kw_only=True):
    """How often each job runs, in seconds."""

    tick: float = 0.5
    renew: float = 3.75
    kill_retry: float = 0.5
    kill_sweep: float = 5.0
    check_in: float = 1.0


class Scheduler:
    """Drives the reconciler and the killer. While the database is away it lets only kill rules be judged."""

    def __init__(
        self,
        *,
        reconciler: Reconciler,
        killer: Killer,
        presence: Presence,
        timers: Timers,
        clock: Clock,
        metrics: Metrics,
        pace: Pace,
    ) -> None:
        self._reconciler = reconciler
        self._killer = killer
        self._presence = presence
        self._timers = timers
        self._clock = clock
        self._metrics = metrics
        self._pace = pace
        self._groups: set[asyncio.Task[None]] = set()
        self._looked_at = clock.monotonic()

    def start(self) -> None:
        self.every(self._pace.tick, "tick", self._tick)
        self.every(self._pace.renew, "renew", self._renew)
        self.every(self._pace.kill_retry, "kill_retry", self._killer.retry)
        self.every(self._pace.kill_sweep, "kill_sweep", self._killer.sweep)
        self.every(self._pace.check_in, "check_in", self._presence.check_in)
        self._metrics.ticks_begin(self._clock.now())
        self._timers.start()

    def every(self, seconds: float, name: str, work: Callable[[], Awaitable[None]]) -> None:
        self._timers.every(seconds, name, _guarded(name, work))

    def now(self, name: str) -> None:
        """Do not wait for the interval: another replica said that there is something new."""
        self._timers.now(name)

    async def stop(self) -> None:
        self._timers.stop()
        if self._groups:
            await asyncio.wait(self._groups, timeout=5.0)

    async def _tick(self) -> None:
        if not self._presence.merged:
            await self._reconciler.tick_blind()
            return
        began = self._clock.monotonic()
        lag, self._looked_at = max(began - self._looked_at - self._pace.tick, 0.0), began
        try:
            groups = await self._reconciler.claim()
        except StoreUnavailable as error:
            self._presence.lose(error)
            return
        for group in groups:
            # Not awaited: a slow source or provider must not delay the other groups.
            self._spawn(self._tick_group(group, lag))
        if not groups:
            self._ticked(began, lag)

    async def _tick_group(self, group: Sequence[Claim], lag: float) -> None:
        began = self._clock.monotonic()
        await self._reconciler.tick(group)
        self._ticked(began, lag)

    def _ticked(self, began: float, lag: float) -> None:
        duration = self._clock.monotonic() - began
        self._metrics.tick(lag_seconds=lag, duration_seconds=duration, at=self._clock.now())

    async def _renew(self) -> None:
        if self._presence.merged:
            await self._reconciler.renew()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._groups.add(task)
        task.add_done_callback(self._groups.discard)


def _guarded(name: str, work: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    async def run() -> None:
        try:
            await work()
        except StoreUnavailable as error:
            log.warning("job_waits_for_database", job=name, error=str(error))
        except Exception:
            log.exception("job_failed", job=name)

    return run
