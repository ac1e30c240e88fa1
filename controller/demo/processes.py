"""Child processes of the demo: started with a log, waited for, and stopped by their own pid."""

import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from controller.errors import Unavailable

POLL_SECONDS = 0.05
STOP_SECONDS = 15.0
TAIL_LINES = 25
INTERRUPTS = (signal.SIGINT, signal.SIGTERM)


def free_port() -> int:
    """A loopback port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Between starting a child and owning it no interrupt may strike: it is raised afterwards."""
    noted: list[int] = []
    before = {number: signal.signal(number, lambda got, _: noted.append(got)) for number in INTERRUPTS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if noted:
        raise KeyboardInterrupt


class Child:
    """A process of ours. It has a session of its own, so that Ctrl-C reaches us alone and we stop it in order."""

    def __init__(
        self, name: str, command: Sequence[str], log: Path, *, environ: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own programs
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environ,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._process.pid

    def require_alive(self) -> None:
        """Raises Unavailable with the end of its log when it has ended."""
        code = self._process.poll()
        if code is not None:
            raise Unavailable(f"the {self.name} ended with code {code}; the end of its log:\n{self.tail()}")

    def wait_until_answers(self, port: int, path: str, *, seconds: float) -> None:
        """Until `path` is answered with 200. Raises Unavailable with what it said last, and the end of its log."""
        deadline = time.monotonic() + seconds
        said = "no answer"
        while time.monotonic() < deadline:
            self.require_alive()
            status, said = _get(port, path)
            if status == http.client.OK:
                return
            time.sleep(POLL_SECONDS)
        raise Unavailable(
            f"the {self.name} was not ready within {seconds:.0f} s ({said.strip()}); the end of its log:\n"
            f"{self.tail()}"
        )

    def signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):  # It has ended already, which is what most signals are for.
            os.kill(self.pid, number)

    def stop(self) -> None:
        """Ask, wait, then force. May be called twice."""
        if self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        return "\n".join(f"  | {line}" for line in lines)


def _get(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return 0, str(error)
    finally:
        connection.close()
