"""`rampart demo` as a stranger runs it: one command, real parts, and an exit code that means what it says."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "controller", "demo", "--fast"]


@pytest.fixture
def place() -> Iterator[Path]:
    """Where the demo puts its data. Not pytest's own directory: a unix socket's path must be short."""
    with tempfile.TemporaryDirectory(prefix="demo-") as directory:
        yield Path(directory)


def environ(directory: Path) -> dict[str, str]:
    """Settings of whoever runs the tests must not reach the demo; its data lies where the test can look."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAMPART_")}
    return {**kept, "TMPDIR": str(directory)}


def processes_in(directory: Path) -> list[int]:
    """Living processes whose command line names the directory; a zombie has none."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(directory).encode() in (process / "cmdline").read_bytes():
                found.append(int(process.name))
        except OSError:  # It ended while we looked.
            continue
    return found


@pytest.mark.timeout(240)
def test_one_release_completes_and_the_other_is_killed_by_its_policy(place: Path) -> None:
    played = subprocess.run(
        [*COMMAND, "--exit"], env=environ(place), capture_output=True, text=True, timeout=200, check=False
    )
    assert played.returncode == 0, played.stdout + played.stderr
    for fact in (
        "✔ search-v2: completed",
        "✔ search-v2: the SDKs of 3 shops now serve on to 30000 contexts, staff included",
        "✔ checkout-v2: killed by web-service/",
        "✔ checkout-v2: the SDKs of 3 shops now serve off to 30000 contexts, staff included",
        "the hash chain verifies",
        "Both rollouts ended as they should",
    ):
        assert fact in played.stdout
    assert list(place.iterdir()) == []


@pytest.mark.timeout(120)
def test_an_interrupt_leaves_no_process_and_no_file(place: Path) -> None:
    with subprocess.Popen(COMMAND, env=environ(place), stdout=subprocess.PIPE, text=True) as played:
        assert played.stdout
        lines = []
        while "opening" not in (line := played.stdout.readline()):
            lines.append(line)
            assert line, "".join(lines)
        played.send_signal(signal.SIGINT)
        rest = list(played.stdout)
        assert played.wait(60) == 130
    assert rest[-1] == "interrupted; everything is stopped\n"
    assert list(place.iterdir()) == []
    deadline = time.monotonic() + 10
    while processes_in(place):
        assert time.monotonic() < deadline, processes_in(place)
        time.sleep(0.05)
