"""The journal: what was answered as durable is there after a crash, whatever the crash tore."""

import asyncio
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.catalogue import Kill, KillRecord
from controller.domain.plan import FlagRef
from controller.journal import FileDisk, FloorRecord, Journal, Record, ResetRecord, frame, read

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
