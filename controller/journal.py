"""The kill journal: local, append-only, fsynced. It makes a kill survive everything but the disk.

One record a line: CRC-32 in hex, a space, JSON. A line torn by a crash is the last one and is dropped; a line
that does not verify anywhere else is reported and skipped, because the kills after it still count.
"""

import asyncio
import os
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import structlog
from msgspec import Struct

from controller.domain.catalogue import Kill
from controller.domain.plan import Serve

log = structlog.get_logger()

VERSION_BLOCK = 60_000
"""Versions are reserved a minute ahead (they are milliseconds), so that one append serves many writes."""


class KillRecord(Struct, frozen=True, kw_only=True, tag="kill"):
    """An accepted kill, with all that its audit row will say when the database is back."""

    kill: Kill
    serve: Serve | None = None
    details: dict[str, Any] = {}


class ResetRecord(Struct, frozen=True, kw_only=True, tag="reset"):
    kill_id: str


class FloorRecord(Struct, frozen=True, kw_only=True, tag="floor"):
    """No flag version at or below this one may be issued again."""

    version: int


Record = KillRecord | ResetRecord | FloorRecord

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Record).decode


class Journal:
    """`kills` are those accepted and not reset, by id; `floor` is the highest version ever reserved."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kills: dict[str, KillRecord] = {}
        self.floor = 0
        self._file = -1
        # Its own thread: an fsync that hangs must not take a worker that anything else waits for.
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")

    def open(self) -> None:
        """Read what is there, rewrite it compactly, and be ready to append. Raises OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            for record in read(self.path):
                self._remember(record)
        compact = self.path.with_suffix(".new")
        handle = os.open(compact, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            kept: list[Record] = [FloorRecord(version=self.floor), *self.kills.values()]
            _write_all(handle, b"".join(map(frame, kept)))
            os.fsync(handle)
        finally:
            os.close(handle)
        compact.replace(self.path)
        _sync_directory(self.path.parent)
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND)

    async def append(self, record: Record) -> bool:
        """True once the record is on disk. A failure is reported, never raised: it must not delay a kill."""
        self._remember(record)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._writer, self._append, record)

    def reserve(self, version: int) -> None:
        """Make sure no version up to this one is issued again, whatever happens. Blocks for one fsync a minute."""
        if version <= self.floor:
            return
        record = FloorRecord(version=version + VERSION_BLOCK)
        self._remember(record)
        self._writer.submit(self._append, record).result()

    def close(self) -> None:
        self._writer.shutdown(wait=True)
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _append(self, record: Record) -> bool:
        try:
            _write_all(self._file, frame(record))
            os.fsync(self._file)
        except OSError as error:
            log.error("journal_append_failed", path=str(self.path), error=str(error))
            self._end_torn_line()
            return False
        return True

    def _end_torn_line(self) -> None:
        # Whatever half of a record reached the file must not swallow the next one.
        try:
            _write_all(self._file, b"\n")
        except OSError as error:
            log.error("journal_unwritable", path=str(self.path), error=str(error))

    def _remember(self, record: Record) -> None:
        match record:
            case KillRecord(kill=kill):
                self.kills[kill.id] = record
                self.floor = max(self.floor, kill.version)
            case ResetRecord(kill_id=kill_id):
                self.kills.pop(kill_id, None)
            case FloorRecord(version=version):
                self.floor = max(self.floor, version)


def frame(record: Record) -> bytes:
    body = _encode(record)
    return b"%08x %s\n" % (zlib.crc32(body), body)


def read(path: Path, report: Callable[..., object] = log.warning) -> Iterator[Record]:
    """Every record that verifies, in order."""
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        checksum, _, body = line.partition(b" ")
        try:
            if int(checksum, 16) == zlib.crc32(body):
                yield _decode(body)
                continue
        except (ValueError, msgspec.DecodeError, msgspec.ValidationError):
            pass  # reported below, together with a checksum that does not fit
        report("journal_line_unreadable", path=str(path), line=number, torn=number == len(lines))


def _write_all(handle: int, data: bytes) -> None:
    while data:
        data = data[os.write(handle, data) :]


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
