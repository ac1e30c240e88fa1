"""A kill against everything else that people may order at the same moment, at any replica.

The world is calm but for its latencies. A rollout is brought somewhere, then a kill and a handful of other
commands are given within a moment of each other; what each meets of the others is drawn from the seed.
"""

import asyncio
from random import Random

from msgspec.structs import replace

from controller.errors import RampartError
from tests.simulation.people import DANA, KIM
from tests.simulation.world import PLANS, World

RIVALS = ("advance", "resume", "approve", "adopt", "reset", "start", "advance", "resume")
SETTLING_SECONDS = 40.0


class Race(World):
    """`live` ends with a killed flag, unless a person reset exactly that kill."""

    def __init__(self, seed: int, *, telling: bool = False) -> None:
        super().__init__(seed, telling=telling)
        self._chance = Random(f"{seed}/race")
        self.plan = self._chance.choice(("vendor", "builtin", "gated"))
        self.plans = [self.plan]
        self.flags = {self.plan: PLANS[self.plan].spec.flag}
        self.builtin_flags = [flag for flag in self.flags.values() if flag.provider == "main"]

    async def live(self) -> None:
        await self._prepare()
        for machine in self.machines:
            machine.start()
        await asyncio.sleep(4.0)
        await self._order("start", 0.0)
        await asyncio.sleep(self._chance.choice((0.0, 0.5, 2.0, 6.0, 40.0, 75.0)) + self._chance.random())
        if self._chance.random() < 0.4:
            await self._order("pause", 0.0)
            await asyncio.sleep(self._chance.choice((0.05, 2.0)))
        if self._chance.random() < 0.3:
            await self._order("kill", 0.0)
            await asyncio.sleep(self._chance.choice((0.01, 1.0)))
        if self._chance.random() < 0.5:
            await self._new_revision()
        within = self._chance.choice((0.01, 0.05, 0.3))
        rivals = [self._chance.choice(RIVALS) for _ in range(self._chance.randint(2, 6))]
        orders = ["kill", *rivals]
        await asyncio.gather(*(self._order(order, self._chance.random() * within) for order in orders))
        await asyncio.sleep(SETTLING_SECONDS)
        # A run that somebody started after a reset goes on, and may be between two steps at any given moment.
        await self._calm_down()
        self.promises.conclude()

    async def _new_revision(self) -> None:
        """Something to adopt."""
        plan = PLANS[self.plan]
        changed = replace(plan, metadata=replace(plan.metadata, owner=f"team-{self.seed}"))
        await self.database.store.save_plan(changed, self.entry("save_plan"))

    async def _order(self, order: str, after: float) -> None:
        await asyncio.sleep(after)
        self.promises.count(f"race: {order}")
        machine = self._chance.choice(self.machines)
        engine, flag = machine.engine, self.flags[self.plan]
        self.promises.tell(f"somebody asks {machine.name} to {order}")
        try:
            match order:
                case "kill":
                    await self._kill(machine.name)
                case "reset":
                    kill_ids = engine.killbook.holds(flag)
                    self.promises.released(kill_ids)
                    await engine.kill_ledger.reset(
                        key=self.plan, environment=None, provider=None, kill_ids=kill_ids, actor=DANA, note=""
                    )
                case "approve":
                    await engine.commands.approve(self.plan, KIM, "")
                case command:
                    await getattr(engine.commands, command)(self.plan, DANA, "")
        except RampartError as error:
            self.promises.tell(f"{machine.name} refused to {order}: {error}")

    async def _kill(self, name: str) -> None:
        machine, began = self.machine(name), self.now()
        (receipt,) = await machine.engine.killer.kill(
            key=self.plan, environment="production", provider=None, actor=DANA, reason="INC-1"
        )
        self.promises.answered(machine, receipt.kill_id, receipt.flag, receipt.durable, began)
