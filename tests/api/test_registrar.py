"""Applying: all that is wrong is said at once, nothing is stored then, and running runs are left alone."""

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from controller.access import Actor
from controller.delivery.entrance import KINDS
from controller.domain.audit import AuditEntry
from controller.domain.catalogue import Kill, Scope
from controller.domain.flag import FlagState
from controller.domain.plan import FlagRef, RolloutPlan
from controller.domain.rollout import Run
from controller.domain.sdkflag import opens
from controller.errors import Forbidden, Refused, StoreUnavailable
from controller.registrar import InvalidManifests, Registrar
from controller.settings import Section
from controller.store.memory import MemoryStore
from tests.api.fake_engine import FakeClock, observing
from tests.api.manifests import FLAG, PLAN, POLICY, SETTINGS, files
from tests.support.engine import ModelProvider

REF = FlagRef(provider="main", environment="production", key="checkout")
DANA = Actor(name="dana", scopes=("author",))


def author_in(*environments: str, scopes: tuple[Scope, ...] = ("author",)) -> Actor:
    return Actor(name="kim", scopes=scopes, environments=environments)


class PickyProvider(ModelProvider):
    def __init__(self) -> None:
        super().__init__()
        self.against: list[str] = []

    async def objections(self, plan: RolloutPlan) -> Sequence[str]:
        return self.against


class Elsewhere(Section, frozen=True, tag_field="kind", tag="elsewhere"):
    """Settings of a provider whose flags are not Rampart's."""


class World:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.store = MemoryStore(self.clock.monotonic)
        self.provider = PickyProvider()
        self.taken_up = 0
        self.take_up_fails = False
        providers = {"main": self.provider}
        self.registrar = Registrar(
            self.store, providers, SETTINGS, self.clock, observing(providers), self._take_up
        )

    async def _take_up(self) -> None:
        self.taken_up += 1
        if self.take_up_fails:
            raise StoreUnavailable("away")

    async def apply(self, *texts: str, actor: Actor = DANA, dry_run: bool = False, note: str = "") -> Any:
        self.clock.passed += 1
        return await self.registrar.apply(files(*texts), actor, dry_run=dry_run, note=note)

    async def names(self) -> set[str]:
        plans = {one.plan.metadata.name for one in await self.store.plans()}
        policies = {f"policy {one.policy.metadata.name}" for one in await self.store.policies()}
        return plans | policies | {f"flag {one.key}" for one in await self.store.flag_configs()}

    def entry(self, action: str) -> AuditEntry:
        return AuditEntry(
            id=f"{action}-{len(self.store.chain)}", at=self.clock.now(), actor="dana", action=action, cause="user",
            subject="test", environment="production", reason=action,
        )  # fmt: skip

    async def run(self, flag: FlagRef = REF) -> Run:
        run = Run(
            id="checkout", plan="checkout", number=0, plan_revision=1, policy_revisions={"web": 1}, flag=flag,
            author="dana", started_by="dana", created_at=self.clock.now(),
        )  # fmt: skip
        return await self.store.create_run(run, self.entry("authorise"))


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize("texts", list(permutations([POLICY, PLAN, FLAG])))
async def test_the_order_of_the_files_does_not_matter(world: World, texts: tuple[str, ...]) -> None:
    result = await world.apply(*texts)
    assert result.applied
    assert await world.names() == {"checkout", "policy web", "flag checkout"}
    stored = [msgspec.json.decode(row.body, type=AuditEntry).subject for row in world.store.chain]
    assert stored == ["policy/web", "flag/checkout", "checkout"]
    assert world.taken_up == 1


async def test_a_dry_run_answers_the_same_and_stores_nothing(world: World) -> None:
    previewed = await world.apply(POLICY, PLAN, FLAG, dry_run=True)
    assert await world.names() == set()
    assert world.store.chain == []
    assert world.taken_up == 0
    applied = await world.apply(POLICY, PLAN, FLAG)
    assert (previewed.applied, applied.applied) == (False, True)
    assert previewed.changes == applied.changes


async def test_applying_the_same_again_changes_and_records_nothing(world: World) -> None:
    first = await world.apply(POLICY, PLAN, FLAG)
    rows = len(world.store.chain)
    again = await world.apply(POLICY, PLAN, FLAG)
    assert again.changes == []
    assert again.revisions == first.revisions
    assert len(world.store.chain) == rows


async def test_each_change_is_audited_with_who_what_and_why(world: World) -> None:
    await world.apply(POLICY, PLAN, FLAG)
    rows = len(world.store.chain)
    result = await world.apply(PLAN.replace("30m", "45m"), note="slower, please")
    (change,) = result.changes
    assert (change.path, change.before, change.after) == ("spec.stages[0].bake", "30m", "45m")
    assert result.revisions == {"RolloutPlan/checkout": 2}
    (row,) = world.store.chain[rows:]
    entry = msgspec.json.decode(row.body, type=AuditEntry)
    assert (entry.actor, entry.action, entry.subject) == ("dana", "apply", "checkout")
    assert entry.environment == "production"
    assert entry.reason == "dana changed the plan checkout: slower, please"
    assert entry.details["changes"][0]["path"] == "spec.stages[0].bake"


async def test_all_problems_of_all_files_are_told_and_nothing_is_stored(world: World) -> None:
    with pytest.raises(InvalidManifests) as caught:
        await world.apply(POLICY, PLAN.replace("exposure: 1%", "exposur: 1%"), FLAG.replace("key:", "kee:"))
    findings = [one for one in caught.value.findings if one.severity == "error"]
    assert {one.file for one in findings} == {"file-1.yaml", "file-2.yaml"}
    assert all(one.line > 1 and one.column > 1 and one.message for one in findings)
    assert "file-1.yaml:" in str(caught.value)
    assert await world.names() == set()


async def test_what_only_the_server_knows_is_checked(world: World) -> None:
    with pytest.raises(InvalidManifests, match="elsewhere"):
        await world.apply(POLICY.replace("source: prom", "source: elsewhere"))
    with pytest.raises(InvalidManifests, match="web"):
        await world.apply(PLAN)
    await world.apply(POLICY)
    await world.apply(PLAN)
    assert "checkout" in await world.names()


async def test_a_file_that_is_too_large_is_a_problem_of_that_file(world: World) -> None:
    with pytest.raises(InvalidManifests) as caught:
        await world.apply(POLICY, "# " + "x" * 256 * 1024 + PLAN)
    errors = [(one.file, one.code) for one in caught.value.findings if one.severity == "error"]
    assert errors == [("file-1.yaml", "R000")]


async def test_warnings_come_with_the_result(world: World) -> None:
    result = await world.apply(
        POLICY.replace("- { id: errors-jump, if: error_rate > 10%, for: 2m, then: kill }", "")
    )
    assert any("R050" in warning and warning.startswith("file-0.yaml:") for warning in result.warnings)


async def test_a_plan_the_provider_cannot_represent_is_refused_with_the_reasons(world: World) -> None:
    world.provider.against = ["no flag checkout in production", "percent steps only"]
    with pytest.raises(Refused) as caught:
        await world.apply(POLICY, PLAN)
    assert caught.value.blocks == ("checkout: no flag checkout in production", "checkout: percent steps only")
    assert await world.names() == set()


async def test_a_flag_that_comes_with_its_plan_need_not_be_known_to_the_provider(world: World) -> None:
    world.provider.against = ["no flag checkout in production"]
    assert (await world.apply(PLAN, POLICY, FLAG)).applied


async def test_a_flag_that_serves_something_else_when_off_is_refused_with_its_plan(world: World) -> None:
    with pytest.raises(Refused) as caught:
        await world.apply(PLAN, POLICY, FLAG + '  off: "on"\n')
    assert "the fallback of the plan" in caught.value.blocks[0]


async def test_a_built_in_flag_beside_a_plan_for_the_same_key_elsewhere_answers_for_nothing(world: World) -> None:
    """Its variations are other ones, and only the provider there knows whether its own flag fits."""
    elsewhere = PickyProvider()
    elsewhere.against = ["no flag checkout in project shop"]
    settings = replace(SETTINGS, providers={**SETTINGS.providers, "there": Elsewhere()})
    providers = {"main": world.provider, "there": elsewhere}
    registrar = Registrar(world.store, providers, settings, world.clock, observing(providers))
    there = PLAN.replace("provider: main", "provider: there").replace('"on", fallback', '"new", fallback')
    with pytest.raises(Refused) as refused:
        await registrar.apply(files(POLICY, there, FLAG), DANA, dry_run=False)
    assert refused.value.blocks == ("checkout: no flag checkout in project shop",)

    elsewhere.against = []
    await registrar.apply(files(POLICY, there, FLAG), DANA, dry_run=False)
    elsewhere.flags[replace(REF, provider="there")] = FlagState(enabled=True, exposure=1_000)
    again = await registrar.apply(files(there, FLAG), DANA, dry_run=True, look=True)
    assert [one.unread for one in again.flags] == [""]


async def test_a_run_and_a_kill_elsewhere_leave_a_built_in_flag_of_that_key_free_to_change(world: World) -> None:
    await world.apply(POLICY, PLAN, FLAG)
    run = await world.run(replace(REF, provider="there"))
    kill = Kill(id="kill-1", flag=run.flag, accepted_at=world.clock.now(), actor="dana", reason="INC-1")
    await world.store.record_kill(kill, world.entry("kill"))
    await world.apply(FLAG + "  clientSide: true\n")
    (config,) = await world.store.flag_configs()
    assert opens("client", config.data)


async def test_runs_under_way_stay_where_they_are_and_are_named(world: World) -> None:
    await world.apply(POLICY, PLAN, FLAG)
    run = await world.run()
    assert (await world.apply(POLICY, PLAN)).pinned_runs == []
    assert (await world.apply(PLAN.replace("30m", "45m"))).pinned_runs == [run.id]
    assert (await world.apply(POLICY.replace("5m", "6m"))).pinned_runs == [run.id]
    latest = await world.store.run(run.id)
    assert latest is not None
    assert (latest[0].plan_revision, latest[0].policy_revisions) == (1, {"web": 1})


# — authority —


async def test_an_author_of_another_environment_applies_no_plan_or_flag(world: World) -> None:
    staging = author_in("staging")
    await world.apply(POLICY)
    for text in (PLAN, FLAG):
        with pytest.raises(Forbidden, match="production"):
            await world.apply(text, actor=staging)
    assert await world.names() == {"policy web"}
    assert (await world.apply(PLAN, FLAG, actor=author_in("production"))).applied


async def test_nobody_takes_over_a_plan_by_moving_it_to_an_environment_of_theirs(world: World) -> None:
    await world.apply(POLICY, PLAN, FLAG)
    moved = PLAN.replace("environment: production", "environment: staging")
    with pytest.raises(Forbidden, match="production"):
        await world.apply(moved, actor=author_in("staging"))


async def test_a_policy_is_changed_only_by_authors_of_every_environment_that_uses_it(world: World) -> None:
    await world.apply(POLICY, PLAN)
    looser = POLICY.replace("error_rate > 1%", "error_rate > 50%")
    with pytest.raises(Forbidden, match="production"):
        await world.apply(looser, actor=author_in("staging"))
    assert (await world.apply(looser, actor=author_in("staging", "production"))).applied


async def test_what_does_not_change_needs_no_authority(world: World) -> None:
    await world.apply(POLICY, PLAN, FLAG)
    assert (await world.apply(POLICY, PLAN, FLAG, actor=author_in("staging"))).changes == []


# — built-in flags —

THREE = FLAG + "  variations: { 'on': true, 'off': false, blue: 7 }\n"


async def test_a_new_flag_is_off_and_its_version_follows_the_clock(world: World) -> None:
    await world.apply(FLAG)
    (flag,) = await world.store.flag_configs()
    assert flag.data["on"] is False
    assert flag.version == int(world.clock.now().timestamp() * 1000)


async def test_new_variations_at_the_end_change_nothing_for_those_who_have_one(world: World) -> None:
    await world.apply(FLAG)
    (before,) = await world.store.flag_configs()
    assert (await world.apply(THREE)).revisions["Flag/checkout"] > before.version
    (after,) = await world.store.flag_configs()
    assert after.data["variations"] == [True, False, 7]
    kept = ("salt", "on", "fallthrough", "offVariation", "rules")
    assert {name: after.data[name] for name in kept} == {name: before.data[name] for name in kept}
    assert after.data["version"] == after.version > before.version


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (
            FLAG + "  variations: { 'on': true, off: false, blue: 7 }\n  off: blue\n",
            "stays what it serves when off",
        ),
        (FLAG + "  variations: { 'on': true, red: 1 }\n  off: red\n", "removed"),
        (FLAG + "  variations: { blue: 7, 'on': true, 'off': false }\n", "reordered"),
    ],
)
async def test_variations_that_contexts_are_assigned_to_do_not_move(world: World, changed: str, why: str) -> None:
    await world.apply(FLAG)
    before = await world.store.flag_configs()
    with pytest.raises(Refused) as caught:
        await world.apply(changed)
    assert any(why in block for block in caught.value.blocks)
    assert await world.store.flag_configs() == before


async def test_variations_that_a_run_is_using_do_not_change(world: World) -> None:
    await world.apply(POLICY, PLAN, FLAG)
    await world.run()
    with pytest.raises(Refused) as caught:
        await world.apply(THREE)
    assert "checkout#1" in caught.value.blocks[0]


async def test_a_flag_that_is_held_down_by_a_kill_does_not_change(world: World) -> None:
    await world.apply(FLAG)
    kill = Kill(id="kill-1", flag=REF, accepted_at=world.clock.now(), actor="dana", reason="bad")
    await world.store.record_kill(kill, world.entry("kill"))
    with pytest.raises(Refused) as caught:
        await world.apply(THREE)
    assert "reset it first" in caught.value.blocks[0]


async def test_a_replica_that_cannot_take_it_up_at_once_has_still_applied_it(world: World) -> None:
    world.take_up_fails = True
    assert (await world.apply(POLICY)).applied
    assert await world.names() == {"policy web"}


async def test_who_may_see_a_flag_is_what_its_manifest_says_last(world: World) -> None:
    seen = FLAG + "  clientSide: true\n"

    async def availability() -> dict[str, bool]:
        (stored,) = await world.store.flag_configs()
        assert stored.data["clientSide"] is stored.data["clientSideAvailability"]["usingMobileKey"]
        return {kind: opens(kind, stored.data) for kind in KINDS}

    await world.apply(FLAG)
    assert await availability() == {"server": True, "mobile": False, "client": False}
    (change,) = (await world.apply(seen)).changes
    assert "clientSide" in change.path
    assert await availability() == {"server": True, "mobile": True, "client": True}
    assert (await world.apply(seen)).changes == []
    await world.apply(FLAG)
    assert await availability() == {"server": True, "mobile": False, "client": False}
