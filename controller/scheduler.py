"""When things run. In-memory timers only: all coordination between replicas is in the database.

Each job is short or bounded, never runs twice at once, and its failure is one log line and the next round.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from controller.domain.catalogue import Claim
from controller.errors import StoreUnavailable
from controller.killer import Killer
from controller.ports import Clock, Store
from controller.reconciler import Reconciler
from controller.telemetry import Metrics

log = structlog.get_logger()

KILL_RETRY_SECONDS = 0.5
KILL_SWEEP_SECONDS = 5.0
MERGE_SECONDS = 1.0
RENEWALS_PER_LEASE = 4


class Scheduler:
    """Drives the reconciler and the killer. While the database is away it lets only kill rules be judged."""

    def __init__(
        self,
        *,
        store: Store,
        reconciler: Reconciler,
        killer: Killer,
        clock: Clock,
        metrics: Metrics,
        poll_seconds: float,
        lease_seconds: float,
    ) -> None:
        self._store = store
        self._reconciler = reconciler
        self._killer = killer
        self._clock = clock
        self._metrics = metrics
        self._poll_seconds = poll_seconds
        self._lease_seconds = lease_seconds
        self._timers = AsyncIOScheduler(timezone="UTC")
        # That a round was left out because the one before still runs is how it should be.
        logging.getLogger("apscheduler").setLevel(logging.ERROR)
        self._groups: set[asyncio.Task[None]] = set()
        self._merged = False
        self._looked_at = clock.monotonic()

    @property
    def store_answers(self) -> bool:
        """Whether all kills known here are in the database, which is what ticks wait for."""
        return self._merged

    def start(self) -> None:
        self.every(self._poll_seconds, "tick", self._tick)
        self.every(self._lease_seconds / RENEWALS_PER_LEASE, "renew", self._renew)
        self.every(KILL_RETRY_SECONDS, "kill_retry", self._killer.retry)
        self.every(KILL_SWEEP_SECONDS, "kill_sweep", self._killer.sweep)
        self.every(MERGE_SECONDS, "merge", self._merge)
        self._timers.start()

    def every(self, seconds: float, name: str, work: Callable[[], Awaitable[None]]) -> None:
        self._timers.add_job(
            _guarded(name, work), "interval", seconds=seconds, id=name, max_instances=1, coalesce=True,
            misfire_grace_time=None, next_run_time=self._clock.now(),
        )  # fmt: skip

    async def stop(self) -> None:
        self._timers.shutdown(wait=False)
        if self._groups:
            await asyncio.wait(self._groups, timeout=5.0)

    async def _tick(self) -> None:
        if not self._merged:
            await self._reconciler.tick_blind()
            return
        began = self._clock.monotonic()
        lag, self._looked_at = max(began - self._looked_at - self._poll_seconds, 0.0), began
        try:
            groups = await self._reconciler.claim()
        except StoreUnavailable as error:
            self._lose(error)
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
        if self._merged:
            await self._reconciler.renew()

    async def _merge(self) -> None:
        """After an outage nothing may rise before every kill accepted meanwhile is in the database."""
        try:
            if self._merged:
                await self._killer.merge()
                return
            await self._killer.forgotten()
        except StoreUnavailable as error:
            self._lose(error)
            return
        self._merged = all(held.merged for held in self._killer.in_force())
        if self._merged:
            log.info("database_answers")

    def _lose(self, error: StoreUnavailable) -> None:
        if self._merged:
            log.error("database_lost", error=str(error))
        self._merged = False

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
