"""One life of one replica: what it has running ends with it, and it can be frozen in the middle of anything."""

import asyncio
from collections.abc import Coroutine
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")

CURRENT: ContextVar["Process | None"] = ContextVar("process", default=None)


class Process:
    """Every port of a replica passes `gate` before and after it does anything outside."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.tasks: dict[asyncio.Task[Any], None] = {}  # in order: a set's would differ from run to run
        self._thawed: asyncio.Event | None = None

    @property
    def frozen(self) -> bool:
        return self._thawed is not None

    async def gate(self) -> None:
        while self._thawed is not None:
            await self._thawed.wait()
        if not self.alive:
            await asyncio.Event().wait()  # the dead do nothing, not even fail

    def freeze(self) -> None:
        self._thawed = asyncio.Event()

    def thaw(self) -> None:
        if self._thawed is not None:
            self._thawed.set()
            self._thawed = None

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        token = CURRENT.set(self)
        try:
            return asyncio.get_running_loop().create_task(work)
        finally:
            CURRENT.reset(token)

    def forget(self, task: asyncio.Task[Any]) -> None:
        self.tasks.pop(task, None)

    def kill(self) -> None:
        """SIGKILL: nothing more comes out of it."""
        self.alive = False
        for task in list(self.tasks):
            task.cancel()
        self.thaw()


def owned_task(loop: asyncio.AbstractEventLoop, work: Any, context: Any = None) -> asyncio.Task[Any]:
    """A task factory: whatever a process starts belongs to it."""
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, context=context)
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # the end of a world is the end of all in it
    process = CURRENT.get()
    if process is not None:
        process.tasks[task] = None
        task.add_done_callback(process.forget)
    return task


class Interval:
    """A job of `LoopTimers`."""

    def __init__(self, seconds: float, work: Any) -> None:
        self.seconds = seconds
        self.work = work
        self.nudged = asyncio.Event()


class LoopTimers:
    """`ports.Timers` on the virtual loop. Never the same job twice at once; what was missed is not made up for."""

    def __init__(self, process: Process, first: Any) -> None:
        self._process = process
        self._first = first
        self._jobs: dict[str, Interval] = {}

    def every(self, seconds: float, name: str, work: Any) -> None:
        job = self._jobs[name] = Interval(seconds, work)
        self._process.start(self._repeat(job))

    def now(self, name: str) -> None:
        if name in self._jobs:
            self._jobs[name].nudged.set()

    def start(self) -> None:
        """Each job runs from `every` on."""

    def stop(self) -> None:
        self._jobs.clear()

    async def _repeat(self, job: Interval) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + self._first(job.seconds)
        while True:
            await asyncio.sleep(max(due - loop.time(), 0.0))
            await self._process.gate()
            await job.work()
            due += job.seconds
            if due < loop.time():
                due = loop.time() + job.seconds
