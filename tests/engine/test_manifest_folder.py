"""A folder of manifests beside the server: what is in force, and what is told while it is not."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from controller.domain.audit import AuditEntry
from controller.errors import StoreUnavailable
from controller.manifest_folder import AGAIN_SECONDS, LEASE_SECONDS, LOOK_SECONDS, MOST_FILES, ManifestFolder
from controller.registrar import Registrar
from controller.store.memory import MemoryStore
from controller.telemetry import Metrics
from tests.api.fake_engine import FakeClock, observing
from tests.api.manifests import FLAG, PLAN, POLICY, SETTINGS
from tests.api.test_registrar import PickyProvider

SLOWER = PLAN.replace("30m", "45m")
SLOWEST = PLAN.replace("30m", "60m")


class Replica:
    """One server with a folder of its own, on a store that it may share."""

    def __init__(self, folder: Path, name: str = "one", beside: "Replica | None" = None) -> None:
        self.folder = folder
        self.folder.mkdir(exist_ok=True)
        self.clock: FakeClock = beside.clock if beside else FakeClock()
        self.store: MemoryStore = beside.store if beside else MemoryStore(self.clock.monotonic)
        self.provider: PickyProvider = beside.provider if beside else PickyProvider()
        self.away = False
        self.metrics = Metrics()
        providers = {"main": self.provider}
        registrar = Registrar(self.store, providers, SETTINGS, self.clock, observing(providers))
        self.manifests = ManifestFolder(
            folder, registrar=registrar, store=self._store(), owner=name, clock=self.clock, metrics=self.metrics
        )

    def _store(self) -> Any:
        replica = self

        class MayBeAway:
            def __getattr__(self, name: str) -> Any:
                if replica.away:
                    raise StoreUnavailable("nothing listens there")
                return getattr(replica.store, name)

        return MayBeAway()

    def write(self, **texts: str) -> None:
        for name, text in texts.items():
            (self.folder / f"{name.replace('_', '.')}.yaml").write_text(text)

    def fill(self) -> None:
        self.write(web_policy=POLICY, checkout_rollout=PLAN, checkout_flag=FLAG)

    async def look(self, times: int = 2) -> None:
        for _ in range(times):
            self.clock.passed += LOOK_SECONDS
            await self.manifests.look()

    async def bake(self) -> str | None:
        """Of the plan's first stage, as it stands on the server."""
        found = await self.store.plan("checkout")
        return found.plan.spec.stages[0].bake if found else None

    async def revision(self) -> int:
        found = await self.store.plan("checkout")
        return found.revision if found else 0

    @property
    def told(self) -> str:
        return self.manifests.check().detail

    @property
    def in_force(self) -> float | None:
        return self.metrics.registry.get_sample_value("rampart_manifests_in_force", {"folder": str(self.folder)})

    def entries(self) -> list[AuditEntry]:
        return [msgspec.json.decode(row.body, type=AuditEntry) for row in self.store.chain]


@pytest.fixture
def one(tmp_path: Path) -> Replica:
    replica = Replica(tmp_path / "one")
    replica.fill()
    return replica


# — one replica —


async def test_the_folder_is_loaded_at_the_start_in_the_name_of_the_folder(one: Replica) -> None:
    await one.look()
    assert {(entry.actor, entry.action, entry.subject) for entry in one.entries()} == {
        ("manifests", "apply", subject) for subject in ("policy/web", "flag/checkout", "checkout")
    }
    assert one.manifests.check().state == "ok"
    assert "3 files, loaded 2026-11-20 12:00:04 UTC" in one.told
    assert one.in_force == 1


async def test_files_that_did_not_change_make_no_new_revision(one: Replica) -> None:
    await one.look(20)
    for path in one.folder.iterdir():
        os.utime(path, (0, 0))
    await one.look(20)
    assert len(one.entries()) == 3


async def test_a_change_is_loaded_within_two_looks_and_touches_no_run(one: Replica) -> None:
    from tests.api.test_registrar import World

    await one.look()
    world = World()
    world.store = one.store
    run = await world.run()
    one.write(checkout_rollout=SLOWER)
    await one.look()
    assert await one.bake() == "45m"
    found = await one.store.run(run.id)
    assert found is not None
    assert found[0] == run
    assert [entry.action for entry in one.entries()] == ["apply"] * 3 + ["authorise", "apply"]


async def test_a_folder_that_is_still_being_written_is_waited_for(one: Replica) -> None:
    await one.look()
    for minutes in (41, 42, 43):
        one.write(checkout_rollout=PLAN.replace("30m", f"{minutes}m"))
        await one.look(1)
    assert await one.bake() == "30m"
    await one.look(1)
    assert (await one.bake(), await one.revision()) == ("43m", 2)


async def test_while_the_folder_is_bad_the_last_good_stays_and_it_is_told(one: Replica) -> None:
    await one.look()
    one.write(
        checkout_rollout=PLAN.replace("exposure: 1%", "exposure: 1"), web_policy=POLICY.replace("10%", "20%")
    )
    await one.look(10)
    assert len(one.entries()) == 3, "all files or none"
    assert one.manifests.check().state == "fail"
    assert "checkout.rollout.yaml:9:33:" in one.told
    assert "in force: 3 files, loaded" in one.told
    assert one.in_force == 0
    one.write(checkout_rollout=SLOWER)
    await one.look()
    assert (await one.bake(), one.manifests.check().state, one.in_force) == ("45m", "ok", 1)


async def test_a_bad_folder_that_is_put_back_is_in_force_again(one: Replica) -> None:
    await one.look()
    one.write(checkout_rollout="kind: [")
    await one.look(3)
    one.write(checkout_rollout=PLAN)
    await one.look(1)
    assert (one.manifests.check().state, one.in_force, len(one.entries())) == ("ok", 1, 3)


async def test_a_file_that_cannot_be_read_stops_the_whole_load(one: Replica) -> None:
    (one.folder / "gone.policy.yaml").symlink_to(one.folder / "nowhere")
    await one.look()
    assert one.entries() == []
    assert "cannot read gone.policy.yaml" in one.told


async def test_a_folder_that_is_not_there_is_told_and_looked_for(tmp_path: Path) -> None:
    replica = Replica(tmp_path / "one")
    replica.folder.rmdir()
    await replica.look()
    assert "No such file or directory" in replica.told
    replica.folder.mkdir()
    replica.fill()
    await replica.look()
    assert await replica.bake() == "30m"


async def test_a_file_that_was_deleted_deletes_nothing_and_that_is_told(one: Replica) -> None:
    await one.look()
    (one.folder / "checkout.rollout.yaml").unlink()
    await one.look()
    assert await one.bake() == "30m"
    check = one.manifests.check()
    assert check.state == "warn"
    assert "still there: RolloutPlan/checkout" in check.detail
    again = Replica(one.folder, beside=one)
    await again.look()
    assert "still there: RolloutPlan/checkout" in again.told, "also after a restart"


async def test_what_a_provider_refuses_is_tried_again_without_a_change(one: Replica) -> None:
    (one.folder / "checkout.flag.yaml").unlink()
    one.provider.against = ["there is no flag checkout yet"]
    await one.look(3)
    assert one.entries() == []
    assert "checkout: there is no flag checkout yet" in one.told
    one.provider.against = []
    await one.look(1 + int(AGAIN_SECONDS / LOOK_SECONDS))
    assert await one.bake() == "30m"


async def test_a_database_that_is_away_at_the_start_is_waited_for(one: Replica) -> None:
    one.away = True
    await one.look(5)
    assert "the database does not answer" in one.told
    one.away = False
    await one.look()
    assert await one.bake() == "30m"
    one.away = True
    await one.look()
    assert one.in_force == 0
    one.away = False
    await one.look()
    assert (one.manifests.check().state, len(one.entries())) == ("ok", 3)


async def test_what_a_person_applies_stands_until_the_folder_changes(one: Replica) -> None:
    await one.look()
    providers = {"main": one.provider}
    registrar = Registrar(one.store, providers, SETTINGS, one.clock, observing(providers))
    from tests.api.test_registrar import DANA

    await registrar.apply([("hotfix.yaml", SLOWER.encode())], DANA, dry_run=False)
    await one.look(20)
    assert await one.bake() == "45m"
    one.write(checkout_rollout=SLOWEST)
    await one.look()
    assert await one.bake() == "60m"


async def test_too_many_files_are_refused_and_not_read(tmp_path: Path) -> None:
    replica = Replica(tmp_path / "one")
    for number in range(MOST_FILES + 1):
        (replica.folder / f"{number}.policy.yaml").touch()
    await replica.look()
    assert f"at most {MOST_FILES} are read" in replica.told


async def test_what_is_not_expected_does_not_end_the_looking(
    one: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RecursionError

    with monkeypatch.context() as patched:
        patched.setattr("controller.registrar.lint", broken)
        await one.look()
    assert "failed with RecursionError" in one.told
    await one.look(1 + int(AGAIN_SECONDS / LOOK_SECONDS))
    assert await one.bake() == "30m"


# — as Kubernetes mounts it —


class ConfigMap:
    """A mounted ConfigMap: generations in hidden folders, a hidden link to the present one, links to its files."""

    def __init__(self, folder: Path, files: dict[str, str]) -> None:
        self.folder = folder
        self.generation = 0
        self.swap(files)
        for name in files:
            (folder / name).symlink_to(Path("..data") / name)

    def swap(self, files: dict[str, str]) -> None:
        old = self.folder / f"..{self.generation}"
        self.generation += 1
        new = self.folder / f"..{self.generation}"
        new.mkdir()
        for name, text in files.items():
            (new / name).write_text(text)
        (self.folder / "..tmp").symlink_to(new.name)
        (self.folder / "..tmp").rename(self.folder / "..data")
        if old.exists():
            for path in old.iterdir():
                path.unlink()
            old.rmdir()


async def test_a_mounted_config_map_is_read_once_and_its_swap_is_noticed(tmp_path: Path) -> None:
    replica = Replica(tmp_path / "one")
    files = {"web.policy.yaml": POLICY, "checkout.rollout.yaml": PLAN, "checkout.flag.yaml": FLAG}
    mounted = ConfigMap(replica.folder, files)
    await replica.look()
    assert "3 files" in replica.told
    mounted.swap({**files, "checkout.rollout.yaml": SLOWER})
    await replica.look()
    assert await replica.bake() == "45m"


async def test_a_folder_that_is_a_link_is_followed_when_it_leads_elsewhere(tmp_path: Path) -> None:
    for name, text in (("before", PLAN), ("after", SLOWER)):
        (tmp_path / name).mkdir()
        for file, content in (("web.policy", POLICY), ("checkout.rollout", text), ("checkout.flag", FLAG)):
            (tmp_path / name / f"{file}.yaml").write_text(content)
    current = tmp_path / "current"
    current.symlink_to("before")
    replica = Replica(current)
    await replica.look()
    assert await replica.bake() == "30m"
    (tmp_path / "next").symlink_to("after")
    (tmp_path / "next").rename(current)
    await replica.look()
    assert await replica.bake() == "45m"


async def test_folders_below_are_read_and_one_that_leads_back_is_read_once(tmp_path: Path) -> None:
    replica = Replica(tmp_path / "one")
    below = replica.folder / "team" / "checkout"
    below.mkdir(parents=True)
    (below / "web.policy.yaml").write_text(POLICY)
    (below / "back").symlink_to(replica.folder)
    (replica.folder / "linked").symlink_to(below)
    await replica.look()
    assert "1 file, loaded" in replica.told
    assert [one.policy.metadata.name for one in await replica.store.policies()] == ["web"]


# — several replicas on one database —

Make = Callable[[str], Replica]


@pytest.fixture
def beside(one: Replica, tmp_path: Path) -> Make:
    def make(name: str) -> Replica:
        replica = Replica(tmp_path / name, name, beside=one)
        replica.fill()
        return replica

    return make


async def test_the_same_folder_on_two_replicas_makes_each_revision_once(one: Replica, beside: Make) -> None:
    two = beside("two")
    for text in (PLAN, SLOWER):
        for replica in (one, two):
            replica.write(checkout_rollout=text)
        for _ in range(4):
            await one.look(1)
            await two.look(1)
    assert (await one.revision(), len(one.entries())) == (2, 4)
    assert (one.in_force, two.in_force) == (1, 1)


@pytest.mark.parametrize("first", ["one", "two"])
async def test_replicas_that_see_a_change_at_different_times_do_not_undo_it(
    one: Replica, beside: Make, first: str
) -> None:
    two = beside("two")
    await one.look()
    await two.look()
    early, late = (one, two) if first == "one" else (two, one)
    early.write(checkout_rollout=SLOWER)
    for _ in range(30):
        await early.look(1)
        await late.look(1)
    assert await one.revision() == (2 if first == "one" else 1)
    late.write(checkout_rollout=SLOWER)
    for _ in range(10):
        await early.look(1)
        await late.look(1)
    assert (await one.bake(), await one.revision()) == ("45m", 2)
    assert (one.in_force, two.in_force) == (1, 1)


async def test_two_folders_that_stay_different_do_not_overwrite_each_other_and_that_is_told(
    one: Replica, beside: Make
) -> None:
    two = beside("two")
    two.write(checkout_rollout=SLOWER)
    for _ in range(100):
        await one.look(1)
        await two.look(1)
    assert (await one.bake(), await one.revision()) == ("30m", 1)
    assert (one.in_force, two.in_force) == (1, 0)
    assert "another replica leads" in two.told


async def test_when_the_leading_replica_is_gone_another_goes_on_with_its_own_changes_only(
    one: Replica, beside: Make
) -> None:
    two = beside("two")
    await one.look()
    await two.look()
    one.write(checkout_rollout=SLOWER)
    await one.look()
    await two.look(int(LEASE_SECONDS / LOOK_SECONDS) + 5)
    assert await one.bake() == "45m", "what two holds was loaded before, and did not change since"
    two.write(checkout_rollout=SLOWEST)
    await two.look()
    assert await one.bake() == "60m"


async def test_a_change_that_the_leading_replica_never_saw_is_loaded_by_the_next(
    one: Replica, beside: Make
) -> None:
    two = beside("two")
    await one.look()
    two.write(checkout_rollout=SLOWER)
    await two.look()
    assert await one.bake() == "30m"
    await two.look(int(LEASE_SECONDS / LOOK_SECONDS) + 2)
    assert await one.bake() == "45m"


async def test_a_replica_that_cannot_read_its_folder_does_not_lead(one: Replica, beside: Make) -> None:
    two = beside("two")
    await one.look()
    (one.folder / "gone.policy.yaml").symlink_to(one.folder / "nowhere")
    two.write(checkout_rollout=SLOWER)
    for _ in range(2 * int(LEASE_SECONDS / LOOK_SECONDS)):
        await one.look(1)
        await two.look(1)
    assert await one.bake() == "45m"
