"""The kill journal: local, append-only, fsynced. It makes a kill survive everything but the disk.

One record a line: CRC-32 in hex, a space, JSON. A line torn by a crash is the last one and is dropped; a line
that does not verify anywhere else is reported and skipped, because the kills after it still count.
"""

import asyncio
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct

from controller.domain.catalogue import Head, KillRecord
from controller.ports import Disk

log = structlog.get_logger()

VERSION_BLOCK = 60_000
"""Versions are reserved a minute ahead (they are milliseconds), so that one append serves many writes."""


class ResetRecord(Struct, frozen=True, kw_only=True, tag="reset"):
    kill_id: str


class MergedRecord(Struct, frozen=True, kw_only=True, tag="merged"):
    """The database has these kills, so that it knows whether they were reset while this replica was away."""

    kill_ids: tuple[str, ...]


class FloorRecord(Struct, frozen=True, kw_only=True, tag="floor"):
    """No flag version at or below this one may be issued again."""

    version: int


class HeadRecord(Struct, frozen=True, kw_only=True, tag="head"):
    """The end of the audit log as this replica saw it last."""

    head: Head


Record = KillRecord | ResetRecord | MergedRecord | FloorRecord | HeadRecord

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Record).decode


class Journal:
    """`kills` are those accepted and not reset, by id, and `merged` which of them the database once had.

    `floor` is the highest version ever reserved.
    """

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self.kills: dict[str, KillRecord] = {}
        self.merged: set[str] = set()
        self.floor = 0
        self.head = Head()

    def open(self) -> None:
        """Read what is there, rewrite it compactly, and be ready to append. Raises OSError."""
        for record in read(self._disk.read()):
            self._remember(record)
        kept: list[Record] = [FloorRecord(version=self.floor), *self.kills.values()]
        if self.merged:
            kept.append(MergedRecord(kill_ids=tuple(sorted(self.merged))))
        if self.head.sequence:
            kept.append(HeadRecord(head=self.head))
        self._disk.rewrite(b"".join(map(frame, kept)))

    async def append(self, record: Record) -> bool:
        """True once the record is on disk. A failure is reported, never raised: it must not delay a kill."""
        return await self.append_all([record])

    async def append_all(self, records: Sequence[Record]) -> bool:
        """True once all of them are on disk, by one write."""
        for record in records:
            self._remember(record)
        return await self._disk.append(b"".join(map(frame, records)))

    async def reserve(self, version: int) -> bool:
        """Make sure no version up to this one is issued again. Waits for the disk once a minute.

        False: the disk did not take it. Remembered only once it did, so that the next write asks again.
        """
        if version <= self.floor:
            return True
        record = FloorRecord(version=version + VERSION_BLOCK)
        if not await self._disk.append(frame(record)):
            return False
        self._remember(record)
        return True

    def close(self) -> None:
        self._disk.close()

    def _remember(self, record: Record) -> None:
        match record:
            case KillRecord(kill=kill):
                self.kills[kill.id] = record
                self.floor = max(self.floor, kill.version)
            case ResetRecord(kill_id=kill_id):
                self.kills.pop(kill_id, None)
                self.merged.discard(kill_id)
            case MergedRecord(kill_ids=kill_ids):
                self.merged.update(self.kills.keys() & kill_ids)
            case FloorRecord(version=version):
                self.floor = max(self.floor, version)
            case HeadRecord(head=head):
                self.head = head


def frame(record: Record) -> bytes:
    body = _encode(record)
    return b"%08x %s\n" % (zlib.crc32(body), body)


def read(content: bytes, report: Callable[..., object] = log.warning) -> Iterator[Record]:
    """Every record that verifies, in order."""
    lines = content.split(b"\n")
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
        report("journal_line_unreadable", line=number, torn=number == len(lines))


class FileDisk:
    """Implements `ports.Disk` on a local file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1
        # Its own thread: an fsync that hangs must not take a worker that anything else waits for.
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")

    def read(self) -> bytes:
        return self._path.read_bytes() if self._path.exists() else b""

    def rewrite(self, content: bytes) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._path.with_suffix(".new")
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            _write_all(handle, content)
            os.fsync(handle)
        finally:
            os.close(handle)
        fresh.replace(self._path)
        _sync_directory(self._path.parent)
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND)

    async def append(self, line: bytes) -> bool:
        return await asyncio.get_running_loop().run_in_executor(self._writer, self._append, line)

    def close(self) -> None:
        self._writer.shutdown(wait=True)
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _append(self, line: bytes) -> bool:
        try:
            _write_all(self._file, line)
            os.fsync(self._file)
        except OSError as error:
            log.error("journal_append_failed", path=str(self._path), error=str(error))
            self._end_torn_line()
            return False
        return True

    def _end_torn_line(self) -> None:
        # Whatever half of a record reached the file must not swallow the next one.
        try:
            _write_all(self._file, b"\n")
        except OSError as error:
            log.error("journal_unwritable", path=str(self._path), error=str(error))


def _write_all(handle: int, data: bytes) -> None:
    while data:
        data = data[os.write(handle, data) :]


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
