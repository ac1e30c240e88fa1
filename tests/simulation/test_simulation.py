"""A short look at many worlds; `make simulate` takes a long one."""

import os
import subprocess
import sys

import pytest


def simulated(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation", *arguments],
        env={**os.environ, "PYTHONHASHSEED": "0"}, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("kind", [[], ["--races"]], ids=["worlds", "races"])
def test_whatever_goes_wrong_every_promise_is_kept(kind: list[str]) -> None:
    ended = simulated("--seeds", "60", "--workers", "1", *kind)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert " 0 violations" in ended.stdout


def test_a_seed_tells_the_same_story_every_time() -> None:
    first, second = simulated("--seed", "11"), simulated("--seed", "11")
    assert first.stdout == second.stdout
    assert len(first.stdout.splitlines()) > 20
