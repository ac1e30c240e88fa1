"""What a preview says of runs and flags is what then happens to them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from controller.access import Actor
from controller.domain.catalogue import SCOPES
from controller.domain.flag import FlagState
from controller.domain.plan import RolloutPlan
from controller.domain.policy import GuardrailPolicy
from controller.domain.status import ApplyResult, FlagOutlook, RunOutlook
from controller.errors import KillInForce, ProviderUnavailable, Refused
from controller.registrar import Registrar
from controller.settings import PrometheusSourceSettings, Settings
from tests.support.engine import DANA, KIM, World
from tests.support.rollouts import PLAN, POLICY, make_plan, make_policy, merged

LEE = Actor(name="lee", scopes=SCOPES)
STAGES = [
    {"name": "canary", "exposure": "1%", "bake": "30m"},
    {"name": "half", "exposure": "50%", "bake": "1h"},
    {"name": "everyone", "exposure": "100%", "bake": "1h"},
]
GATED = [STAGES[0], {**STAGES[1], "approval": {"from": ["managers"]}}, STAGES[2]]
RULES: list[dict[str, Any]] = POLICY["spec"]["rules"]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def plan_with(**spec: Any) -> RolloutPlan:
    return make_plan(**({"stages": STAGES} | spec))


def changed_rule(**changes: Any) -> list[dict[str, Any]]:
    """The first rule of the policy, a pause, otherwise."""
    return [merged(RULES[0], changes), *RULES[1:]]


async def applied(
    world: World, *documents: RolloutPlan | GuardrailPolicy, by: Actor = LEE, dry_run: bool = False
) -> ApplyResult:
    settings = Settings(
        sources={"prom": PrometheusSourceSettings(url="http://127.0.0.1:9090")}, groups={"managers": ["kim"]}
    )

    async def observe(flags: Any) -> Mapping[Any, Any]:
        return await world.reconciler.lookout.observe(flags, insist=True)

    registrar = Registrar(world.store, world.providers, settings, world.clock, observe)
    files = [(f"file-{number}.yaml", msgspec.json.encode(one)) for number, one in enumerate(documents)]
    return await registrar.apply(files, by, dry_run=dry_run, look=True)


async def outlook(world: World, *documents: RolloutPlan | GuardrailPolicy) -> RunOutlook:
    (run,) = (await applied(world, *documents, dry_run=True)).runs
    return run


# — runs —


async def test_a_run_under_way_keeps_to_what_it_began_with(world: World) -> None:
    await world.started(plan_with())
    slower = plan_with(stages=[{**STAGES[0], "bake": "5h"}, *STAGES[1:]])
    result = await applied(world, slower)
    assert result.pinned_runs == ["checkout-v2#1"]
    await world.run_for(45 * 60)
    run = await world.run()
    assert (run.plan_revision, run.exposure) == (1, 50_000)


async def test_of_a_run_that_follows_what_is_applied_nothing_is_told(world: World) -> None:
    await world.started(plan_with())
    result = await applied(world, plan_with(), make_policy())
    assert (result.changes, result.pinned_runs, result.runs) == ([], [], [])


async def test_the_bake_that_an_adoption_loses_is_the_one_that_was_told(world: World) -> None:
    await world.started(plan_with())
    await world.run_for(15 * 60)
    _, observations = await world.latest()
    slower = plan_with(stages=[{**STAGES[0], "bake": "45m"}, *STAGES[1:]])
    told = await outlook(world, slower)
    assert observations.bake == 600
    assert told.consequences == ["the bake of canary starts anew: 10m of 30m are lost; it takes 45m then"]
    assert [(one.path, one.before, one.after) for one in told.changes] == [("spec.stages[0].bake", "30m", "45m")]

    await applied(world, slower)
    await world.commands.adopt("checkout-v2", KIM, "")
    await world.settle()
    _, observations = await world.latest()
    assert observations.bake == 0
    await world.run_for(44 * 60)
    assert (await world.run()).exposure == 1_000
    await world.run_for(10 * 60)
    assert (await world.run()).exposure == 50_000


async def test_what_a_run_would_take_up_is_told_from_its_own_revisions_and_not_from_the_latest(
    world: World,
) -> None:
    await world.started(plan_with())
    await applied(world, plan_with(schedule={"timezone": "Europe/Berlin"}))
    result = await applied(
        world,
        plan_with(schedule={"timezone": "Europe/Berlin"}, notify=[]),
        make_policy(window="10m"),
        dry_run=True,
    )
    assert [one.path for one in result.changes] == ["spec.window"]
    (run,) = result.runs
    assert [one.path for one in run.changes] == ["spec.schedule.timezone", "spec.window"]
    assert [(one.name, one.revision, one.author) for one in result.stored] == [
        ("checkout-v2", 2, "lee"),
        ("web", 1, "dana"),
    ]


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (
            {"stages": [{**STAGES[0], "exposure": "2%"}, *STAGES[1:]]},
            "1 %, where checkout-v2#1 is now, is no stage of the plan (2 %, 50 %, 100 %)",
        ),
        ({"flag": {"key": "checkout-v3"}}, "the plan is for another flag"),
        ({"serve": {"rollout": "blue"}}, "the plan serves other variations"),
        ({"mode": "observe"}, "the mode becomes observe"),
        ({"audience": {"always": []}}, "the audience changes, and somebody is exposed already"),
        ({"audience": {"bucketBy": "account"}}, "the audience changes, and somebody is exposed already"),
    ],
)
async def test_what_no_run_can_take_up_is_told_and_refused_alike(
    world: World, spec: dict[str, Any], told: str
) -> None:
    before = await world.started(plan_with())
    new = plan_with(**spec)
    (said,) = (await outlook(world, new)).obstacles
    assert told in said
    await applied(world, new)
    with pytest.raises(Refused) as caught:
        await world.commands.adopt("checkout-v2", KIM, "")
    assert caught.value.blocks == (said,)
    assert await world.run() == before


async def test_before_anybody_is_exposed_a_run_takes_up_another_audience(world: World) -> None:
    await world.apply(plan_with())
    await world.commands.start("checkout-v2", DANA, "")
    nobody = plan_with(audience={"always": []})
    assert (await outlook(world, nobody)).obstacles == []
    await applied(world, nobody)
    await world.commands.adopt("checkout-v2", KIM, "")
    await world.settle()
    assert (world.flag.enabled, world.flag.exposure, world.flag.audience) == (True, 1_000, ())


@pytest.mark.parametrize(
    ("documents", "because"),
    [
        ([make_policy(rules=RULES[1:])], ["removes the pause rule web/errors-high"]),
        (
            [make_policy(rules=changed_rule(**{"if": "error_rate > 5%"}))],
            ["changes the pause rule web/errors-high (if: error_rate > 1% → error_rate > 5%; looser)"],
        ),
        (
            [make_policy(rules=changed_rule(**{"for": "1m"}))],
            ["changes the pause rule web/errors-high (for: 5m → 1m; stricter)"],
        ),
        ([make_policy(minSample={"requests": 1})], ["changes minSample of web"]),
        ([plan_with(stages=STAGES)], ["removes the approval before 50 %"]),
    ],
)
async def test_who_must_adopt_is_told_and_nobody_else_can(
    world: World, documents: list[RolloutPlan | GuardrailPolicy], because: list[str]
) -> None:
    await world.started(plan_with(stages=GATED))
    told = await outlook(world, *documents)
    assert (told.second_person, told.authors) == (because, ["lee"])
    await applied(world, *documents)
    with pytest.raises(Refused) as caught:
        await world.commands.adopt("checkout-v2", LEE, "")
    assert caught.value.blocks == (*because, "written by lee")
    operator = Actor(name="max", scopes=("operate",))
    with pytest.raises(Refused):
        await world.commands.adopt("checkout-v2", operator, "")
    await world.commands.adopt("checkout-v2", KIM, "read it")
    assert (await world.run()).author in {"dana", "lee"}


async def test_an_approval_that_an_adoption_voids_is_asked_for_again(world: World) -> None:
    await world.started(plan_with(stages=GATED))
    await world.run_for(45 * 60)
    slower = plan_with(stages=[{**STAGES[0], "bake": "40m"}, *GATED[1:]])
    assert (await outlook(world, slower)).consequences[1] == (
        "the open request to approve half is withdrawn, and made again when it is due"
    )
    await applied(world, slower)
    await world.commands.adopt("checkout-v2", DANA, "")
    await world.settle()
    assert (await world.run()).approval is None
    await world.run_for(50 * 60)
    run = await world.run()
    assert run.approval is not None
    assert run.approval.plan_revision == 2


async def test_the_stage_that_comes_next_is_the_one_that_was_told(world: World) -> None:
    await world.started(plan_with())
    finer = plan_with(stages=[STAGES[0], {"name": "tenth", "exposure": "10%", "bake": "30m"}, *STAGES[1:]])
    assert (await outlook(world, finer)).consequences[-1] == "next comes tenth at 10 % instead of half at 50 %"
    await applied(world, finer)
    await world.commands.adopt("checkout-v2", KIM, "")
    await world.run_for(50 * 60)
    assert (await world.run()).exposure == 10_000


async def test_a_paused_run_stays_paused_when_it_adopts(world: World) -> None:
    await world.started(plan_with())
    await world.commands.pause("checkout-v2", DANA, "")
    slower = plan_with(stages=[{**STAGES[0], "bake": "45m"}, *STAGES[1:]])
    assert "it stays paused" in (await outlook(world, slower)).consequences
    await applied(world, slower)
    await world.commands.adopt("checkout-v2", KIM, "")
    await world.run_for(3600)
    assert (await world.run()).phase == "paused"


async def test_a_new_rule_against_a_baseline_that_was_never_measured_is_told_to_hold_the_run(world: World) -> None:
    """At its start a run measures the baselines of the metrics it has then."""
    from_before = {"baseline": {"from": "before"}}
    await world.started(plan_with(), make_policy(rules=[RULES[0], RULES[1]], **from_before))
    more = make_policy(**from_before)
    told = (await outlook(world, more)).consequences
    assert told[-2:] == [
        f"web/{rule} can never be judged in this run: its baseline was not measured when it was time"
        for rule in ("p95-2x", "p95-3x")
    ]
    await applied(world, more)
    await world.commands.adopt("checkout-v2", KIM, "")
    await world.run_for(2 * 3600)
    run, observations = await world.latest()
    assert (run.exposure, observations.bake) == (1_000, 0)


async def test_what_cannot_be_read_of_a_run_is_told_and_keeps_nobody_from_applying(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.started(plan_with())

    async def unreadable(*_: Any) -> None:
        raise Refused("written by a newer version")

    slower = plan_with(stages=[{**STAGES[0], "bake": "45m"}, *STAGES[1:]])
    with monkeypatch.context() as patched:
        patched.setattr(world.store, "plan", unreadable)
        result = await applied(world, slower)
    assert result.runs[0].obstacles == ["what it follows cannot be read from the database"]
    newest = await world.store.plan("checkout-v2")
    assert newest is not None
    assert newest.revision == 2


# — flags —


async def shown_beside(world: World, plan: RolloutPlan | None = None) -> FlagOutlook:
    (flag,) = (await applied(world, plan or world.plan, dry_run=True)).flags
    return flag


async def test_what_the_provider_shows_stands_beside_the_file(world: World) -> None:
    await world.apply(plan_with())
    world.provider.put(world.plan.spec.flag, replace(world.flag, foreign=("rule eu-only",)))
    await world.started(plan_with())
    seen = await shown_beside(world)
    assert (seen.enabled, seen.exposure, seen.audience) == (True, 1_000, ["staff"])
    assert (seen.run, seen.committed, seen.foreign, seen.findings) == (
        "checkout-v2#1",
        1_000,
        ["rule eu-only"],
        [],
    )


async def test_what_nobody_accepted_yet_is_told_before_the_next_tick_pauses_for_it(world: World) -> None:
    await world.started(plan_with())
    world.provider.put(world.plan.spec.flag, replace(world.flag, foreign=("rule eu-only",)))
    seen = await shown_beside(world)
    assert seen.findings == ["nobody has accepted this for checkout-v2#1 yet: rule eu-only appeared"]
    assert seen.on_kill == "off"
    spared = plan_with(serve={"rollout": "on", "fallback": "off", "kill": "fallthrough"})
    assert (await shown_beside(world, spared)).on_kill == "fallthrough"


async def test_a_flag_that_was_changed_behind_the_run_is_told_before_the_next_tick_pauses_it(world: World) -> None:
    await world.started(plan_with())
    world.provider.put(world.plan.spec.flag, replace(world.flag, exposure=20_000))
    (finding,) = (await shown_beside(world)).findings
    assert finding.startswith("it is not as checkout-v2#1 left it: the provider shows 20 %")
    await world.run_for(30)
    assert (await world.run()).phase == "paused"


async def test_a_flag_that_serves_already_is_told_and_refused_at_the_start(world: World) -> None:
    await world.apply(plan_with())
    world.provider.put(world.plan.spec.flag, FlagState(enabled=True, exposure=5_000, off_serves="off"))
    assert (await shown_beside(world)).findings == [
        "it serves on already: no start before it is off, or at 0 % without our rules"
    ]
    with pytest.raises(Refused, match="already serves"):
        await world.commands.start("checkout-v2", DANA, "")


async def test_a_provider_that_is_silent_is_told_as_unknown_and_not_as_off(world: World) -> None:
    await world.apply(plan_with())
    world.provider.unreadable = "503 from the provider"
    seen = await shown_beside(world)
    assert (seen.unread, seen.enabled, seen.exposure) == ("503 from the provider", None, None)
    with pytest.raises(ProviderUnavailable):
        await world.commands.start("checkout-v2", DANA, "")


async def test_a_kill_that_holds_the_flag_is_told_and_refuses_the_start(world: World) -> None:
    await world.started(plan_with())
    (kill,) = await world.commands_kill()
    assert (await shown_beside(world)).findings == [
        f"a kill holds it down ({kill.kill_id}): no start before `rampart reset checkout-v2`"
    ]
    with pytest.raises(KillInForce):
        await world.commands.start("checkout-v2", DANA, "")


async def test_a_flag_that_another_plan_turns_is_told(world: World) -> None:
    await world.started(plan_with())
    other = msgspec.convert(merged(PLAN, {"metadata": {"name": "checkout-again"}}), RolloutPlan)
    assert (await shown_beside(world, other)).findings == [
        "checkout-v2#1, of another plan, turns it now: no start before that has ended"
    ]


async def test_a_flag_that_serves_something_else_when_off_is_told(world: World) -> None:
    await world.apply(plan_with())
    world.provider.put(world.plan.spec.flag, FlagState(enabled=False, exposure=0, off_serves="on"))
    assert (await shown_beside(world)).findings == [
        'when off it serves "on", and the fallback of the plan is "off"'
    ]
