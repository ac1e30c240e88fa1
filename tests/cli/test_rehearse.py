"""`rampart test`: what it reads, what it shows, how it ends; and that it needs nothing but files."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.cli.conftest import Rampart
from tests.cli.test_startup import SERVER_MODULES, loaded_after

POLICY = """\
apiVersion: rampart/v1
kind: GuardrailPolicy
metadata: { name: web, owner: team-sre }
spec:
  source: prometheus
  metrics:
    error_rate:
      bad:   requests_total{flag="$flag",environment="$environment",variation="$variation",code=~"5.."}
      total: requests_total{flag="$flag",environment="$environment",variation="$variation"}
  rules:
    - { id: errors-high, if: error_rate > 1%, for: 5m, then: pause }
    - { id: errors-jump, if: error_rate > 10%, for: 2m, then: kill }
"""
TEST = """\
apiVersion: rampart/v1
kind: RolloutTest
metadata: { name: web, owner: team-sre }
spec:
  policy: web
  tests:
    - name: many errors kill
      rollout: { error_rate: 0% for 10m then 50% }
      expect: [kill at 13m by errors-jump]
    - name: a few errors do nothing
      rollout: { error_rate: 0.2% for 10m then 4% }
      expect: [nothing until 30m]
"""
GOOD = TEST.replace("a few errors do nothing", "a few errors pause").replace(
    "nothing until 30m", "pause at 16m15s by errors-high"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "web.policy.yaml").write_text(POLICY)
    (tmp_path / "web.test.yaml").write_text(GOOD)
    return tmp_path


def test_a_folder_whose_tests_pass_ends_with_0(rampart: Rampart, folder: Path) -> None:
    done = rampart("test", ".")
    assert done.returncode == 0, done.stdout
    assert done.stdout == "web.test.yaml\n  ✔ many errors kill\n  ✔ a few errors pause\n"
    assert done.stderr == "2 tests passed, 0 failed\n"


def test_a_test_that_fails_ends_with_1_and_shows_place_and_timeline(rampart: Rampart, folder: Path) -> None:
    (folder / "web.test.yaml").write_text(TEST)
    done = rampart("test", "web.test.yaml")
    assert done.returncode == 1
    assert "  ✘ a few errors do nothing\n    web.test.yaml:12:16: expected nothing until 30m" in done.stdout
    assert "at 16m15s it was paused by errors-high" in done.stdout
    assert "paused by web/errors-high: error_rate 4 % against a limit of 1 % for 5m" in done.stdout
    assert "killed" not in done.stdout.partition("✘")[0], "what passed is not told at length"
    assert done.stderr == "1 test passed, 1 failed\n"


def test_verbose_tells_what_happened_in_tests_that_passed(rampart: Rampart, folder: Path) -> None:
    done = rampart("test", ".", "-v", "-k", "MANY")
    assert "killed by web/errors-jump" in done.stdout
    assert done.stderr == "1 test passed, 0 failed\n"


def test_json_has_every_test_with_findings_and_timeline(rampart: Rampart, folder: Path) -> None:
    (folder / "web.test.yaml").write_text(TEST)
    done = rampart("test", ".", "-o", "json")
    passed, failed = json.loads(done.stdout)
    assert (done.returncode, passed["passed"], failed["passed"]) == (1, True, False)
    assert passed["fired"] == ["web/errors-jump"]
    assert (failed["file"], failed["line"]) == ("web.test.yaml", 10)
    assert failed["findings"][0]["expected"] == "nothing until 30m"
    assert [moment["action"] for moment in passed["timeline"] if moment["action"] != "hold"] == [
        "start", "confirm", "kill",
    ]  # fmt: skip


def test_junit_is_what_ci_reads(rampart: Rampart, folder: Path) -> None:
    (folder / "web.test.yaml").write_text(TEST)
    suites = ElementTree.fromstring(rampart("test", ".", "-o", "junit").stdout.partition("?>")[2])
    (suite,) = suites
    assert suite.attrib == {"name": "web.test.yaml", "tests": "2", "failures": "1"}
    good, bad = suite
    assert (good.get("name"), good.get("classname"), len(good)) == ("many errors kill", "web", 0)
    (failure,) = bad
    assert "expected nothing until 30m" in (failure.get("message") or "")
    assert "what happened:" in (failure.text or "")


def test_a_mistake_is_told_with_its_place_before_anything_is_played(rampart: Rampart, folder: Path) -> None:
    (folder / "web.test.yaml").write_text(GOOD.replace("by errors-jump", "by errors-jmp").replace("50%", "50"))
    done = rampart("test", ".")
    assert done.returncode == 1
    assert done.stdout == ""
    assert 'web.test.yaml:9:31: R403 no rule is called "errors-jmp"' in done.stderr
    assert 'did you mean "errors-jump"?' in done.stderr
    assert 'R404 "50" is not a share' in done.stderr


def test_a_policy_that_is_not_there_fails_the_test_that_needs_it(rampart: Rampart, folder: Path) -> None:
    (folder / "web.policy.yaml").unlink()
    done = rampart("test", ".")
    assert done.returncode == 1
    assert 'no policy is called "web" here' in done.stdout


def test_a_policy_may_be_given_from_elsewhere(rampart: Rampart, folder: Path) -> None:
    (folder / "elsewhere").mkdir()
    (folder / "web.policy.yaml").rename(folder / "elsewhere" / "web.policy.yaml")
    assert rampart("test", "web.test.yaml", "elsewhere/web.policy.yaml").returncode == 0


@pytest.mark.parametrize("arguments", [["-k", "nothing is called so", "."], ["web.policy.yaml"]])
def test_no_test_at_all_is_wrong_usage(rampart: Rampart, folder: Path, arguments: list[str]) -> None:
    done = rampart("test", *arguments)
    assert done.returncode == 2
    assert "no test" in done.stderr


def test_a_test_is_neither_applied_nor_in_the_way_of_an_apply(rampart: Rampart, folder: Path) -> None:
    done = rampart("lint", ".")
    assert done.returncode == 0, done.stdout
    assert "in 2 files" in done.stderr


def test_a_rehearsal_loads_neither_the_server_nor_a_network(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    call = "import sys, io\nout, sys.stdout = sys.stdout, io.StringIO()\n"
    call += "from controller.cli import main\ncode = main(['test', '.'])\nsys.stdout = out\nassert code == 0"
    loaded = loaded_after(call)
    assert "controller.rehearsal.running" in loaded
    assert loaded.isdisjoint({*SERVER_MODULES, "prometheus_client", "controller.store", "controller.providers"})
