"""docs/tutorial.md run from top to bottom, as by somebody who copies it: every command, every line it prints."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.repository import ROOT
from tests.support.server import free_port, wait_until

PAGE = ROOT / "docs" / "tutorial.md"
STEP = re.compile(r"^```(console|diff)\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ (.*?<<'EOF'\n.*?^EOF$|.*?$)", re.MULTILINE | re.DOTALL)
SERVE = "In a second terminal"
ANYTHING = "…"


class Reader:
    """Somebody with a terminal in an empty folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        address = f"127.0.0.1:{free_port()}"
        self.env = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "RAMPART_SERVER__BIND": address,
            "RAMPART_URL": f"http://{address}",
            "NO_COLOR": "1",
        }
        self.server: subprocess.Popen[bytes] | None = None

    def run(self, command: str) -> str:
        done = subprocess.run(
            ["bash", "-c", command], cwd=self.folder, env=self.env, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=60, check=False,
        )  # fmt: skip
        return done.stdout + (f"[exit {done.returncode}]\n" if done.returncode else "")

    def serve(self) -> None:
        with (self.folder / "serve.log").open("wb") as log:
            self.server = subprocess.Popen(
                ["rampart", "serve"], cwd=self.folder, env=self.env, stdout=log, stderr=log
            )
        wait_until(lambda: "[exit" not in self.run("rampart list"), seconds=60, what="the server")

    def edit(self, diff: str) -> None:
        """A name, and groups of lines to be replaced by others."""
        name, _, changes = diff.partition("\n")
        file = self.folder / name.removeprefix("# ")
        text = file.read_text()
        for old, new in re.findall(r"((?:^-.*\n)+)((?:^\+.*\n)+)", changes, re.MULTILINE):
            before, after = (re.sub(r"^[-+]", "", lines, flags=re.MULTILINE) for lines in (old, new))
            assert text.count(before) == 1, f"{name} does not hold:\n{before}"
            text = text.replace(before, after)
        file.write_text(text)

    def close(self) -> None:
        if self.server is not None:
            self.server.terminate()
            self.server.wait(timeout=30)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    somebody = Reader(tmp_path)
    yield somebody
    somebody.close()


def test_the_tutorial_does_what_it_says(reader: Reader) -> None:
    text = PAGE.read_text()
    served_at = text.index(SERVE)
    for step in STEP.finditer(text):
        if reader.server is None and step.start() > served_at:
            reader.serve()
        if step[1] == "diff":
            reader.edit(step[2])
            continue
        parts = COMMAND.split(step[2])[1:]
        for command, printed in zip(parts[::2], parts[1::2], strict=True):
            expected = printed.removeprefix("\n")
            assert matches(expected, reader.run(command)), f"$ {command}\n{reader.run(command)}"


def matches(expected: str, printed: str) -> bool:
    """A line that holds an ellipsis alone stands for any number of lines."""
    pattern = "".join(
        "(?:.*\n)*?" if line == ANYTHING else re.escape(line) + "[ ]*\n" for line in expected.splitlines()
    )
    return re.fullmatch(pattern, printed) is not None
