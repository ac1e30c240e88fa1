"""The recipe of docs/ci.md is run as it stands: a clean pull request, its merge, and a mistake that is stopped."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.cli import main
from tests.support.repository import ROOT, blocks
from tests.support.server import RampartServer, serving

PAGE = ROOT / "docs" / "ci.md"
HOOKS = {hook["id"]: hook for hook in yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())}
CONFIGURATION, WORKFLOW = (yaml.load(block, yaml.BaseLoader) for block in blocks(PAGE, "yaml"))
OURS = re.compile(r"^rampart ", re.MULTILINE)
TOKENS = [line.split() for line in blocks(PAGE, "sh")[0].splitlines()]
SOURCE = '[sources.prod-prometheus]\nkind = "prometheus"\nurl = "http://127.0.0.1:9"\n'


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with the manifests of `rampart init`, and the command on the path."""
    desk = tmp_path / "desk"
    (desk / "bin").mkdir(parents=True)
    (desk / "bin" / "rampart").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m controller "$@"\n')
    (desk / "bin" / "rampart").chmod(0o755)
    monkeypatch.chdir(desk)
    monkeypatch.setenv("PATH", f"{desk / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert main(["init", "--flag", "checkout-v2", "--service", "checkout", "--folder", "rollouts"]) == 0
    return desk


def shell(script: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-eo", "pipefail", "-c", script],
        env={**os.environ, **(environment or {})}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def steps(job: str) -> list[dict[str, Any]]:
    """Those that run a command of ours."""
    return [
        one for one in WORKFLOW["jobs"][job]["steps"] if "rampart " in one.get("run", "").replace("/rampart", "")
    ]


def spoil(desk: Path, file: str, old: str, new: str) -> None:
    path = desk / "rollouts" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


# — hooks —


def hook(name: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """As pre-commit calls it: the entry, the arguments of the configuration, and the files that match."""
    (wanted,) = [one for repo in CONFIGURATION["repos"] for one in repo["hooks"] if one["id"] == name]
    found = HOOKS[name]
    arguments = wanted.get("args", found.get("args", []))
    files = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file()]
    matching = [path for path in files if re.search(found["files"], path)]
    assert matching
    passed = matching if found.get("pass_filenames", True) else []
    return shell(" ".join([found["entry"], *arguments, *passed]))


def test_every_hook_of_the_page_is_there_and_passes_what_init_writes(desk: Path) -> None:
    named = [one["id"] for repo in CONFIGURATION["repos"] for one in repo["hooks"]]
    assert named == list(HOOKS)
    before = {path: path.read_bytes() for path in (desk / "rollouts").iterdir()}
    for name in named:
        called = hook(name, desk)
        assert called.returncode == 0, called.stdout + called.stderr
    assert {path: path.read_bytes() for path in before} == before


def test_each_hook_stops_its_kind_of_mistake(desk: Path) -> None:
    spoil(desk, "checkout.policy.yaml", "error_rate > 10%", "eror_rate > 10%")
    assert hook("rampart-lint", desk).returncode == 1
    spoil(desk, "checkout.policy.yaml", "eror_rate > 10%", "error_rate > 90%")
    tested = hook("rampart-test", desk)
    assert tested.returncode == 1
    assert "one request in five fails" in tested.stdout
    spoil(desk, "checkout.policy.yaml", "  source:", "  source:   ")
    laid_out = desk / "rollouts" / "checkout.policy.yaml"
    before = laid_out.read_text()
    hook("rampart-fmt", desk)
    assert laid_out.read_text() != before, "a hook that changes a file stops the commit"


# — the workflow —


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RampartServer]:
    with serving(tmp_path_factory.mktemp("server"), SOURCE, wait_ready=False) as running:
        running.wait_ready(seconds=90)
        yield running


def secrets(server: RampartServer) -> dict[str, str]:
    """The tokens that the page creates, as the workflow gets them."""
    made = {}
    for words in TOKENS:
        arguments = [*words[1:], "--url", server.url, "-o", "json"]
        told = shell("rampart " + " ".join(arguments), {"RAMPART_TOKEN": server.token})
        assert told.returncode == 0, told.stderr
        made[words[3]] = yaml.safe_load(told.stdout)["secret"]
    return {"RAMPART_READ": made["ci-read"], "RAMPART_APPLY": made["ci"]}


def played(job: str, server: RampartServer, tokens: Mapping[str, str], summary: Path) -> list[Any]:
    """The steps of a job one after the other, until one fails, as GitHub does."""
    done = []
    for step in steps(job):
        given = {
            name: re.sub(r"\$\{\{ secrets\.(\w+) \}\}", lambda found: tokens[found[1]], value)
            for name, value in step.get("env", {}).items()
        }
        environment = {
            **given, "RAMPART_URL": server.url, "GITHUB_STEP_SUMMARY": str(summary), "GITHUB_SHA": "4a69d75",
        }  # fmt: skip
        done.append(shell(step["run"], environment))
        if done[-1].returncode:
            break
    return done


@pytest.mark.timeout(300)
def test_the_workflow_compares_in_the_pull_request_and_applies_after_the_merge(
    desk: Path, server: RampartServer, tmp_path: Path
) -> None:
    tokens, summary = secrets(server), tmp_path / "summary.md"
    checked = played("check", server, tokens, summary)
    assert [one.returncode for one in checked] == [0] * 4, checked[-1].stdout + checked[-1].stderr
    assert "RolloutPlan checkout-v2\n  + (the whole document)" in summary.read_text()
    assert server.call("GET", "plans") == [], "a pull request changes nothing"

    (applied,) = played("apply", server, tokens, summary)
    assert applied.returncode == 0, applied.stderr
    (plan,) = server.call("GET", "plans")
    assert (plan["plan"], plan["run"]) == ("checkout-v2", None)
    entries = [row["entry"] for row in server.audit() if row["entry"]["action"] == "apply"]
    assert {entry["actor"] for entry in entries} == {"ci"}
    assert all(entry["reason"].endswith(": 4a69d75") for entry in entries)

    summary.unlink()
    assert [one.returncode for one in played("check", server, tokens, summary)] == [0] * 4
    assert "main/production/checkout-v2 at the provider: off" in summary.read_text()

    with_read = shell(f"RAMPART_TOKEN={tokens['RAMPART_READ']} rampart apply rollouts --url {server.url}")
    assert with_read.returncode == 4
    started = shell(f"RAMPART_TOKEN={tokens['RAMPART_APPLY']} rampart start checkout-v2 --url {server.url}")
    assert started.returncode == 4


def test_the_workflow_stops_at_a_mistake_and_marks_its_line(
    desk: Path, server: RampartServer, tmp_path: Path
) -> None:
    spoil(desk, "checkout-v2.rollout.yaml", "exposure: 10%,", "exposure: 10,")
    (linted,) = played("check", server, {}, tmp_path / "summary.md")
    assert linted.returncode == 1
    assert re.search(r"^::error file=rollouts/checkout-v2\.rollout\.yaml,line=\d+,col=\d+", linted.stdout)
