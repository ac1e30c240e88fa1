"""APScheduler as `ports.Timers`: in-memory timers of this process, nothing shared, nothing stored."""

import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from random import Random

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from controller.ports import Clock


class ApschedulerTimers:
    """The first round of each job is put off by a random part of its interval, at most `spread_seconds`.

    So replicas that start together do not ask everything at the same instant for ever after.
    """

    def __init__(self, clock: Clock, chance: Random, *, spread_seconds: float = 1.0) -> None:
        self._clock = clock
        self._chance = chance
        self._spread = spread_seconds
        self._timers = AsyncIOScheduler(timezone="UTC")
        # That a round was left out because the one before still runs is how it should be.
        logging.getLogger("apscheduler").setLevel(logging.ERROR)

    def every(self, seconds: float, name: str, work: Callable[[], Awaitable[None]]) -> None:
        first = self._clock.now() + timedelta(seconds=self._chance.uniform(0, min(seconds, self._spread)))
        self._timers.add_job(
            work, "interval", seconds=seconds, id=name, max_instances=1, coalesce=True,
            misfire_grace_time=None, next_run_time=first,
        )  # fmt: skip

    def now(self, name: str) -> None:
        if self._timers.get_job(name) is not None:
            self._timers.modify_job(name, next_run_time=self._clock.now())

    def start(self) -> None:
        self._timers.start()

    def stop(self) -> None:
        self._timers.shutdown(wait=False)
