"""What an order to kill several flags would hit. Answered from memory when the database does not answer."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from controller.access import Actor
from controller.domain.plan import FlagRef
from controller.domain.rollout import Phase
from controller.domain.selection import KillPreview, KillTarget, Raised, Selection
from controller.domain.status import KillStatus
from controller.errors import StoreUnavailable
from controller.lastknown import KnownFlag
from controller.ports import Store
from controller.raised import RaisedBook
from controller.recent import Recent

LOOK_SECONDS = 0.5
"""A kill waits no longer than this for a database that hangs."""


class KillBook(Protocol):
    def known(self) -> list[KnownFlag]: ...
    def kills_of(self, flag: FlagRef) -> list[KillStatus]: ...


class Shown(Struct, frozen=True):
    run: str
    phase: Phase
    exposure: int


class KillSelector:
    def __init__(self, *, killbook: KillBook, raised: RaisedBook, recent: Recent, store: Store) -> None:
        self._killbook = killbook
        self._raised = raised
        self._recent = recent
        self._store = store

    async def preview(self, selection: Selection, actor: Actor) -> KillPreview:
        heard = await self._raised.read_on_within(LOOK_SECONDS)
        shown = await self._from_database() if heard else None
        targets = self._targets(selection, actor, self._from_memory() if shown is None else shown)
        return KillPreview(
            targets=[one for one in targets if not self._killbook.kills_of(one.flag)],
            killed=[one for one in targets if self._killbook.kills_of(one.flag)],
            doubts=[] if shown is not None else [self._doubt()],
        )

    def _doubt(self) -> str:
        until = self._raised.known_until
        since = f"since {until:%H:%M:%S} UTC" if until else "since this replica started"
        return (
            f"the database does not answer: plans that were applied and flags that other replicas raised {since} "
            "may be missing here, and exposures are those that were seen last"
        )

    def _targets(self, selection: Selection, actor: Actor, shown: Mapping[FlagRef, Shown]) -> Sequence[KillTarget]:
        plans: dict[FlagRef, list[KnownFlag]] = {}
        for known in self._killbook.known():
            plans.setdefault(known.flag, []).append(known)
        flags = plans.keys() | {raised.flag for raised in self._raised.all()}
        targets = [
            _target(flag, plans.get(flag, ()), raised, shown.get(flag), actor)
            for flag in flags
            if selection.selects(
                flag, [one.labels for one in plans.get(flag, ())], raised := self._raised.of(flag)
            )
        ]
        return sorted(targets, key=lambda one: (-(one.exposure if one.exposure is not None else 1), one.flag))

    async def _from_database(self) -> Mapping[FlagRef, Shown] | None:
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                runs = await self._store.latest_runs()
        except (StoreUnavailable, TimeoutError):
            return None
        oldest_first = sorted((run for run, _ in runs), key=lambda run: (run.active, run.created_at))
        return {run.flag: Shown(run.id, run.phase, run.exposure) for run in oldest_first}

    def _from_memory(self) -> Mapping[FlagRef, Shown]:
        statuses = sorted((one.status for one in self._recent.all()), key=lambda status: status.created_at)
        return {one.flag: Shown(one.id, one.phase, one.desired_exposure) for one in statuses}


def _target(
    flag: FlagRef, plans: Iterable[KnownFlag], raised: Raised | None, shown: Shown | None, actor: Actor
) -> KillTarget:
    named = sorted({one.plan for one in plans} | ({raised.plan} if raised else set()))
    return KillTarget(
        flag=flag,
        plans=named,
        owner=", ".join(sorted({one.owner for one in plans if one.owner})),
        run=shown.run if shown else raised.run if raised else None,
        phase=shown.phase if shown else None,
        exposure=shown.exposure if shown else raised.exposure if raised else None,
        raised_at=raised.at if raised else None,
        allowed=actor.may("kill", flag.environment),
    )
