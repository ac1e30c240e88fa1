"""The hooks as pre-commit itself installs and runs them, from a clone of this repository."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from controller.cli import main
from tests.support.repository import ROOT

TOOL = ROOT / ".peers" / "pre-commit"
LOCK = ROOT / "tests" / "peers" / "pre-commit.lock"
CONFIGURATION = """\
repos:
  - repo: {repository}
    rev: {revision}
    hooks:
      - id: rampart-lint
        args: [rollouts]
      - id: rampart-fmt
      - id: rampart-test
        args: [rollouts]
"""


def run(*command: str | Path, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command], cwd=folder, env={**os.environ, **environment},
        capture_output=True, text=True, timeout=1500, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def pre_commit() -> Path:
    """Installed once, and again when its lock changes."""
    program, installed = TOOL / "bin" / "pre-commit", TOOL / "installed.lock"
    if not installed.exists() or installed.read_bytes() != LOCK.read_bytes():
        run(sys.executable, "-m", "venv", "--clear", TOOL, folder=ROOT).check_returncode()
        pip = (TOOL / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
        made = run(*pip, "--require-hashes", "-r", LOCK, folder=ROOT)
        assert made.returncode == 0, made.stderr
        installed.write_bytes(LOCK.read_bytes())
    return program


@pytest.fixture(scope="module")
def hooks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """This repository as others fetch it, with what is not committed yet."""
    clone = tmp_path_factory.mktemp("hooks") / "rampart"
    run("git", "clone", "-q", ROOT, clone, folder=ROOT).check_returncode()
    for name in (".pre-commit-hooks.yaml", "pyproject.toml"):
        (clone / name).write_bytes((ROOT / name).read_bytes())
    commit(clone)
    return clone, run("git", "rev-parse", "HEAD", folder=clone).stdout.strip()


def commit(folder: Path) -> None:
    run("git", "add", "-A", folder=folder).check_returncode()
    author = ("-c", "user.name=Test", "-c", "user.email=test@example.invalid")
    run("git", *author, "commit", "-q", "--allow-empty", "-m", "all", folder=folder).check_returncode()


@pytest.mark.timeout(1800)
def test_pre_commit_passes_what_init_writes_and_stops_a_mistake(
    pre_commit: Path, hooks: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository, revision = hooks
    monkeypatch.chdir(tmp_path)
    assert main(["init", "--flag", "checkout-v2", "--service", "checkout", "--folder", "rollouts"]) == 0
    (tmp_path / ".pre-commit-config.yaml").write_text(
        CONFIGURATION.format(repository=repository, revision=revision)
    )
    run("git", "init", "-q", folder=tmp_path).check_returncode()
    run("git", "add", "-A", folder=tmp_path).check_returncode()
    home = str(tmp_path / "home")
    clean = run(pre_commit, "run", "--all-files", folder=tmp_path, PRE_COMMIT_HOME=home)
    assert (clean.returncode, clean.stdout.count("Passed")) == (0, 3), clean.stdout + clean.stderr

    policy = tmp_path / "rollouts" / "checkout.policy.yaml"
    policy.write_text(policy.read_text().replace("error_rate > 10%", "error_rate > 90%"))
    run("git", "add", "-A", folder=tmp_path).check_returncode()
    stopped = run(pre_commit, "run", folder=tmp_path, PRE_COMMIT_HOME=home)
    assert stopped.returncode == 1
    assert "one request in five fails" in stopped.stdout
