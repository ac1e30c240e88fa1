"""One simulated world: three replicas, a database, a vendor, traffic, people, faults, and the promises."""

import asyncio
import functools
import logging
import sys
import traceback
import uuid
from collections.abc import Iterator, MutableMapping
from random import Random
from typing import Any

import msgspec
import structlog
from msgspec import Struct

from controller.domain.audit import AuditEntry
from controller.domain.catalogue import FlagConfig
from controller.domain.consequences import share_of_run
from controller.domain.evidence import Reading
from controller.domain.flag import FlagSpec, FlagState
from controller.domain.plan import FlagRef, RolloutPlan
from controller.domain.policy import GuardrailPolicy
from controller.domain.rollout import Accepted, Observations, Run
from controller.domain.sdkflag import new_flag, state_of, turned_on, with_share
from tests.simulation.database import Database
from tests.simulation.faults import Faults
from tests.simulation.loop import VirtualLoop
from tests.simulation.outside import OFF, Backend, Traffic
from tests.simulation.people import People
from tests.simulation.process import owned_task
from tests.simulation.promises import Promises, Violation
from tests.simulation.replica import BEGIN, Machine
from tests.support.rollouts import PLAN, POLICY, merged

REPLICAS = ("web-1", "web-2", "web-3")
CALM_SECONDS = 60.0
"""Within which everything must be well: presence, a late check-in, half a lease and the provider's timeout until
the last kill may be confirmed (14.5), a lease to take over (9), two polls (10), settling (5), a late write (6),
the sweep that lowers it (5), and a person who looks every four seconds."""

LEAST_CALM_SECONDS = 7.0
LOOK_SECONDS = 4.0

POLICY_CHANGES: dict[str, Any] = {
    "spec": {
        "every": "5s",
        "window": "15s",
        "baseline": {"from": "control", "fallback": "before", "before": "60s"},
        "metrics": {"error_rate": POLICY["spec"]["metrics"]["error_rate"]},
        "rules": [
            {"id": "errors-high", "if": "error_rate > 1%", "for": "15s", "then": "pause"},
            {"id": "errors-jump", "if": "error_rate > 10%", "for": "10s", "then": "kill"},
            {
                "id": "errors-5x",
                "if": "error_rate > 5x baseline",
                "floor": "1%",
                "for": "10s",
                "then": "step_back",
            },
        ],
        "noData": {"after": "20s", "then": "pause"},
        "queryError": {"after": "20s", "then": "hold"},
    }
}


def _policy() -> GuardrailPolicy:
    document = {**POLICY, "spec": {**POLICY["spec"], **POLICY_CHANGES["spec"]}}
    return msgspec.convert(document, GuardrailPolicy)


def _plan(provider: str, name: str, *, gated: bool) -> RolloutPlan:
    stages: list[dict[str, Any]] = [
        {"name": "canary", "exposure": "1%", "bake": "15s"},
        {"name": "early", "exposure": "10%", "bake": "10s"},
        {"name": "half", "exposure": "50%", "bake": "10s"},
        {"name": "everyone", "exposure": "100%", "bake": "10s"},
    ]
    if gated:
        stages[1]["approval"] = {"from": ["managers"], "timeout": "24h"}
    changes = {
        "metadata": {"name": name},
        "spec": {"flag": {"provider": provider, "key": name}, "stages": stages},
    }
    return msgspec.convert(merged(PLAN, changes), RolloutPlan)


POLICY_DOCUMENT = _policy()
PLANS = {
    "vendor": _plan("vendor", "vendor", gated=False),
    "builtin": _plan("main", "builtin", gated=False),
    "gated": _plan("vendor", "gated", gated=True),
}


HEALTHY = Reading(query="q", bad=1.0, total=1000.0, age_seconds=1.0)


class Report(Struct, kw_only=True):
    """What one seed did. `violation` is None when every promise was kept."""

    seed: int
    simulated_seconds: float
    faults: dict[str, int]
    checks: dict[str, int]
    commits: int
    kills: int
    completed: int
    fingerprint: str
    violation: str | None = None
    story: list[str] = []


class World:
    """Everything random in it comes from `seed`. `telling` keeps the whole story."""

    def __init__(self, seed: int, *, telling: bool = False) -> None:
        self.seed = seed
        self.telling = telling
        chance = self._chance = Random(f"{seed}/world")
        self.loop = VirtualLoop(Random(f"{seed}/loop"))
        self.loop.set_task_factory(owned_task)
        self.now = self.loop.time
        self.begin = BEGIN.timestamp()
        self.promises = Promises(self)
        self.database = Database(chance, self.now, self.promises)
        self.backend = Backend(chance, self.now, self.promises)
        self.traffic = Traffic(self.now)
        self.clock_jumped = False
        self.cut_peers: set[tuple[str, str]] = set()
        self.machines = [Machine(self, name) for name in REPLICAS]
        self._by_name = {machine.name: machine for machine in self.machines}
        chosen = chance.choice((["vendor"], ["builtin"], ["vendor", "builtin"], ["gated", "builtin"]))
        self.plans = chosen
        self.flags = {name: PLANS[name].spec.flag for name in chosen}
        self.builtin_flags = [flag for flag in self.flags.values() if flag.provider == "main"]
        self.hurry = chance.choice((1.0, 4.0, 15.0))
        self.calmness = chance.choice((1.0, 2.0, 5.0))
        self.stormy_seconds = chance.choices((10.0, 30.0, 60.0, 120.0), (75, 15, 6, 4))[0]
        if chance.random() < 0.05:
            # Mild and long, so that rollouts climb all their stages and complete.
            self.hurry, self.calmness, self.stormy_seconds = 40.0, 15.0, 240.0
        self.people = People(self)
        self.faults = Faults(self)
        self._kept: set[asyncio.Future[Any]] = set()
        self._entries = 0

    # — what others ask of it —

    def machine(self, name: str) -> Machine:
        return self._by_name[name]

    def peers_of(self, name: str) -> list[Machine]:
        return [
            machine
            for machine in self.machines
            if machine.name != name and machine.up and (name, machine.name) not in self.cut_peers
        ]

    def somebody_knows(self, kill_id: str) -> bool:
        """A kill that is in no journal and no memory any more cannot be respected; `durable` said as much."""
        return any(
            kill_id.encode() in machine.platter.safe
            or (machine.up and any(held.kill.id == kill_id for held in machine.engine.killbook.in_force()))
            for machine in self.machines
        )

    def keep(self, task: asyncio.Future[Any]) -> None:
        self._kept.add(task)

    def entry(self, action: str) -> AuditEntry:
        self._entries += 1
        return AuditEntry(
            id=f"{action}-{self._entries}", at=BEGIN, actor="dana", action=action, cause="user", subject="test",
            environment="production", reason=action,
        )  # fmt: skip

    def shown(self, machine: Machine, flag: FlagRef) -> FlagState:
        if flag.provider == "vendor":
            return self.backend.flags[flag]
        config = machine.board.shown(flag)
        assert config is not None
        return state_of(config)

    def stored(self, flag: FlagRef) -> FlagConfig:
        return self.database.store._flags[flag.environment, flag.key]

    def audited_versions(self) -> Iterator[tuple[str | None, int | None]]:
        for row in self.database.store.chain:
            entry = msgspec.json.decode(row.body, type=AuditEntry)
            yield entry.run, entry.run_version

    # — its life —

    async def live(self) -> None:
        await self._prepare()
        for machine in self.machines:
            machine.start()
        await asyncio.sleep(2.5)
        living = [self.loop.create_task(self.people.life()), self.loop.create_task(self.faults.life())]
        await self._until(self.now() + self.stormy_seconds, living)
        self.people.active = False
        self._check()
        self.promises.tell("the faults stop")
        self.faults.stop()
        await self._calm_down()
        self.promises.conclude()

    async def _until(self, end: float, living: list[asyncio.Task[None]]) -> None:
        while self.now() < end:
            await asyncio.wait(living, timeout=min(end - self.now(), 10.0))
            self._check()
            for one in living:
                if one.done():
                    await one

    def _check(self) -> None:
        """A violation in the middle of a replica's work was raised there, and perhaps caught there."""
        if self.promises.broken:
            raise Violation(self.promises.broken)

    async def _calm_down(self) -> None:
        """A person looks now and then whether something needs one."""
        began = self.now()
        while self.now() < began + CALM_SECONDS:
            await asyncio.sleep(LOOK_SECONDS)
            self._check()
            if self.now() > began + LEAST_CALM_SECONDS and self.promises.converged():
                return
            for machine in self.machines:
                if machine.up and not machine.process.frozen:
                    await self.people.release(machine)

    async def _prepare(self) -> None:
        store = self.database.store
        await store.save_policy(POLICY_DOCUMENT, self.entry("save_policy"))
        for name in self.plans:
            flag = self.flags[name]
            await store.save_plan(PLANS[name], self.entry("save_plan"))
            if flag.provider == "vendor":
                self.backend.flags[flag] = OFF
            else:
                await store.save_flag_config(new_flag(FlagSpec(environment=flag.environment, key=flag.key), 1))
            if self._chance.random() < 0.7:
                await self._under_way(name, PLANS[name], flag)

    async def _under_way(self, name: str, plan: RolloutPlan, flag: FlagRef) -> None:
        """A rollout that has climbed to some stage, confirmed long ago and nearly baked."""
        store, stage = self.database.store, self._chance.randrange(len(plan.spec.stages))
        share = plan.spec.stages[stage].share
        run = Run(
            id=name, plan=name, number=0, plan_revision=1, policy_revisions={"web": 1}, flag=flag, author="dana",
            started_by="dana", created_at=BEGIN, phase="progressing", stage=stage, exposure=share, audience=True,
            confirmed_exposure=share, confirmed_audience=True, confirmed_at=BEGIN, turned_on=True,
            accepted=Accepted(off_serves="off", ours=True),
            baselines_before={"web/error_rate": HEALTHY}, baselines_control={"web/error_rate": HEALTHY},
        )  # fmt: skip
        created = await store.create_run(run, self.entry("authorise"))
        baked = plan.spec.stages[stage].bake_seconds - self._chance.choice((0.0, 5.0, 10.0))
        store.rows[created.id].observations = Observations(
            run_version=created.version, since_confirmed=1000.0, bake=baked, requests=1e6
        )
        self.promises.under_way(created)
        if flag.provider == "vendor":
            self.backend.flags[flag] = FlagState(
                enabled=True, exposure=share, audience=("staff",), off_serves="off"
            )
            return
        change = share_of_run(created, plan, "under way")
        config = self.stored(flag)
        await store.save_flag_config(turned_on(with_share(config, change, 2), 3))

    def report(self, violation: str | None) -> Report:
        store = self.database.store
        phases = [row.run.phase for row in store.rows.values()]
        head = store.chain[-1].hash.hex()[:16] if store.chain else ""
        return Report(
            seed=self.seed,
            simulated_seconds=self.now(),
            faults=dict(self.promises.faults),
            checks=dict(self.promises.checks),
            commits=len(store.chain),
            kills=len(store.kills),
            completed=phases.count("completed"),
            fingerprint=f"{head}/{self.now():.6f}/{sum(self.promises.checks.values())}",
            violation=violation,
            story=list(self.promises.story),
        )


class Complaints:
    """What the engine itself calls a failure of a part is one: nothing in here raises what it should not."""

    WORDS = frozenset({"job_failed", "tick_failed", "source_failed", "provider_failed", "notification_failed"})

    def __init__(self) -> None:
        self.heard: list[str] = []
        structlog.configure(
            processors=[self],
            wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
            cache_logger_on_first_use=True,
        )

    def __call__(self, _: Any, __: str, event: MutableMapping[str, Any]) -> Any:
        if event["event"] in self.WORDS:
            fault = sys.exc_info()[1]
            where = traceback.extract_tb(fault.__traceback__)[-1] if fault else ""
            self.heard.append(f"{event} {fault!r} {where}")
        raise structlog.DropEvent


def simulate(seed: int, *, telling: bool = False, kind: "type[World]" = World) -> Report:
    """One world from beginning to end. The same seed gives the same report, in every detail."""
    complaints, ids, made = listen(), Random(f"{seed}/ids"), uuid.uuid4
    complaints.heard.clear()
    uuid.uuid4 = lambda: uuid.UUID(int=ids.getrandbits(128), version=4)
    world = kind(seed, telling=telling)
    violation: str | None = None
    try:
        world.loop.run_until_complete(world.live())
    except Violation as broken:
        violation = str(broken)
    finally:
        uuid.uuid4 = made
        world.loop.close()
    violation = world.promises.broken or violation
    if violation is None and complaints.heard:
        violation = f"a part failed: {complaints.heard[0]}"
    return world.report(violation)


@functools.cache
def listen() -> Complaints:
    """One for the process: loggers keep the first configuration they meet."""
    return Complaints()
