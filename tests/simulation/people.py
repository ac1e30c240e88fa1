"""People: they start, hurry, pause, approve, kill, reset and edit by hand, at any replica, at the worst time."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING

from msgspec.structs import replace

from controller.access import Actor
from controller.domain.catalogue import SCOPES
from controller.domain.flag import FlagState
from controller.domain.freezes import OrganisationFreeze
from controller.errors import RampartError, Unavailable
from tests.simulation.outside import OFF

if TYPE_CHECKING:
    from tests.simulation.replica import Machine
    from tests.simulation.world import World

DANA = Actor(name="dana", scopes=SCOPES)
KIM = Actor(name="kim", scopes=SCOPES)

HABITS = (
    ("start", 8), ("advance", 4), ("pause", 2), ("resume", 5), ("step_back", 1), ("approve", 5), ("abandon", 1),
    ("kill", 4), ("reset", 6), ("edit", 2), ("release", 2), ("adopt", 1),
    ("take_over", 2), ("beside", 5), ("freeze", 1), ("lift", 1),
)  # fmt: skip


class People:
    """`active` until faults stop; then they only tidy up what needs a person."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._chance = Random(f"{world.seed}/people")
        self.active = True
        self.kills = 0

    async def life(self) -> None:
        for plan in self._world.plans:
            await self._do("start", plan)
        while self.active:
            await asyncio.sleep(self._chance.expovariate(1 / self._world.hurry))
            if self.active:
                names, weights = zip(*HABITS, strict=True)
                (habit,) = self._chance.choices(names, weights)
                await self._do(habit, self._chance.choice(self._world.plans))

    async def _do(self, habit: str, plan: str) -> None:
        """A person waits for the answer, but not for ever; the command goes on without them."""
        machine = self._anybody()
        if habit in ("edit", "beside"):
            self._at_the_vendor(habit)
        elif machine is not None:
            task = machine.process.start(self._asked(machine, habit, plan))
            await asyncio.wait({task}, timeout=self._chance.choice((0.0, 0.05, 6.0)))

    def _anybody(self) -> "Machine | None":
        up = [machine for machine in self._world.machines if machine.up]
        return self._chance.choice(up) if up else None

    async def _asked(self, machine: "Machine", habit: str, plan: str) -> None:
        await machine.process.gate()
        self._world.promises.tell(f"somebody asks {machine.name} to {habit} {plan}")
        try:
            match habit:
                case "kill":
                    await self._kill(machine, plan)
                case "reset":
                    await self._reset(machine, plan)
                case "release":
                    await self.release(machine)
                case "approve":
                    await machine.engine.commands.approve(plan, KIM, "")
                case "take_over":
                    await machine.engine.commands.take_over(plan, None, DANA, "")
                case "freeze":
                    await self._freeze(machine)
                case "lift":
                    await self._lift(machine)
                case command:
                    order: Callable[[str, Actor, str], Awaitable[object]]
                    order = getattr(machine.engine.commands, command)
                    await order(plan, DANA, "")
        except (RampartError, TimeoutError) as error:
            self._world.promises.tell(f"{machine.name} refused to {habit} {plan}: {error}")

    async def _kill(self, machine: "Machine", plan: str) -> None:
        began, killer = self._world.now(), machine.engine.killer
        self.kills += 1
        for receipt in await killer.kill(
            key=plan, environment="production", provider=None, actor=DANA, reason="INC-1"
        ):
            await machine.process.gate()
            self._world.promises.answered(machine, receipt.kill_id, receipt.flag, receipt.durable, began)

    async def _reset(self, machine: "Machine", plan: str) -> None:
        engine, flag = machine.engine, self._world.flags[plan]
        kill_ids = engine.killbook.holds(flag)
        if kill_ids:
            self._world.promises.released(kill_ids)
            await engine.kill_ledger.reset(
                key=plan, environment=None, provider=None, kill_ids=kill_ids, actor=DANA, note=""
            )

    async def _freeze(self, machine: "Machine") -> None:
        """For a moment, by the clock of whoever is asked."""
        now, entry = machine.clock.now(), self._world.entry("add_freeze")
        freeze = OrganisationFreeze(
            name=entry.id,
            starts_at=now,
            ends_at=now + timedelta(seconds=self._chance.uniform(1.0, 20.0)),
            added_by="dana",
            added_at=now,
            reason="",
        )
        await machine.engine.store.add_freeze(freeze, replace(entry, at=now))

    async def _lift(self, machine: "Machine") -> None:
        now = machine.clock.now()
        standing = [one for one in await machine.engine.store.freezes() if not one.is_over(now)]
        if standing:
            lifted = replace(standing[0], lifted_at=now, lifted_by="dana")
            await machine.engine.store.lift_freeze(lifted, replace(self._world.entry("lift_freeze"), at=now))

    async def release(self, machine: "Machine") -> None:
        """Only who sees an obstacle removes it: that is what the page shows them."""
        if machine.engine.presence.obstacles:
            entry = self._world.entry("release_raises")
            try:
                await machine.engine.store.release_raises(entry)
            except Unavailable:
                return

    def _at_the_vendor(self, habit: str) -> None:
        """In the vendor's own user interface."""
        if not self._world.backend.flags:
            return
        flag = self._chance.choice(list(self._world.backend.flags))
        state = self._world.backend.flags[flag]
        edited = self._edited(state) if habit == "edit" else self._beside(state)
        self._world.promises.count("provider: edited by hand")
        self._world.backend.put(flag, edited, by="hand")

    def _beside(self, state: FlagState) -> FlagState:
        """Not the share, but who is served beside it or in it."""
        if self._chance.random() < 0.3:
            return replace(state, bucketing=self._chance.choice(("by key", "by email")))
        return replace(state, foreign=self._chance.choice(((), ("rule by hand",), ("segment beta",))))

    def _edited(self, state: FlagState) -> FlagState:
        exposure = self._chance.choice((0, 5_000, 30_000, 100_000))
        return self._chance.choice(
            (
                replace(state, exposure=exposure),
                replace(state, enabled=not state.enabled),
                replace(state, audience=()),
                OFF,
            )
        )
