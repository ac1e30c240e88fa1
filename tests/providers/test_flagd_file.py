"""The file of a flagd document: whoever reads it sees the old text or the new one, and nobody's change is lost."""

import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from controller.providers.flagd import file as flagd_file
from controller.providers.flagd.file import FlagFile, Uncertain

YEAR_NS = 365 * 86_400 * 10**9


@pytest.fixture
def file(tmp_path: Path) -> FlagFile:
    path = tmp_path / "flags.json"
    path.write_bytes(b"one")
    return FlagFile(path)


def test_a_reader_sees_the_old_text_or_the_new_one(file: FlagFile) -> None:
    texts = [bytes([letter]) * 200_000 for letter in b"ab"]
    assert file.replace(b"one", texts[0])
    seen: set[bytes] = set()
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            seen.add(file.read())

    reader = threading.Thread(target=look)
    reader.start()
    for number in range(50):
        assert file.replace(texts[number % 2], texts[1 - number % 2])
    over.set()
    reader.join()
    assert seen <= set(texts)


def test_what_was_changed_meanwhile_is_not_overwritten(file: FlagFile) -> None:
    assert not file.replace(b"another", b"two")
    assert file.read() == b"one"
    assert [one.name for one in file.path.parent.iterdir()] == ["flags.json"]


def test_nothing_is_left_beside_it_and_its_rights_stay(file: FlagFile) -> None:
    file.path.chmod(0o640)
    assert file.replace(b"one", b"two")
    assert [one.name for one in file.path.parent.iterdir()] == ["flags.json"]
    assert file.path.stat().st_mode & 0o777 == 0o640


def test_what_a_crash_left_beside_it_is_in_nobodys_way(file: FlagFile) -> None:
    left = file.path.with_name(".flags.json.rampart")
    left.write_bytes(b"half of somethi")
    assert file.replace(b"one", b"two")
    assert file.read() == b"two"
    assert not left.exists()


def test_what_a_link_leads_to_is_replaced_and_the_link_stays(tmp_path: Path, file: FlagFile) -> None:
    (tmp_path / "links").mkdir()
    link = tmp_path / "links" / "flags.json"
    link.symlink_to(file.path)
    assert FlagFile(link).replace(b"one", b"two")
    assert link.is_symlink()
    assert file.read() == b"two"


def test_each_change_is_younger_than_the_one_before_whatever_the_clock_says(file: FlagFile) -> None:
    """Watchers compare nothing else."""
    ahead = file.path.stat().st_mtime_ns + YEAR_NS
    os.utime(file.path, ns=(ahead, ahead))
    times = [file.changed_at()]
    for number in range(5):
        assert file.replace(file.read(), b"%d" % number)
        times.append(file.changed_at())
        file.remind()
        times.append(file.changed_at())
    assert times == sorted(set(times))


def test_a_disk_that_does_not_say_that_it_kept_the_change_leaves_it_in_doubt(
    file: FlagFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(folder: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(flagd_file, "_sync_folder", fails)
    with pytest.raises(Uncertain):
        file.replace(b"one", b"two")
    assert file.read() == b"two"


COUNTER = """
import sys
from pathlib import Path
from controller.providers.flagd.file import FlagFile
file = FlagFile(Path(sys.argv[1]))
for _ in range(100):
    while True:
        before = file.read()
        if file.replace(before, b"%d" % (int(before) + 1)):
            break
"""


def test_two_processes_lose_none_of_each_others_changes(file: FlagFile) -> None:
    assert file.replace(b"one", b"0")
    both = [subprocess.Popen([sys.executable, "-c", COUNTER, file.path]) for _ in range(2)]
    assert [one.wait(timeout=60) for one in both] == [0, 0]
    assert file.read() == b"200"


def test_a_lock_that_is_never_given_back_is_not_waited_for_without_end(
    file: FlagFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flagd_file, "LOCK_WAIT_SECONDS", 0.05)
    folder = os.open(file.path.parent, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    try:
        with pytest.raises(TimeoutError, match="another process keeps the lock"):
            file.replace(b"one", b"two")
    finally:
        os.close(folder)
    assert file.replace(b"one", b"two")


def test_a_folder_that_cannot_be_written_is_said_before_it_matters(file: FlagFile, tmp_path: Path) -> None:
    assert file.obstacle() == ""
    assert "cannot be written" in FlagFile(tmp_path / "nowhere" / "flags.json").obstacle()
