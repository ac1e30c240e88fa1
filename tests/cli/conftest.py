import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest

from controller.cli import main
from tests.cli.stub_server import TOKEN, StubServer
from tests.cli.terminal import Terminal

REPOSITORY = Path(__file__).parents[2]

Rampart = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def server() -> Iterator[StubServer]:
    stub = StubServer()
    thread = threading.Thread(target=stub.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield stub
    stub.released.set()
    stub.shutdown()
    stub.server_close()
    thread.join()


@pytest.fixture
def environment(server: StubServer, tmp_path: Path) -> dict[str, str]:
    """What a command sees: this stub, its token, and nothing of the machine's own settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAMPART_", "NO_COLOR"))}
    return kept | {
        "HOME": str(tmp_path),
        "PYTHONPATH": str(REPOSITORY),
        "RAMPART_URL": server.url,
        "RAMPART_TOKEN": TOKEN,
        "TERM": "xterm-256color",
    }


@pytest.fixture
def rampart(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Rampart:
    """Run the command in this process, without a terminal, in an empty directory."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        monkeypatch.delenv(name)

    def run(*arguments: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        with monkeypatch.context() as patched:
            for name, value in (environment | variables).items():
                patched.setenv(name, value)
            patched.setattr(sys, "stdin", TextIOWrapper(BytesIO(stdin.encode())))
            code = main(arguments)
            out, err = capfd.readouterr()
        return subprocess.CompletedProcess(arguments, code, out, err)

    return run


@pytest.fixture
def rampart_process(environment: dict[str, str], tmp_path: Path) -> Rampart:
    """As `rampart`, but as the process that a shell starts."""

    def run(*arguments: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "controller", *arguments],
            cwd=tmp_path,
            env=environment | variables,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    return run


@pytest.fixture
def terminal(environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    """Run the real command on a pseudo-terminal."""
    opened: list[Terminal] = []

    def run(*arguments: str, **variables: str) -> Terminal:
        opened.append(Terminal(arguments, environment | variables, tmp_path))
        return opened[-1]

    yield run
    for one in opened:
        one.close()
