"""`serve --manifests` as a process: loaded once the database is there, on change, and once by several replicas."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.cli import main
from controller.settings import Settings
from tests.support import manifests
from tests.support.postgres import Frozen
from tests.support.replicas import Database, replicas
from tests.support.server import RampartServer, wait_until

SOURCE = manifests.scrape_settings("http://127.0.0.1:9/metrics")


@pytest.fixture
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    own = Database(tmp_path_factory.mktemp("database"))
    yield own
    own.stop()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "manifests"
    made.mkdir()
    (made / "quick.policy.yaml").write_text(manifests.policy())
    (made / "shop.rollout.yaml").write_text(manifests.plan("shop"))
    (made / "shop.flag.yaml").write_text(manifests.flag("shop"))
    return made


def bake(server: RampartServer) -> str | None:
    answer = server.request("GET", "/api/v1/plans/shop")
    return answer.json["plan"]["spec"]["stages"][0]["bake"] if answer.status == 200 else None


def applied(server: RampartServer) -> list[tuple[str, str]]:
    rows = [row["entry"] for row in server.audit()]
    return sorted((entry["actor"], entry["subject"]) for entry in rows if entry["action"] == "apply")


def in_force(server: RampartServer) -> bool:
    text = server.request("GET", "/metrics").body.decode()
    return re.search(r"^rampart_manifests_in_force{.*} 1", text, re.MULTILINE) is not None


FIRST = [("manifests", "policy/quick"), ("manifests", "shop"), ("manifests", "flag/shop")]


def test_the_folder_is_in_force_once_the_database_is_there_and_mistakes_change_nothing(
    tmp_path: Path, database: Database, folder: Path
) -> None:
    settings = SOURCE.replace("[database]\n", f'[database]\nurl = "{database.url}"\n')
    manifests_at = {"RAMPART_SERVER__MANIFESTS": str(folder)}
    server = RampartServer(tmp_path, settings)
    try:
        with Frozen(database.postmaster):
            server.start(wait_ready=False, env=manifests_at)
            server.wait_serving(seconds=60)
        server.wait_ready()
        wait_until(lambda: bake(server) == "1s", what="the folder to be loaded")
        assert applied(server) == sorted(FIRST)
        wait_until(lambda: in_force(server), what="the metric to say so")

        (folder / "shop.rollout.yaml").write_text(manifests.plan("shop", bake="sometime"))
        wait_until(lambda: not in_force(server), what="the mistake to be noticed")
        assert "shop.rollout.yaml:" in server.tail()
        (check,) = [one for one in server.call("GET", "doctor") if one["name"] == "manifests"]
        assert check["state"] == "fail"
        assert "shop.rollout.yaml:" in check["detail"]
        assert (bake(server), server.request("GET", "/readyz").status) == ("1s", 200), "killing needs no manifests"

        (folder / "shop.rollout.yaml").write_text(manifests.plan("shop", bake="2s"))
        wait_until(lambda: bake(server) == "2s", what="the change to be loaded")
        assert applied(server) == sorted([*FIRST, ("manifests", "shop")])
        assert server.call("GET", "plans")[0]["run"] is None, "nothing was started"
    finally:
        server.stop()


def test_two_replicas_with_the_same_folder_make_each_revision_once(
    tmp_path: Path, database: Database, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAMPART_SERVER__MANIFESTS", str(folder))
    (folder / "shop.rollout.yaml").write_text(manifests.plan("shop", bake="3s"))
    more = SOURCE.replace("[database]\ntimeout_seconds = 2.0\n", "")
    with replicas(tmp_path, database.url, more=more, count=2) as (one, two):
        wait_until(lambda: in_force(one) and in_force(two), what="both to have it in force")
        for seconds in (4, 5):
            (folder / "shop.rollout.yaml").write_text(manifests.plan("shop", bake=f"{seconds}s"))
            wait_until(lambda: bake(one) == f"{seconds}s", what="the change to be loaded")  # noqa: B023
            wait_until(lambda: in_force(one) and in_force(two), what="both to have it in force")
        assert applied(one) == sorted([*FIRST, *[("manifests", "shop")] * 2])

        leader, other = (one, two) if '"changed":["RolloutPlan/shop"]' in one.tail(100_000) else (two, one)
        leader.kill()
        (folder / "shop.rollout.yaml").write_text(manifests.plan("shop", bake="6s"))
        wait_until(lambda: bake(other) == "6s", what="the other to go on", seconds=60)


def test_the_command_refuses_a_folder_that_is_not_there(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "controller", "serve", "--manifests", str(tmp_path / "nowhere")]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
    assert told.returncode == 2
    assert "nowhere" in told.stderr


def test_the_option_of_the_command_is_the_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[Settings] = []

    def serve(settings: Settings) -> int:
        served.append(settings)
        return 0

    monkeypatch.setattr("controller.app.serve", serve)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAMPART_SERVER__BIND", "127.0.0.1:1")
    assert main(["serve", "--manifests", str(tmp_path)]) == 0
    (settings,) = served
    assert (settings.server.manifests, settings.server.bind) == (str(tmp_path), "127.0.0.1:1")
