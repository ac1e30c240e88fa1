"""The file of a flagd document: read whole, replaced whole. Whoever reads it sees the old text or the new one."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOCK_WAIT_SECONDS = 2.0
LOCK_LOOK_SECONDS = 0.002

LATER_NS = 1_000_000
"""How much younger than the one before a file is at least: watchers take one that is no younger for the same."""


class Uncertain(OSError):
    """The file was replaced, and the disk did not say that it will stay so."""


class FlagFile:
    """Blocking. `path` may be a link: what it leads to is replaced, not the link."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> bytes:
        """Raises OSError."""
        return self.path.read_bytes()

    def changed_at(self) -> float:
        """Seconds since 1970 of the latest change. Raises OSError."""
        return self.path.stat().st_mtime

    def replace(self, before: bytes, after: bytes) -> bool:
        """False, and nothing was written: the file is no longer as it was. Raises OSError, Uncertain once it was.

        Other replicas wait for our lock. An editor does not: what it saves within these microseconds is lost.
        """
        target = self.path.resolve()
        with _locked(target.parent):
            if target.read_bytes() != before:
                return False
            fresh = target.with_name(f".{target.name}.rampart")
            _write(fresh, after, like=target.stat())
            fresh.replace(target)
            try:
                _sync_folder(target.parent)
            except OSError as error:
                raise Uncertain(error.errno, error.strerror) from error
        return True

    def remind(self) -> None:
        """Make it younger: a watcher that began while it was replaced may have missed that. Raises OSError."""
        target = self.path.resolve()
        found = target.stat()
        os.utime(target, ns=(found.st_atime_ns, max(time.time_ns(), found.st_mtime_ns + LATER_NS)))

    def obstacle(self) -> str:
        """Why it could not be replaced, as far as that can be told without doing it."""
        folder = self.path.resolve().parent
        return "" if os.access(folder, os.W_OK | os.X_OK) else f"the folder {folder} cannot be written"


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """The folder is locked, not the file: that becomes another one at each change."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        deadline = time.monotonic() + LOCK_WAIT_SECONDS
        while not _lock(descriptor):
            if time.monotonic() > deadline:
                raise TimeoutError(f"another process keeps the lock of {folder}")
            time.sleep(LOCK_LOOK_SECONDS)
        yield
    finally:
        os.close(descriptor)  # and the lock with it


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write(path: Path, content: bytes, *, like: os.stat_result) -> None:
    with path.open("wb") as file:
        os.fchmod(file.fileno(), like.st_mode & 0o7777)
        with suppress(PermissionError):  # only root may give files away; others keep them as their own
            os.fchown(file.fileno(), like.st_uid, like.st_gid)
        file.write(content)
        file.flush()
        os.utime(file.fileno(), ns=(like.st_atime_ns, max(time.time_ns(), like.st_mtime_ns + LATER_NS)))
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
