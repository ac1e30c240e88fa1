"""The journal: what was answered as durable is there after a crash, whatever the crash tore."""

import asyncio
import os
import stat
import tempfile
import threading
import time
import zlib
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from structlog.testing import capture_logs

from controller.domain.catalogue import Head, Kill, KillRecord
from controller.domain.plan import FlagRef
from controller.journal import (
    VERSION_BLOCK,
    FileDisk,
    FloorRecord,
    HeadRecord,
    Journal,
    MergedRecord,
    Record,
    ResetRecord,
    frame,
    read,
)

FLAG = FlagRef(provider="main", environment="production", key="checkout-v2")


def kill(kill_id: str) -> KillRecord:
    accepted = datetime(2026, 11, 21, tzinfo=UTC)
    return KillRecord(kill=Kill(id=kill_id, flag=FLAG, accepted_at=accepted, actor="dana", reason="5xx"))


def opened(path: Path) -> Journal:
    journal = Journal(FileDisk(path))
    journal.open()
    return journal


async def test_a_kill_is_on_disk_before_it_is_called_durable(tmp_path: Path) -> None:
    path = tmp_path / "kills.journal"
    assert await opened(path).append(kill("k1"))
    assert [record for record in read(path.read_bytes()) if isinstance(record, KillRecord)] == [kill("k1")]


async def test_kills_survive_a_restart_until_they_are_reset(tmp_path: Path) -> None:
    path = tmp_path / "kills.journal"
    journal = opened(path)
    await asyncio.gather(*(journal.append(kill(f"k{n}")) for n in range(20)))
    await journal.append(ResetRecord(kill_id="k3"))
    journal.close()
    assert set(opened(path).kills) == {f"k{n}" for n in range(20)} - {"k3"}


async def test_versions_are_never_issued_twice_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "kills.journal"
    journal = opened(path)
    assert await journal.reserve(1000)
    journal.close()
    assert opened(path).floor >= 1000


async def test_a_version_that_the_disk_did_not_take_is_not_reserved_the_next_time_either(tmp_path: Path) -> None:
    path = tmp_path / "kills.journal"
    disk = FileDisk(path)
    journal = Journal(disk)
    journal.open()
    writable, disk._file = disk._file, os.open(path, os.O_RDONLY)
    assert not await journal.reserve(1000)
    assert not await journal.reserve(1000), "nothing served under it would survive a restart"
    os.close(disk._file)
    disk._file = writable
    assert await journal.reserve(1000)
    journal.close()
    assert opened(path).floor >= 1000


def test_a_torn_last_line_is_dropped_and_the_rest_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "kills.journal"
    whole = frame(kill("k1")) + frame(kill("k2"))
    for cut in range(len(frame(kill("k1"))), len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert set(opened(path).kills) == {"k1"}


def test_a_damaged_line_is_reported_and_the_kills_after_it_still_count(tmp_path: Path) -> None:
    path, reported = tmp_path / "kills.journal", []
    damaged = bytearray(frame(kill("k1")))
    damaged[20] ^= 1
    path.write_bytes(bytes(damaged) + frame(kill("k2")))
    found = list(read(path.read_bytes(), report=lambda event, **facts: reported.append((event, facts["line"]))))
    assert found == [kill("k2")]
    assert reported == [("journal_line_unreadable", 1)]


async def test_a_disk_that_refuses_is_told_and_does_not_raise(tmp_path: Path) -> None:
    disk = FileDisk(tmp_path / "kills.journal")
    journal = Journal(disk)
    journal.open()
    os.close(disk._file)
    disk._file = os.open(tmp_path / "kills.journal", os.O_RDONLY)
    assert not await journal.append(kill("k1"))
    assert "k1" in journal.kills, "it holds in memory all the same"


records = st.one_of(
    st.integers(0, 5).map(lambda n: kill(f"k{n}")),
    st.integers(0, 5).map(lambda n: ResetRecord(kill_id=f"k{n}")),
    st.integers(0, 10**15).map(lambda n: FloorRecord(version=n)),
)


@given(st.lists(records, max_size=30))
def test_reading_back_gives_what_was_remembered(written: list[Record]) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        path = Path(folder) / "kills.journal"
        path.write_bytes(b"".join(frame(record) for record in written))
        journal = opened(path)
        expected: dict[str, Record] = {}
        for record in written:
            if isinstance(record, KillRecord):
                expected[record.kill.id] = record
            elif isinstance(record, ResetRecord):
                expected.pop(record.kill_id, None)
        assert journal.kills == expected
        assert journal.floor == max((r.version for r in written if isinstance(r, FloorRecord)), default=0)
        journal.close()


# — what is remembered, and what is left of it after a restart —

HEAD = Head(sequence=7, hash=b"h" * 32)


def versioned(kill_id: str, version: int) -> KillRecord:
    record = kill(kill_id)
    return replace(record, kill=replace(record.kill, version=version))


async def test_a_restart_leaves_only_what_still_matters(tmp_path: Path) -> None:
    path = tmp_path / "kills.journal"
    journal = opened(path)
    assert list(read(path.read_bytes())) == [FloorRecord(version=0)]
    await journal.append(FloorRecord(version=9))
    for name in ("k2", "k1", "k3"):
        await journal.append(kill(name))
    await journal.append(MergedRecord(kill_ids=("k3", "k2", "unheard-of")))
    await journal.append(MergedRecord(kill_ids=("k1",)))
    await journal.append(ResetRecord(kill_id="k3"))
    await journal.append(ResetRecord(kill_id="never"))
    await journal.append(HeadRecord(head=HEAD))
    await journal.append(FloorRecord(version=5))
    journal.close()
    again = opened(path)
    assert list(read(path.read_bytes())) == [
        FloorRecord(version=9),
        kill("k2"),
        kill("k1"),
        MergedRecord(kill_ids=("k1", "k2")),
        HeadRecord(head=HEAD),
    ]
    assert (set(again.kills), again.merged, again.floor, again.head) == ({"k1", "k2"}, {"k1", "k2"}, 9, HEAD)
    again.close()


def test_a_journal_that_was_never_written_knows_nothing(tmp_path: Path) -> None:
    journal = opened(tmp_path / "kills.journal")
    assert (journal.kills, journal.merged, journal.floor, journal.head) == ({}, set(), 0, Head())
    journal.close()


async def test_a_version_a_kill_carries_is_not_issued_again(tmp_path: Path) -> None:
    journal = opened(tmp_path / "kills.journal")
    await journal.append(versioned("k1", 50))
    assert journal.floor == 50
    await journal.append(versioned("k2", 40))
    assert journal.floor == 50
    journal.close()


async def test_versions_are_reserved_ahead_and_the_disk_is_asked_once_for_many(tmp_path: Path) -> None:
    path = tmp_path / "kills.journal"
    journal = opened(path)
    assert await journal.reserve(1)
    assert journal.floor == 1 + VERSION_BLOCK
    size = path.stat().st_size
    assert await journal.reserve(1 + VERSION_BLOCK)
    assert path.stat().st_size == size
    assert await journal.reserve(2 + VERSION_BLOCK)
    assert journal.floor == 2 + 2 * VERSION_BLOCK
    assert list(read(path.read_bytes()))[-1] == FloorRecord(version=journal.floor)
    journal.close()


# — lines —


def test_a_line_is_the_checksum_in_eight_digits_a_space_and_json() -> None:
    body = b'{"type":"floor","version":3}'
    assert frame(FloorRecord(version=3)) == b"%08x " % zlib.crc32(body) + body + b"\n"
    small = next(record for n in range(10_000) if (record := FloorRecord(version=n)) and frame(record)[:1] == b"0")
    assert list(read(frame(small))) == [small]


def test_every_line_that_is_not_a_record_is_reported_with_its_number_and_whether_it_is_the_torn_end() -> None:
    good, foreign = frame(kill("k1")), b'{"type":"nothing"}'
    content = b"".join([
        good,
        b"\n",
        b"no-hex {}\n",
        b"00000000\n",
        b"%08x %s\n" % (zlib.crc32(foreign), foreign),
        b"%08x {\n" % zlib.crc32(b"{"),
        good.replace(b"dana", b"kim "),
        good,
        good[:30],
    ])  # fmt: skip
    with capture_logs() as told:
        assert list(read(content)) == [kill("k1"), kill("k1")]
    assert told == [
        {"event": "journal_line_unreadable", "log_level": "warning", "line": line, "torn": line == 9}
        for line in (3, 4, 5, 6, 7, 9)
    ]


def test_a_space_within_the_record_belongs_to_it() -> None:
    record = kill("k1")
    spaced = replace(record, kill=replace(record.kill, reason="5xx at the till"))
    assert list(read(frame(spaced))) == [spaced]


# — the file —


def test_the_file_belongs_to_its_owner_alone_and_its_folder_is_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "kills.journal"
    opened(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(one.name for one in path.parent.iterdir()) == ["kills.journal"]


def test_what_an_earlier_start_left_half_written_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "kills.journal"
    path.with_suffix(".new").write_bytes(b"x" * 10_000)
    opened(path).close()
    assert path.read_bytes() == frame(FloorRecord(version=0))


class Synced:
    """What had reached the disk at each fsync: the file's content, or the names in the folder."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.seen: list[bytes | list[str]] = []
        self._folder = folder
        patch.setattr(os, "fsync", self._fsync)

    def _fsync(self, handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            self.seen.append(sorted(one.name for one in self._folder.iterdir()))
        else:
            inode = os.fstat(handle).st_ino
            (path,) = [one for one in self._folder.iterdir() if one.stat().st_ino == inode]
            self.seen.append(path.read_bytes())


async def test_each_step_reaches_the_disk_before_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced, first = Synced(tmp_path, monkeypatch), frame(FloorRecord(version=0))
    journal = opened(tmp_path / "kills.journal")
    assert synced.seen == [first, ["kills.journal"]]
    assert await journal.append(kill("k1"))
    assert synced.seen[2:] == [first + frame(kill("k1"))]
    journal.close()


async def test_a_write_that_takes_only_a_part_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:5]))
    path = tmp_path / "kills.journal"
    journal = opened(path)
    assert await journal.append(kill("k1"))
    journal.close()
    assert list(read(path.read_bytes())) == [FloorRecord(version=0), kill("k1")]


def fill_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on the disk is full once, in the middle of the second record that is appended."""
    write, calls = os.write, iter(range(100))

    def full(handle: int, data: bytes) -> int:
        match next(calls):
            case 1:
                return write(handle, data[:20])
            case 2:
                raise OSError(28, "No space left on device")
        return write(handle, data)

    monkeypatch.setattr(os, "write", full)


async def test_a_record_that_was_torn_by_a_full_disk_does_not_swallow_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "kills.journal"
    journal = opened(path)
    fill_once(monkeypatch)
    with capture_logs() as told:
        assert [await journal.append(kill(name)) for name in ("k1", "k2", "k3")] == [True, False, True]
    journal.close()
    assert told == [
        {
            "event": "journal_append_failed",
            "log_level": "error",
            "path": str(path),
            "error": "[Errno 28] No space left on device",
        }
    ]
    assert set(opened(path).kills) == {"k1", "k3"}


async def test_a_disk_that_takes_nothing_at_all_is_told_twice(tmp_path: Path) -> None:
    disk = FileDisk(tmp_path / "kills.journal")
    journal = Journal(disk)
    journal.open()
    os.close(disk._file)
    disk._file = os.open(tmp_path / "kills.journal", os.O_RDONLY)
    with capture_logs() as told:
        assert not await journal.append(kill("k1"))
    expected = {
        "log_level": "error",
        "path": str(tmp_path / "kills.journal"),
        "error": "[Errno 9] Bad file descriptor",
    }
    assert told == [{"event": event} | expected for event in ("journal_append_failed", "journal_unwritable")]
    assert not await journal.reserve(10**12), "a version that is not reserved on disk is not reserved"


async def test_closing_waits_for_the_record_on_its_way_and_closing_again_does_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, fsync = tmp_path / "kills.journal", os.fsync
    others = set(threading.enumerate())
    journal = opened(path)
    begun = threading.Event()

    def slow(handle: int) -> None:
        begun.set()
        time.sleep(0.05)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", slow)
    append = asyncio.create_task(journal.append(kill("k1")))
    await asyncio.to_thread(begun.wait)
    journal.close()
    assert await append
    open_files = [os.fstat(handle).st_ino for handle in (0, 1, 2)]
    journal.close()
    assert [os.fstat(handle).st_ino for handle in (0, 1, 2)] == open_files
    assert [one for one in threading.enumerate() if one.name.startswith("journal") and one not in others] == []


async def test_records_are_written_one_after_the_other_by_a_thread_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, fsync = opened(tmp_path / "kills.journal"), os.fsync
    inside: list[str] = []
    most = 0

    def counting(handle: int) -> None:
        nonlocal most
        inside.append(threading.current_thread().name)
        most = max(most, len(inside))
        time.sleep(0.01)
        fsync(handle)
        assert inside.pop().startswith("journal")

    monkeypatch.setattr(os, "fsync", counting)
    assert all(await asyncio.gather(*(journal.append(kill(f"k{n}")) for n in range(5))))
    assert most == 1
    journal.close()


async def test_a_closed_file_is_no_longer_held_open(tmp_path: Path) -> None:
    disk = FileDisk(tmp_path / "kills.journal")
    journal = Journal(disk)
    journal.open()
    handle = disk._file
    journal.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(handle)


def test_a_record_reads_back_from_json_as_the_same(tmp_path: Path) -> None:
    for record in (kill("k1"), ResetRecord(kill_id="k"), MergedRecord(kill_ids=("a",)), HeadRecord(head=HEAD)):
        (found,) = read(frame(record))
        assert found == record
        assert msgspec.json.decode(frame(record)[9:])["type"] == type(record).__struct_config__.tag
