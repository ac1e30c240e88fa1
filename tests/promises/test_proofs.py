"""Whatever happens to a run, its proof is good: nothing that Rampart does is a finding (promises I15, I18)."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import structlog
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from controller.access import Actor
from controller.domain.catalogue import SCOPES
from controller.domain.proof import Proof, verify
from controller.errors import RampartError
from tests.support.engine import DANA, KIM, World
from tests.support.proofs import entry_of, findings, proof_of
from tests.support.rollouts import make_plan, make_policy

LEE = Actor(name="lee", scopes=SCOPES)
PLAN = "checkout-v2"
STAGES = [
    {"name": "canary", "exposure": "1%", "bake": "30s"},
    {"name": "half", "exposure": "50%", "bake": "30s", "approval": {"from": ["managers"], "timeout": "10m"}},
    {"name": "everyone", "exposure": "100%", "bake": "30s"},
]
POLICY = make_policy(window="1m")


async def applied_anew(world: World) -> None:
    """Other stages, other guardrails, and a run that follows them if it may."""
    stages = [STAGES[0], {"name": "most", "exposure": "80%", "bake": "1m"}, STAGES[-1]]
    latest = await world.store.plan(PLAN)
    assert latest
    turned = STAGES if latest.revision % 2 == 0 else stages
    sample = {"requests": 100 + latest.revision}
    await world.store.save_plan(make_plan(stages=turned), world.entry("save_plan"))
    await world.store.save_policy(make_policy(window="1m", minSample=sample), world.entry("save_policy"))
    await world.commands.adopt(PLAN, LEE, "")


async def started_anew(world: World) -> None:
    await world.commands.start(PLAN, DANA, "again")


async def reset(world: World) -> None:
    flag = world.plan.spec.flag
    await world.kill_ledger.reset(
        key=flag.key,
        environment=None,
        provider=None,
        kill_ids=list(world.killbook.holds(flag)),
        actor=KIM,
        note="",
    )


async def killed(world: World) -> None:
    await world.commands_kill()
    await world.kill_ledger.merge()


async def blind(world: World) -> None:
    """The database is away: what was held last is judged on, whatever a person commanded meanwhile."""
    await world.blind_for(300.0)
    await world.kill_ledger.merge()


async def turned_by_hand(world: World) -> None:
    world.provider.put(world.plan.spec.flag, replace(world.flag, exposure=70_000))


async def switched_off_by_hand(world: World) -> None:
    world.provider.put(world.plan.spec.flag, replace(world.flag, enabled=False))


async def restarted(world: World) -> None:
    await world.store.release("replica-1")
    world.restart()


def measures(**sides: object) -> Callable[[World], Awaitable[None]]:
    async def change(world: World) -> None:
        world.source.failure = None
        world.source.sides = {"on": sides} if sides else {}

    return change


async def fails(world: World) -> None:
    world.source.failure = "connection refused"


def commanded(verb: str, actor: Actor) -> Callable[[World], Awaitable[None]]:
    async def command(world: World) -> None:
        await getattr(world.commands, verb)(PLAN, actor, "because")

    return command


def waits(seconds: float) -> Callable[[World], Awaitable[None]]:
    async def wait(world: World) -> None:
        await world.settle(4)
        await world.run_for(seconds)

    return wait


ACTIONS: dict[str, Callable[[World], Awaitable[None]]] = {
    "wait": waits(60),
    "wait long": waits(900),
    "healthy": measures(),
    "slow": measures(p95=0.35),
    "slower": measures(p95=0.25),
    "errors": measures(error_rate=0.05),
    "silent": measures(total=None),
    "not a number": measures(p95=float("nan"), total=float("inf")),
    "few": measures(total=3),
    "source fails": fails,
    "turned by hand": turned_by_hand,
    "switched off by hand": switched_off_by_hand,
    "restart": restarted,
    "blind": blind,
    "apply anew": applied_anew,
    "start": started_anew,
    "kill": killed,
    "reset": reset,
    "pause": commanded("pause", KIM),
    "resume": commanded("resume", DANA),
    "advance": commanded("advance", DANA),
    "step back": commanded("step_back", KIM),
    "approve": commanded("approve", LEE),
    "abandon": commanded("abandon", DANA),
}
HEALTHY = ["wait long", "approve", "wait long"]


async def played(folder: Path, script: Sequence[str]) -> World:
    world = World(folder)
    world.commands._groups = {"managers": ["lee"]}  # kim wrote nothing, yet dana started: lee alone may approve
    await world.started(make_plan(stages=STAGES), POLICY)
    for name in script:
        try:
            await ACTIONS[name](world)
        except RampartError:
            continue  # refused, as it may be
        await world.settle(2)
    return world


async def proofs(world: World) -> list[Proof]:
    runs = sorted(run for run in world.store.rows)
    return [await proof_of(world.store, run, whole=whole) for run in runs for whole in (False, True)]


@settings(max_examples=40, deadline=None)
@given(script=st.lists(st.sampled_from([*sorted(ACTIONS), *HEALTHY * 3]), max_size=14))
@example(script=[*HEALTHY, "kill", "reset", "start", "wait", "slow", "wait long"])
@example(script=["apply anew", "wait long", "advance", "restart", "step back", "wait", "resume", "wait long"])
@example(script=["wait", "turned by hand", "wait", "resume", "not a number", "wait long", "healthy", "wait long"])
@example(script=["wait long", "approve", "advance", "errors", "wait long", "healthy", "resume", *HEALTHY])
def test_every_run_that_was_ever_made_exports_and_verifies(script: list[str]) -> None:
    async def play() -> list[Proof]:
        with TemporaryDirectory() as folder:
            return await proofs(await played(Path(folder), script))

    with structlog.testing.capture_logs():
        made = asyncio.run(play())
    for proof in made:
        report = verify(msgspec.json.decode(msgspec.json.encode(proof), type=Proof))
        assert findings(report) == {}
        assert report.good


async def test_a_kill_that_was_decided_on_an_older_state_is_decided_again_on_that(tmp_path: Path) -> None:
    world = await played(tmp_path, ["wait"])
    await world.commands.pause(PLAN, KIM, "")
    world.source.sides = {"on": {"p95": 0.35}}
    await blind(world)
    run = await world.run()
    assert run.phase == "killed"
    proof = await proof_of(world.store, run.id)
    kill = entry_of(proof.rows[-1])
    assert (kill.action, kill.actor, kill.run_version) == ("kill", "rampart", run.version)
    assert kill.details["run"]["version"] == run.version - 2
    report = verify(proof)
    assert report.good
    checked = {check.name: check.checked for check in report.checks}
    assert checked["decisions"] == checked["states"] == len(proof.rows) - 2  # all but the two of people
