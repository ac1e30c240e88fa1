"""A command on a pseudo-terminal: type, and wait for what it shows."""

import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from fcntl import ioctl
from pathlib import Path
from struct import pack
from termios import TIOCSWINSZ
from time import monotonic

DEADLINE_SECONDS = 15.0


class Terminal:
    def __init__(
        self, arguments: Sequence[str], environment: dict[str, str], folder: Path, *, width: int = 140
    ) -> None:
        self._master, slave = pty.openpty()
        ioctl(slave, TIOCSWINSZ, pack("HHHH", 40, width, 0, 0))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "controller", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )
        os.close(slave)
        self._bytes = b""

    @property
    def shown(self) -> str:
        return self._bytes.decode(errors="replace")

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def see(self, text: str) -> str:
        """All that was shown until `text` was; fails when it does not come in time."""
        deadline = monotonic() + DEADLINE_SECONDS
        while text not in self.shown:
            if not self._read(deadline):
                raise AssertionError(f"{text!r} was never shown, but:\n{self.shown}")
        return self.shown

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def exit_code(self) -> int:
        deadline = monotonic() + DEADLINE_SECONDS
        while self._read(deadline):
            pass
        return self._process.wait(max(deadline - monotonic(), 0.1))

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        os.close(self._master)

    def _read(self, deadline: float) -> bool:
        """False when nothing more can come: the command has ended, or the time is over."""
        ready, _, _ = select.select([self._master], [], [], max(deadline - monotonic(), 0))
        if not ready:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # Linux says EIO when the last one has closed the other side
            return False
        self._bytes += data
        return bool(data)
