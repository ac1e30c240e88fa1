"""One hanging or broken part delays nobody else by more than an interval (promise I16)."""

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import msgspec
import pytest
import structlog

from controller.domain.assess import assess_and_decide
from controller.domain.evidence import Question, Reading
from controller.domain.flag import FlagKill, FlagState, Observation
from controller.domain.plan import FlagRef, RolloutPlan
from controller.domain.policy import GuardrailPolicy
from controller.domain.rollout import Run
from controller.errors import StoreUnavailable
from controller.reconciler import bind_all
from controller.scheduler import Pace, Scheduler
from controller.settings import EngineSettings
from controller.telemetry import Metrics
from controller.timers import ApschedulerTimers
from tests.support.engine import DANA, ModelProvider, ModelSource, World
from tests.support.rollouts import PLAN, POLICY, merged

BROKEN = "search-v2"
QUICK = EngineSettings(measure_timeout_seconds=0.2, provider_timeout_seconds=0.2)


class Hanging(ModelSource):
    async def measure(self, questions: Collection[Question]) -> Mapping[Question, Reading]:
        await asyncio.Event().wait()
        raise AssertionError


class Raising(ModelSource):
    async def measure(self, questions: Collection[Question]) -> Mapping[Question, Reading]:
        raise ZeroDivisionError("a bug in a source")


class RaisingProvider(ModelProvider):
    async def observe(self, flags: Collection[FlagRef]) -> Mapping[FlagRef, Observation]:
        raise ZeroDivisionError("a bug in a provider")


class HangingProvider(ModelProvider):
    """Hangs from the first kill on."""

    async def kill(self, kill: FlagKill) -> Sequence[str]:
        await asyncio.Event().wait()
        raise AssertionError

    async def forget_kill(self, kill: FlagKill) -> None:
        await asyncio.Event().wait()


def other_policy(source: str) -> GuardrailPolicy:
    return msgspec.convert(
        merged(POLICY, {"metadata": {"name": "other"}, "spec": {"source": source}}), GuardrailPolicy
    )


def other_plan(provider: str) -> RolloutPlan:
    changes = {
        "metadata": {"name": BROKEN},
        "spec": {"flag": {"provider": provider, "key": BROKEN}, "guardrails": [{"policy": "other"}]},
    }
    return msgspec.convert(merged(PLAN, changes), RolloutPlan)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    world.settings = QUICK
    with structlog.testing.capture_logs():  # drawing the trace of every failed tick takes longer than the tick
        yield world


async def both_started(world: World, *, source: str = "prom", provider: str = "main") -> None:
    """checkout-v2, and beside it search-v2 on a source or a provider of its own."""
    world.restart()
    policy, plan = other_policy(source), other_plan(provider)
    await world.store.save_policy(policy, world.entry("save_policy"))
    await world.store.save_plan(plan, world.entry("save_plan"))
    theirs = world.providers[provider]
    assert isinstance(theirs, ModelProvider)
    theirs.flags[plan.spec.flag] = FlagState(enabled=False, exposure=0, off_serves="off")
    await world.started()
    await world.commands.start(BROKEN, DANA, "")
    await world.settle()


async def of(world: World, plan: str) -> Run:
    found = await world.store.latest_run(plan)
    assert found is not None
    return found[0]


async def away(*_: object, **__: object) -> None:
    raise StoreUnavailable("frozen")


def take_away(world: World) -> None:
    for method in ("claim_due", "commit", "committed", "record_kill", "active_kills", "save_observations"):
        setattr(world.store, method, away)


def scheduler(world: World) -> Scheduler:
    return Scheduler(
        reconciler=world.reconciler,
        killer=world.killer,
        presence=world.presence,
        timers=ApschedulerTimers(world.clock, Random(0)),
        clock=world.clock,
        metrics=Metrics(),
        pace=Pace(tick=0.01, check_in=0.02),
    )


async def test_a_hanging_source_delays_no_run_of_another_source(world: World) -> None:
    world.sources["slow"] = ModelSource()
    await both_started(world, source="slow")
    world.sources["slow"] = Hanging()
    world.settings = EngineSettings(measure_timeout_seconds=60.0)
    world.restart()
    await world.store.wake(f"{BROKEN}#1")
    await world.store.wake("checkout-v2#1")
    world.clock.offset += datetime.now(UTC) - world.clock.now()  # timers count from the present
    timers = scheduler(world)
    timers.start()
    async with asyncio.timeout(5):
        while (await world.latest())[1].since_confirmed < 60:
            world.clock.elapsed += 7
            await world.reconciler.renew()
            await world.store.wake("checkout-v2#1")
            await asyncio.sleep(0.02)
    hung = await of(world, BROKEN)
    assert (hung.phase, hung.exposure) == ("progressing", 1_000)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await timers.stop()


async def test_a_hanging_source_is_an_error_and_not_a_pass(world: World) -> None:
    world.sources["slow"] = ModelSource()
    await both_started(world, source="slow")
    world.sources["slow"] = Hanging()
    await world.store.wake(f"{BROKEN}#1")
    await world.tick()
    assert "no answer within 0.2 s" in (await world.commands.explain(BROKEN)).text


@pytest.mark.parametrize("fault", ["binding", "judgement"])
async def test_a_run_that_cannot_be_judged_stops_no_other_of_its_group(
    world: World, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await both_started(world)
    if fault == "judgement":
        poison_judgement(monkeypatch)
    else:
        poison_binding(monkeypatch)
    world.restart()
    await world.store.wake(f"{BROKEN}#1")
    await world.until(10_000)
    assert (await of(world, BROKEN)).exposure == 1_000


@pytest.mark.parametrize("fault", ["source", "provider"])
async def test_a_part_that_raises_what_it_never_should_stops_no_run_of_another(world: World, fault: str) -> None:
    world.sources["slow"], world.providers["second"] = ModelSource(), ModelProvider()
    await both_started(world, source="slow", provider="second")
    if fault == "source":
        world.sources["slow"] = Raising()
    else:
        world.providers["second"] = RaisingProvider()
    await world.until(10_000)
    assert (await of(world, BROKEN)).exposure == 1_000
    assert "ZeroDivisionError" in (await world.commands.explain(BROKEN)).text


@pytest.mark.parametrize("fault", ["source", "provider", "policy"])
async def test_while_the_database_is_away_a_broken_part_keeps_no_kill_rule_of_another_from_acting(
    world: World, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.sources["slow"], world.providers["second"] = ModelSource(), ModelProvider()
    await both_started(world, source="slow", provider="second")
    await world.run_for(15)
    await world.store.wake(f"{BROKEN}#1")
    await world.tick()
    if fault == "source":
        world.sources["slow"] = Raising()
    elif fault == "provider":
        world.providers["second"] = RaisingProvider()
    else:
        poison_judgement(monkeypatch)
    take_away(world)
    world.source.sides["on"] = {"p95": 0.4}
    await world.blind_for(300)
    assert not world.flag.enabled


def poison_binding(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails_for_one(plan, policies):  # type: ignore[no-untyped-def]
        if plan.metadata.name == BROKEN:
            raise ZeroDivisionError("a bug in a policy")
        return bind_all(plan, policies)

    monkeypatch.setattr("controller.reconciler.bind_all", fails_for_one)


def poison_judgement(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails_for_one(run, *rest):  # type: ignore[no-untyped-def]
        if run.plan == BROKEN:
            raise ZeroDivisionError("a bug in a rule")
        return assess_and_decide(run, *rest)

    monkeypatch.setattr("controller.reconciler.assess_and_decide", fails_for_one)


async def test_a_provider_that_hangs_when_a_kill_is_released_holds_up_no_merge(world: World) -> None:
    await both_started(world)
    (receipt,) = await world.commands_kill()
    await world.store.reset_kills(world.plan.spec.flag, [receipt.kill_id], world.entry("reset"))
    world.providers["main"] = HangingProvider()
    async with asyncio.timeout(3):
        await world.killer.merge()
    assert world.killer.holds(world.plan.spec.flag) == [receipt.kill_id], "held until the provider has let go"
