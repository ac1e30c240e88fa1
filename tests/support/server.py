"""`rampart serve` as a real process: started, asked over HTTP, killed without mercy, started again."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

T = TypeVar("T")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(
    condition: Callable[[], T | None], *, seconds: float = 30.0, every: float = 0.05, what: str = "the condition"
) -> T:
    """The first truthy answer. Fails, naming `what`, after the deadline."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:g} s in vain for {what}")
        time.sleep(every)


class Answer:
    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class RampartServer:
    """One data directory and one port; as many lives of the process as a test needs."""

    def __init__(self, folder: Path, settings: str = "", *, port: int | None = None) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.config = folder / "rampart.toml"
        self.config.write_text(f'data_dir = "{self.data}"\n[server]\nbind = "127.0.0.1:{self.port}"\n{settings}')
        self.log = folder / "server.log"
        self.process: subprocess.Popen[bytes] | None = None

    # — the process —

    def start(self, *, wait_ready: bool = True, env: Mapping[str, str] | None = None) -> None:
        command = [sys.executable, "-m", "controller", "serve", "--config", str(self.config)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **(env or {})})
        if wait_ready:
            self.wait_ready()

    def wait_ready(self, seconds: float = 40.0) -> None:
        wait_until(self._ready, seconds=seconds, what=f"readiness; log: {self.tail()}")

    def wait_serving(self, seconds: float = 20.0) -> None:
        wait_until(lambda: self._status("/healthz") == 200, seconds=seconds, what=f"/healthz; log: {self.tail()}")

    def _ready(self) -> bool:
        if self.process is not None and self.process.poll() is not None:
            raise AssertionError(f"the server ended with {self.process.returncode}: {self.tail()}")
        return self._status("/readyz") == 200

    def _status(self, path: str) -> int:
        try:
            return self.request("GET", path, token=None).status
        except OSError:
            return 0

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise AssertionError(f"the server did not stop: {self.tail()}") from None
        return self.process.returncode

    def tail(self, size: int = 3000) -> str:
        return self.log.read_text(errors="replace")[-size:] if self.log.exists() else ""

    @property
    def postmaster(self) -> int:
        return int((self.data / "postgres" / "data" / "postmaster.pid").read_text().split("\n", 1)[0])

    @property
    def postmaster_file(self) -> Path:
        return self.data / "postgres" / "data" / "postmaster.pid"

    # — the API —

    @property
    def token(self) -> str:
        return (self.data / "admin.token").read_text().strip()

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str | None = "admin",
        timeout: float = 15.0,
    ) -> Answer:
        headers = {"Content-Type": "application/json"}
        if token == "admin":
            token = self.token
        if token:
            headers["Authorization"] = f"Bearer {token}"
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)) as connection:
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            response = connection.getresponse()
            return Answer(response.status, response.read())

    def call(self, method: str, path: str, body: object = None, *, expect: int | None = None) -> Any:
        answer = self.request(method, f"/api/v1/{path}", body)
        good = answer.status == expect if expect else answer.status < 300
        assert good, f"{method} {path}: {answer.status} {answer.body.decode(errors='replace')[:2000]}"
        return answer.json if answer.body else None

    def apply(self, **files: str) -> Any:
        """`apply(shop_flag="…")`: file names by keyword, with `_` for the last dot."""
        listed = [{"name": f"{name.replace('_', '.')}.yaml", "text": text} for name, text in files.items()]
        return self.call("POST", "manifests", {"files": listed})

    def status(self, plan: str) -> Any:
        return self.call("GET", f"plans/{plan}/status")

    def command(self, plan: str, verb: str, note: str = "test") -> Any:
        return self.call("POST", f"plans/{plan}/{verb}", {"note": note})

    def kill_flag(self, key: str, environment: str = "production", reason: str = "test") -> Any:
        return self.call("POST", f"environments/{environment}/flags/{key}/kill", {"reason": reason})

    def audit(self, run: str | None = None) -> list[Any]:
        """Every row, oldest first."""
        rows: list[Any] = []
        filter_ = f"&run={quote(run, safe='')}" if run else ""
        while True:
            after = rows[-1]["sequence"] if rows else 0
            page = self.call("GET", f"audit?after={after}&limit=500{filter_}")
            if not page:
                return rows
            rows += page

    def sdk_key(self, environment: str = "production", kind: str = "server") -> str:
        name = f"test-{time.monotonic_ns()}"
        made = self.call("POST", "sdk-keys", {"name": name, "environment": environment, "kind": kind})
        return str(made["secret"])

    def wait_phase(self, plan: str, *phases: str, seconds: float = 60.0) -> Any:
        def reached() -> Any:
            status = self.status(plan)
            return status if status["phase"] in phases else None

        try:
            return wait_until(reached, seconds=seconds, every=0.2, what=f"{plan} to be {' or '.join(phases)}")
        except AssertionError as error:
            raise AssertionError(f"{error}: {json.dumps(self.status(plan), indent=1)[:4000]}") from None


@contextlib.contextmanager
def serving(folder: Path, settings: str = "", **start: Any) -> Iterator[RampartServer]:
    server = RampartServer(folder, settings)
    try:
        server.start(**start)
        yield server
    finally:
        server.stop()
