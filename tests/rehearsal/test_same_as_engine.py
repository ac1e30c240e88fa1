"""A rehearsal does what the engine does: each plays the same scripts, and the same happens at the same times."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from controller.domain.audit import AuditEntry
from controller.domain.evidence import Question, Reading
from controller.domain.flag import FlagState
from controller.domain.plan import FlagRef, RolloutPlan
from controller.domain.policy import GuardrailPolicy
from controller.domain.rehearsal import RehearsalSpec
from controller.domain.sentences import Sentence
from controller.rehearsal.playing import play
from controller.rehearsal.script import Script, write
from controller.rehearsal.world import World as SyntheticWorld
from tests.support.engine import DANA, KIM, ModelProvider, ModelSource, World
from tests.support.rollouts import NOW, make_plan, make_policy

STAGES = [
    {"name": "canary", "exposure": "1%", "bake": "10m"},
    {"name": "half", "exposure": "50%", "bake": "10m", "approval": {"from": ["managers"], "timeout": "24h"}},
    {"name": "everyone", "exposure": "100%", "bake": "10m"},
]
WAKES_EVERY = 0.5
"""How often the scheduler looks for what is due."""

Told = tuple[float, str, str]


class ScriptedProvider(ModelProvider):
    """The share it shows is the share of the synthetic traffic."""

    def __init__(self, series: SyntheticWorld) -> None:
        super().__init__()
        self.series = series
        self.moment = 0.0

    def put(self, flag: FlagRef, state: FlagState) -> None:
        super().put(flag, state)
        self.series.expose(state.effective_exposure, self.moment)


class ScriptedSource(ModelSource):
    """Answers from the synthetic series of a script, at the time it is told."""

    def __init__(self, series: SyntheticWorld) -> None:
        super().__init__()
        self.series = series
        self.moment = 0.0

    async def measure(self, questions: Collection[Question]) -> Mapping[Question, Reading]:
        return dict(self.series.measure(list(questions), self.moment))


def scripted(plan: RolloutPlan, policy: GuardrailPolicy, **case: Any) -> Script:
    case = {"name": "x", "expect": ["never start"], "startsAt": f"{NOW:%Y-%m-%dT%H:%M}", "until": "1h"} | case
    spec = msgspec.convert({"plan": plan.metadata.name, "tests": [case]}, RehearsalSpec)
    return write(spec, spec.tests[0], {plan.metadata.name: plan}, {policy.metadata.name: policy})


def rehearsed(script: Script) -> list[Told]:
    return [(one.at, one.action, one.text) for one in play(script).happened]


async def as_in_the_engine(script: Script, policy: GuardrailPolicy, folder: Path) -> list[Told]:
    series = SyntheticWorld(script)
    provider, source = ScriptedProvider(series), ScriptedSource(series)
    world = World(folder, provider=provider, source=source)
    await world.apply(script.plan, policy)
    await world.commands.start("checkout-v2", DANA, "")
    began = world.clock.elapsed
    cues = sorted(script.events, key=lambda one: one.at or 0.0)
    while (now := world.clock.elapsed - began) <= script.until:
        provider.moment = source.moment = now
        while cues and (cues[0].at or 0.0) <= now:
            await ordered(world, cues.pop(0))
        provider.unreadable = "away" if failing(script, "provider fails", now) else None
        await world.tick()
        if now % 5 == 0:
            await world.reconciler.renew()
        world.clock.elapsed += WAKES_EVERY
    rows = await world.store.audit(run=(await world.run()).id)
    entries = [msgspec.json.decode(row.body, type=AuditEntry) for row in rows]
    return [
        ((entry.at - NOW).total_seconds(), entry.action, entry.reason)
        for entry in entries
        if entry.action != "authorise"
    ]


def failing(script: Script, what: str, now: float) -> bool:
    return any(one.verb == what and one.start <= now < (one.until or 0.0) for one in script.events)


async def ordered(world: World, cue: Sentence) -> None:
    actor = KIM if cue.by == "kim" else DANA
    match cue.verb:
        case "approve":
            await world.commands.approve("checkout-v2", actor, "")
        case "pause":
            await world.commands.pause("checkout-v2", actor, "")
        case "resume":
            await world.commands.resume("checkout-v2", actor, "")
        case "advance":
            await world.commands.advance("checkout-v2", actor, "")
        case "step back":
            await world.commands.step_back("checkout-v2", actor, "")
        case "abandon":
            await world.commands.abandon("checkout-v2", actor, "")


SCENARIOS: dict[str, tuple[dict[str, Any], str]] = {
    "errors": ({"rollout": {"error_rate": "0.2% for 12m then 20%"}}, "kill"),
    "a few errors": ({"rollout": {"error_rate": "0.2% for 12m then 3%"}}, "pause"),
    "slow": ({"rollout": {"latency_p95": "100ms for 12m then 250ms"}}, "step_back"),
    "very slow": ({"rollout": {"latency_p95": "100ms for 12m then 100ms to 900ms over 10m"}}, "kill"),
    "an outage of everything": (
        {"rollout": {"error_rate": "0.2% for 12m then 40%"}, "control": {"error_rate": "0.2% for 12m then 40%"}},
        "pause",
    ),
    "silence": ({"rollout": {"error_rate": "0.2% for 12m then none"}}, "pause"),
    "a source that is away": ({"events": ["source fails from 8m until 20m"]}, "request_approval"),
    "a provider that is away": ({"events": ["provider fails from 5m until 9m"]}, "request_approval"),
    "little traffic": ({"traffic": "50/s"}, "start"),
    "noise": ({"noise": {"seed": 3, "spread": "20%"}, "rollout": {"error_rate": "0.5%"}}, "request_approval"),
    "a whole rollout": ({"events": ["approve half at 20m by kim"]}, "complete"),
    "everybody, beside what the control was last": (
        {
            "rollout": {"latency_p95": "100ms for 5m then 200ms for 31m then 300ms"},
            "control": {"latency_p95": "100ms for 5m then 200ms"},
            "events": ["approve half at 20m by kim"],
        },
        "complete",
    ),
    "people": (
        {
            "events": [
                "advance at 7m by dana",
                "pause at 8m by dana",
                "resume at 12m10s by dana",
                "approve half at 31m by kim",
                "step back at 35m by dana",
                "abandon at 40m by dana",
            ]
        },
        "abandon",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SCENARIOS)
async def test_a_rehearsal_and_the_engine_do_the_same_at_the_same_times(name: str, tmp_path: Path) -> None:
    case, last = SCENARIOS[name]
    plan, policy = make_plan(stages=STAGES), make_policy()
    script = scripted(plan, policy, **case)
    in_rehearsal = rehearsed(script)
    in_production = await as_in_the_engine(script, policy, tmp_path)
    assert in_rehearsal == in_production
    assert in_rehearsal[-1][1] in (last, "confirm")
    assert last in {action for _, action, _ in in_rehearsal}
