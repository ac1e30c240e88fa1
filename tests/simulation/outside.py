"""Models of everything else a replica touches: a flag back end, traffic, a disk, and the other replicas."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from controller.domain.catalogue import KillRecord, PeerAnswer
from controller.domain.evidence import Question, RatioQuestion, Reading
from controller.domain.flag import FlagChange, FlagKill, FlagState, Observation, ProviderLimits, SetShare, Unknown
from controller.domain.plan import FlagRef, RolloutPlan
from controller.errors import ProviderUnavailable

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.promises import Promises

OFF = FlagState(enabled=False, exposure=0, off_serves="off")
LATEST_SECONDS = 6.0
"""How long after its request a write of this back end may still land."""

STALE_SECONDS = 3.0


class Backend:
    """The flags of a vendor, and how its API misbehaves. `cut`: replicas that cannot reach it."""

    def __init__(self, chance: Random, now: Callable[[], float], promises: "Promises") -> None:
        self.chance = chance
        self.now = now
        self.promises = promises
        self.flags: dict[FlagRef, FlagState] = {}
        self.past: dict[FlagRef, deque[tuple[float, FlagState]]] = {}
        self.cut: set[str] = set()
        self.rates: dict[str, float] = {}

    def put(self, flag: FlagRef, state: FlagState, *, by: str, late: bool = False) -> None:
        before = self.flags.get(flag, OFF)
        self.flags[flag] = state
        self.past.setdefault(flag, deque(maxlen=20)).append((self.now(), before))
        self.promises.flag_changed(flag, before, state, by=by, late=late)

    def seen(self, flag: FlagRef, *, stale: bool) -> Observation:
        if flag not in self.flags:
            return Unknown("no such flag")
        since = self.now() - STALE_SECONDS
        older = [state for at, state in self.past.get(flag, ()) if at > since] if stale else []
        return older[0] if older else self.flags[flag]

    def fate(self, *fates: str) -> str:
        if not self.rates:
            return ""
        drawn = self.chance.random()
        for fate in fates:
            drawn -= self.rates.get(fate, 0.0)
            if drawn < 0:
                self.promises.count(f"provider: {fate}")
                return fate
        return ""


class Provider:
    """`ports.FlagProvider` of one process, in front of the shared back end."""

    def __init__(self, process: "Process", backend: Backend) -> None:
        self._process = process
        self._backend = backend

    limits = ProviderLimits(settle_seconds=5.0)

    async def objections(self, plan: RolloutPlan) -> Sequence[str]:
        return []

    async def observe(self, flags: Collection[FlagRef]) -> Mapping[FlagRef, Observation]:
        try:
            await self._travel()
        except ProviderUnavailable as error:
            return {flag: Unknown(str(error)) for flag in flags}
        fate = self._backend.fate("unreadable", "stale")
        if fate == "unreadable":
            return {flag: Unknown("503") for flag in flags}
        seen = {flag: self._backend.seen(flag, stale=fate == "stale") for flag in flags}
        await self._process.gate()
        return seen

    async def apply(self, change: FlagChange) -> None:
        if isinstance(change, SetShare):
            names = tuple(rule.name for rule in change.audience)

            def changed(state: FlagState) -> FlagState:
                return replace(state, exposure=change.exposure, audience=names)
        else:

            def changed(state: FlagState) -> FlagState:
                return replace(state, enabled=True)

        self._backend.promises.writing(self._process, change)
        await self._write(change.flag, changed)

    async def kill(self, kill: FlagKill) -> Sequence[str]:
        await self._write(kill.flag, lambda _: OFF)
        return ()

    async def settle_kill(self, kill: FlagKill) -> None:
        """What is off stays off by itself."""

    async def forget_kill(self, kill: FlagKill) -> None:
        """There is nothing to forget."""

    async def close(self) -> None:
        """Nothing is held open."""

    async def _travel(self) -> None:
        await self._process.gate()
        if self._process.name in self._backend.cut:
            await asyncio.sleep(0.01)
            raise ProviderUnavailable("cannot connect", not_applied=True)
        slow = self._backend.fate("slow")
        await asyncio.sleep(self._backend.chance.random() * (3.0 if slow else 0.03))
        await self._process.gate()

    async def _write(self, flag: FlagRef, changed: Callable[[FlagState], FlagState]) -> None:
        await self._travel()
        backend, by, loop = self._backend, self._process.name, asyncio.get_running_loop()
        fate = backend.fate("refused", "lost", "late", "twice", "lying")
        if fate == "refused":
            raise ProviderUnavailable("503", not_applied=True)
        if fate == "lying":
            return

        def land(late: bool) -> None:
            backend.put(flag, changed(backend.flags.get(flag, OFF)), by=by, late=late)

        if fate == "late":
            loop.call_later(backend.chance.uniform(0.1, LATEST_SECONDS), land, True)
            raise ProviderUnavailable("timed out")
        land(False)
        if fate == "twice":
            loop.call_later(backend.chance.uniform(0.1, LATEST_SECONDS), land, True)
        if fate == "lost":
            raise ProviderUnavailable("the connection was reset")
        await self._process.gate()


class Traffic:
    """What the metrics show of each flag: `moods` change over time, and everybody sees the same."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.moods: dict[str, str] = {}
        self.failing: set[str] = set()


class Source:
    """`ports.MetricSource` of one process."""

    def __init__(self, process: "Process", traffic: Traffic, chance: Random) -> None:
        self._process = process
        self._traffic = traffic
        self._chance = chance
        self._known: dict[Question, tuple[str, str]] = {}

    async def measure(self, questions: Collection[Question]) -> Mapping[Question, Reading]:
        await self._process.gate()
        await asyncio.sleep(self._chance.random() * 0.02)
        if self._process.name in self._traffic.failing:
            return {question: Reading(query="q", failure="cannot connect") for question in questions}
        answers = {question: self._answer(question) for question in questions}
        await self._process.gate()
        return answers

    def _answer(self, question: Question) -> Reading:
        if question not in self._known:
            assert isinstance(question, RatioQuestion)
            _, _, rest = question.total.partition('flag="')
            flag, _, rest = rest.partition('"')
            self._known[question] = flag, rest.partition('variation="')[2].partition('"')[0]
        flag, variation = self._known[question]
        mood = self._traffic.moods.get(flag, "healthy")
        treated = variation == "on"
        match mood:
            case "silent" if treated:
                return Reading(query="q", bad=None, total=None)
            case "bad" if treated:
                return Reading(query="q", bad=300.0, total=1000.0, age_seconds=1.0)
            case "shaky" if treated:
                return Reading(query="q", bad=30.0, total=1000.0, age_seconds=1.0)
            case "outage":
                return Reading(query="q", bad=300.0, total=1000.0, age_seconds=1.0)
            case "few" if treated:
                return Reading(query="q", bad=0.0, total=10.0, age_seconds=1.0)
            case "nan" if treated:
                return Reading(query="q", bad=float("nan"), total=float("nan"), age_seconds=1.0)
            case "stale" if treated:
                return Reading(query="q", bad=0.0, total=1000.0, age_seconds=600.0)
            case "doubled" if treated:
                return Reading(query="q", bad=0.0, total=1000.0, age_seconds=1.0, series=2)
        return Reading(query="q", bad=1.0, total=1000.0, age_seconds=1.0)

    async def close(self) -> None:
        """Nothing is held open."""


class Platter:
    """What a crash leaves of a replica's files: `safe` is on disk, `pending` may be, or half of it."""

    def __init__(self) -> None:
        self.safe = b""
        self.pending = b""
        self.full = False
        self.replicas: tuple[str, ...] = ()

    def crash(self, chance: Random) -> None:
        self.safe += self.pending[: chance.randint(0, len(self.pending))]
        self.pending = b""


class ModelDisk:
    """`ports.Disk` of one process on its replica's platter."""

    def __init__(self, process: "Process", platter: Platter, chance: Random) -> None:
        self._process = process
        self._platter = platter
        self._chance = chance

    def read(self) -> bytes:
        return self._platter.safe

    def rewrite(self, content: bytes) -> None:
        self._platter.safe = content

    async def append(self, line: bytes) -> bool:
        await self._process.gate()
        if self._platter.full:
            return False
        self._platter.pending += line
        await asyncio.sleep(self._chance.random() * 0.01)
        await self._process.gate()
        self._platter.safe += self._platter.pending
        self._platter.pending = b""
        return True

    def close(self) -> None:
        """Nothing is held open."""


class ModelPeers:
    """`ports.Peers` of one process: a direct way to every other replica that lives and can be reached."""

    def __init__(self, process: "Process", others: Callable[[str], Sequence[Any]], chance: Random) -> None:
        self._process = process
        self._others = others
        self._chance = chance

    async def tell(self, kills: Sequence[KillRecord]) -> AsyncIterator[PeerAnswer]:
        await self._process.gate()
        asked = [asyncio.ensure_future(self._ask(other, kills)) for other in self._others(self._process.name)]
        answers = await asyncio.gather(*asked)
        await self._process.gate()
        for answer in answers:
            if answer is not None:
                yield answer

    async def _ask(self, other: Any, kills: Sequence[KillRecord]) -> PeerAnswer | None:
        await asyncio.sleep(self._chance.random() * 0.004)
        hearing = other.process.start(other.hear(kills))
        await asyncio.wait({hearing}, timeout=1.0)
        if not hearing.done() or hearing.cancelled():
            return None
        answer: PeerAnswer = hearing.result()
        await asyncio.sleep(self._chance.random() * 0.004)
        return answer

    async def close(self) -> None:
        """Nothing is held open."""
