"""Child processes that end when we end, and a look at the servers that work in a data directory."""

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from controller.store.binaries import Account

ON_LINUX = sys.platform == "linux"
POLL_SECONDS = 0.03

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def spawn(
    command: list[str], *, directory: Path, account: Account | None, log: IO[bytes]
) -> subprocess.Popen[bytes]:
    """Start `command` inside `directory`, as `account` when given, out of reach of the terminal's Ctrl-C.

    The kernel watches the thread that starts it, so that this must be a thread that stays.
    """
    identity: dict[str, Any] = {}
    if account:
        identity = {"user": account.uid, "group": account.gid, "extra_groups": []}
    return subprocess.Popen(  # noqa: S603 - programs from our own settings or wheel
        command,
        cwd=directory,
        env={name: value for name, value in os.environ.items() if not name.startswith("PG")},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        process_group=0,
        preexec_fn=_end_with(os.getpid()) if ON_LINUX else None,  # noqa: PLW1509 - two system calls
        **identity,
    )


def _end_with(parent: int) -> Callable[[], None]:
    """What the child does before it becomes the program: ask the kernel to end it when its parent ends."""

    def arrange() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)
        if os.getppid() != parent:  # It ended before the kernel was asked.
            os._exit(1)

    return arrange


def watch_parent(pid: int) -> subprocess.Popen[bytes]:
    """Ends `pid` when this process ends, where the kernel cannot: our end closes the pipe that a shell reads."""
    command = ["/bin/sh", "-c", 'read -r _; kill -QUIT "$1"', "sh", str(pid)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, process_group=0)  # noqa: S603 - nothing from outside


async def ended(process: subprocess.Popen[bytes], patience: float | None = None) -> bool:
    """Wait for the end of the process, at most `patience` seconds; False: it still runs."""
    clock = asyncio.get_running_loop().time
    deadline = None if patience is None else clock() + patience
    while process.poll() is None:
        if deadline is not None and clock() >= deadline:
            return False
        await asyncio.sleep(POLL_SECONDS)
    return True


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def servers_in(data: Path, noted_pid: int | None) -> Iterator[int]:
    """Processes of PostgreSQL that work in this very data directory, postmaster and orphans alike.

    Without /proc only `noted_pid`, from the pid file, is looked at.
    """
    if ON_LINUX:
        for process in Path("/proc").glob("[0-9]*"):
            # A process may end while it is looked at, and one of another user is not ours.
            with contextlib.suppress(OSError):
                if (process / "cwd").samefile(data) and (process / "comm").read_text().startswith("postgres"):
                    yield int(process.name)
    elif noted_pid is not None:
        command = ["/bin/ps", "-o", "command=", "-p", str(noted_pid)]
        if str(data) in subprocess.run(command, capture_output=True, text=True, check=False).stdout:  # noqa: S603
            yield noted_pid
