"""One hanging or broken part delays nobody else by more than an interval (promise I16)."""

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from random import Random

import msgspec
import pytest
import structlog
from msgspec.structs import replace

from controller.domain.assess import assess_and_decide, questions
from controller.domain.binding import bind_all
from controller.domain.consequences import share_of_run
from controller.domain.evidence import Question, Reading
from controller.domain.flag import FlagKill, FlagState, Observation
from controller.domain.plan import FlagRef, RolloutPlan
from controller.domain.policy import GuardrailPolicy
from controller.domain.rollout import Run
from controller.errors import StoreUnavailable
from controller.lastknown import KnownFlag
from controller.scheduler import Pace, Scheduler
from controller.settings import EngineSettings
from controller.telemetry import Metrics, hide
from controller.timers import ApschedulerTimers
from tests.support.engine import DANA, ModelProvider, ModelSource, World
from tests.support.rollouts import PLAN, POLICY, merged

BROKEN = "search-v2"
POLL = 15.0
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
    world.make_due(f"{BROKEN}#1")
    world.make_due("checkout-v2#1")
    world.clock.offset += datetime.now(UTC) - world.clock.now()  # timers count from the present
    timers = scheduler(world)
    timers.start()
    async with asyncio.timeout(5):
        while (await world.latest())[1].since_confirmed < 60:
            world.clock.elapsed += 7
            await world.reconciler.renew()
            world.make_due("checkout-v2#1")
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
    world.make_due(f"{BROKEN}#1")
    await world.tick()
    assert "no answer within 0.2 s" in (await world.commands.explain(BROKEN)).text


@pytest.mark.parametrize("fault", ["binding", "question", "judgement"])
async def test_a_run_that_cannot_be_judged_stops_no_other_of_its_group(
    world: World, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await both_started(world)
    POISONS[fault](monkeypatch)
    world.restart()
    world.make_due(f"{BROKEN}#1")
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
    world.make_due(f"{BROKEN}#1")
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
            raise ZeroDivisionError("a bug in a binding")
        return bind_all(plan, policies)

    monkeypatch.setattr("controller.reconciler.bind_all", fails_for_one)


def poison_judgement(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails_for_one(run, *rest):  # type: ignore[no-untyped-def]
        if run.plan == BROKEN:
            raise ZeroDivisionError("a bug in a judgement")
        return assess_and_decide(run, *rest)

    monkeypatch.setattr("controller.reconciler.assess_and_decide", fails_for_one)


def poison_question(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails_for_one(run, *rest):  # type: ignore[no-untyped-def]
        if run.plan == BROKEN:
            raise ZeroDivisionError("a bug in a question")
        return questions(run, *rest)

    monkeypatch.setattr("controller.lookout.questions", fails_for_one)


POISONS = {"binding": poison_binding, "question": poison_question, "judgement": poison_judgement}


async def test_a_provider_that_hangs_when_a_kill_is_released_holds_up_no_merge(world: World) -> None:
    await both_started(world)
    (receipt,) = await world.commands_kill()
    await world.store.reset_kills(world.plan.spec.flag, [receipt.kill_id], world.entry("reset"))
    world.providers["main"] = HangingProvider()
    async with asyncio.timeout(3):
        await world.kill_ledger.merge()
    assert world.killbook.holds(world.plan.spec.flag) == [receipt.kill_id], "held until the provider has let go"


# — circuits —


def with_the_longest_waits(world: World) -> None:
    world.draw = lambda: 1.0
    world.restart()


async def test_a_source_that_fails_on_and_on_is_asked_less_often_and_the_run_says_so(world: World) -> None:
    with_the_longest_waits(world)
    await world.started()
    world.source.failure = "connection refused"
    await world.run_for(5 * POLL)
    asked = world.source.asked
    world.make_due("checkout-v2#1")
    await world.tick()
    assert world.source.asked == asked
    told = (await world.commands.explain("checkout-v2")).text
    assert "not asked: 5 failures in a row, next try in 1 s; last: connection refused" in told
    assert world.flag.exposure == 1_000


async def test_a_source_that_is_back_is_noticed_within_one_poll_however_long_it_was_away(world: World) -> None:
    with_the_longest_waits(world)
    await world.started()
    world.source.failure = "connection refused"
    await world.run_for(100 * POLL)
    world.source.failure = None
    back_at = world.clock.elapsed
    while world.clock.elapsed - back_at <= POLL:
        world.clock.elapsed += 0.5
        await world.reconciler.renew()
        await world.tick()
    seen = (await world.latest())[1].seen
    assert seen is not None
    assert {verdict.outcome for verdict in seen.verdicts} == {"pass"}


async def test_a_run_whose_questions_fail_takes_the_source_away_from_no_other(world: World) -> None:
    await both_started(world)
    world.source.refused = BROKEN
    for _ in range(20):
        world.make_due(f"{BROKEN}#1")
        await world.tick()
        world.clock.elapsed += 0.5
    assert "not asked" not in (await world.commands.explain(BROKEN)).text
    await world.until(10_000)


async def with_an_open_circuit(world: World) -> None:
    """checkout-v2 at 1 %, and a provider nobody could read for long."""
    with_the_longest_waits(world)
    await world.started()
    await world.run_for(4 * POLL)
    world.provider.unreadable = "connection refused"
    await world.run_for(40 * POLL)
    assert world.reconciler.lookout.circuit("provider", "main").open


async def test_a_kill_is_not_held_up_by_an_open_circuit(world: World) -> None:
    await with_an_open_circuit(world)
    world.provider.unreadable = None
    (receipt,) = await world.commands_kill()
    assert receipt.confirmed_at is not None
    assert not world.flag.enabled


async def test_a_kill_rule_acts_though_the_circuit_of_its_provider_is_open(world: World) -> None:
    await with_an_open_circuit(world)
    world.source.sides["on"] = {"p95": 0.4}
    await world.run_for(300)
    assert not world.flag.enabled


async def test_what_lowers_is_sent_though_the_circuit_is_open(world: World) -> None:
    await world.started()
    await world.until(10_000)
    with_the_longest_waits(world)
    await world.settle()
    world.provider.unreadable = "connection refused"
    await world.run_for(40 * POLL)
    assert world.reconciler.lookout.circuit("provider", "main").open
    await world.commands.step_back("checkout-v2", DANA, "")
    assert world.flag.exposure == 1_000


async def test_a_raise_is_not_sent_while_the_circuit_is_open_and_is_once_the_provider_is_back(
    world: World,
) -> None:
    await with_an_open_circuit(world)
    run, _ = await world.latest()
    change = share_of_run(replace(run, exposure=10_000), world.plan, "raised")
    world.provider.history.clear()
    applying = {"mark": world.killbook.mark(), "began": world.clock.monotonic()}
    await world.reconciler._apply(run, change, **applying)  # type: ignore[arg-type]
    assert world.provider.history == []
    world.provider.unreadable = None
    await world.until(10_000)


# — quarantine —


async def both_with_a_broken_one(world: World, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    await both_started(world)
    POISONS[fault](monkeypatch)
    world.restart()
    world.make_due(f"{BROKEN}#1")
    await world.tick()


@pytest.mark.parametrize("fault", ["binding", "question", "judgement"])
async def test_a_run_whose_tick_raises_is_shown_as_quarantined_everywhere(
    world: World, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await both_with_a_broken_one(world, monkeypatch, fault)
    since = f"{world.clock.now():%Y-%m-%d %H:%M:%S}"
    world.restart("replica-2")  # which never ticked it
    told = (await world.commands.explain(BROKEN)).text
    assert f"quarantined since {since} UTC: ZeroDivisionError: a bug in a {fault}." in told
    assert "kill rules neither" in told
    assert f"`rampart kill {BROKEN}` works" in told
    (block,) = (await world.commands.status(BROKEN)).blocks
    assert block.code == "quarantine"
    summaries = {one.plan: one.reason for one in await world.commands.summaries()}
    assert summaries[BROKEN].startswith("quarantined since")
    assert "quarantined" not in summaries["checkout-v2"]


async def test_a_quarantined_run_is_tried_again_less_and_less_often(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await both_with_a_broken_one(world, monkeypatch, "judgement")
    began, tried = world.clock.elapsed, [0.0]
    failures = 1
    while len(tried) < 9:
        world.clock.elapsed += 5.0
        await world.reconciler.renew()
        await world.tick()
        quarantine = (await world.store.latest_run(BROKEN))[1].quarantine  # type: ignore[index]
        assert quarantine is not None
        if quarantine.failures > failures:
            failures = quarantine.failures
            tried.append(world.clock.elapsed - began)
    waits = [after - before for before, after in pairwise(tried)]
    assert waits == [15, 30, 60, 120, 240, 480, 600, 600]


async def test_a_quarantined_run_goes_on_once_a_tick_succeeds(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await both_with_a_broken_one(world, monkeypatch, "judgement")
    before = world.metrics.render().decode()
    assert "rampart_quarantined 1.0" in before
    assert f'rampart_rollout_quarantined{{rollout="{BROKEN}",environment="production"}} 1.0' in before
    monkeypatch.undo()
    world.clock.elapsed += POLL
    await world.tick()
    assert "quarantined" not in (await world.commands.explain(BROKEN)).text
    after = world.metrics.render().decode()
    assert "rampart_quarantined 0.0" in after
    assert "rampart_rollout_quarantined{" not in after
    assert (await world.store.latest_run(BROKEN))[1].quarantine is None  # type: ignore[index]


async def test_a_quarantined_run_is_alerted_on_however_seldom_it_is_tried(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await both_with_a_broken_one(world, monkeypatch, "binding")
    for _ in range(120):
        world.clock.elapsed += POLL
        await world.reconciler.renew()
        await world.tick()
        world.reconciler.forget_ended()
        assert "rampart_quarantined 1.0" in world.metrics.render().decode()


async def test_a_quarantined_run_can_be_killed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await both_with_a_broken_one(world, monkeypatch, "binding")
    world.killbook.learn(
        [KnownFlag(plan=BROKEN, flag=(await of(world, BROKEN)).flag, serve=world.plan.spec.serve)]
    )
    await world.killer.kill(key=BROKEN, environment=None, provider=None, actor=DANA, reason="INC-1")
    run = await of(world, BROKEN)
    assert run.phase == "killed"
    assert not world.provider.flags[run.flag].enabled
    world.reconciler.forget_ended()
    assert "rampart_quarantined 0.0" in world.metrics.render().decode()


async def test_the_reason_of_a_quarantine_holds_no_secret_and_is_bounded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide("tr0ub4dor-and-3")
    await both_started(world)

    def fails(run, *rest):  # type: ignore[no-untyped-def]
        raise ValueError("tr0ub4dor-and-3\n" + "x" * 10_000)

    monkeypatch.setattr("controller.reconciler.assess_and_decide", fails)
    world.make_due(f"{BROKEN}#1")
    await world.tick()
    text = (await world.commands.explain(BROKEN)).text
    assert "ValueError: [removed] xxx" in text
    assert len(text) < 1_500
