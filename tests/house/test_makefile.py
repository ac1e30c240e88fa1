"""The Makefile on machines that are not ours."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.repository import ROOT

MAKEFILE = ROOT / "Makefile"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A directory in which nothing was installed yet."""
    (tmp_path / "Makefile").write_text(MAKEFILE.read_text())
    for name in ("requirements.lock", "requirements-dev.lock", "requirements-build.lock", "pyproject.toml"):
        (tmp_path / name).touch()
    (tmp_path / "bin").mkdir()
    return tmp_path


def make(clone: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = f"{clone / 'bin'}:/usr/local/bin:/usr/bin:/bin"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")} | {"PATH": path}
    environ.pop("MFLAGS", None)
    environ.pop("PYTHON", None)
    return subprocess.run(
        ["make", *arguments], cwd=clone, env=environ, capture_output=True, text=True, timeout=30, check=False
    )


def interpreter(clone: Path, name: str, *, fits: bool) -> None:
    program = clone / "bin" / name
    program.write_text(f"#!/bin/sh\nexit {0 if fits else 1}\n")
    program.chmod(0o755)


def test_make_alone_lists_every_target(clone: Path) -> None:
    listed = set(re.findall(r"^  make (\S+)", make(clone).stdout, re.MULTILINE))
    declared = re.search(r"^\.PHONY: (.+)$", MAKEFILE.read_text(), re.MULTILINE)
    assert declared
    assert listed == set(declared[1].split())


def test_the_newest_interpreter_that_fits_is_taken(clone: Path) -> None:
    interpreter(clone, "python3.13", fits=False)
    interpreter(clone, "python3.12", fits=True)
    interpreter(clone, "python3", fits=True)
    assert "with python3.12;" in make(clone, "-n", "demo").stdout


def test_an_interpreter_that_cannot_make_an_environment_is_passed_over(clone: Path) -> None:
    for name in ("python3.13", "python3.12", "python3.11"):
        interpreter(clone, name, fits=False)
    interpreter(clone, "python3", fits=True)
    assert "with python3;" in make(clone, "-n", "demo").stdout


def test_without_an_interpreter_it_says_what_to_install_and_stops(clone: Path) -> None:
    for name in ("python3.13", "python3.12", "python3.11", "python3"):
        interpreter(clone, name, fits=False)
    refused = make(clone, "demo")
    assert refused.returncode != 0
    assert "needs Python 3.11 or newer" in refused.stdout
    assert "apt install python3 python3-venv" in refused.stdout
    assert not (clone / ".venv").exists()


def test_the_demo_installs_no_tools_for_development(clone: Path) -> None:
    planned = make(clone, "-n", "demo", "PYTHON=python3").stdout
    assert "requirements.lock" in planned
    assert "requirements-dev.lock" not in planned


def test_every_package_is_installed_against_its_hash(clone: Path) -> None:
    planned = make(clone, "-n", "test", "PYTHON=python3").stdout
    installs = [line for line in planned.splitlines() if "pip" in line and " install " in line]
    assert len(installs) == 4
    assert all("--require-hashes" in line or "--no-deps --no-build-isolation -e ." in line for line in installs)


def test_an_installed_environment_is_built_again_only_when_a_lock_changes(clone: Path) -> None:
    (clone / ".venv").mkdir()
    for stamp in ("runtime-is-installed", "dev-is-installed"):
        (clone / ".venv" / stamp).touch()
    assert "install" not in make(clone, "-n", "test", "PYTHON=python3").stdout
    later = (clone / ".venv" / "dev-is-installed").stat().st_mtime + 10
    os.utime(clone / "requirements-dev.lock", (later, later))
    planned = make(clone, "-n", "test", "PYTHON=python3").stdout
    assert "-r requirements-dev.lock" in planned
    assert "-r requirements.lock" not in planned


def test_ci_runs_make_check_and_nothing_softer() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert "set -euo pipefail" in script
    assert script.rstrip().endswith("make check")
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
