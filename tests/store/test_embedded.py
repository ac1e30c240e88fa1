"""The embedded server: who may start it, what it survives, and that nothing is ever lost."""

import asyncio
import contextlib
import json
import multiprocessing
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import IO, Any

import asyncpg
import pytest

from controller.errors import SettingsError, StoreUnavailable
from controller.store import binaries, children
from controller.store.embedded import EmbeddedPostgres
from tests.support.postgres import Frozen

AS_ROOT = os.geteuid() == 0
SUPERVISOR = """
    import asyncio, json, sys
    from controller.store.embedded import EmbeddedPostgres

    async def main():
        embedded = EmbeddedPostgres(sys.argv[1])
        dsn = await embedded.start()
        print(json.dumps({"dsn": dsn, "pid": embedded.pid}), flush=True)
        await asyncio.Event().wait()

    asyncio.run(main())
"""
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def initialised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory whose server was started and stopped once, to be copied: initdb takes its time."""
    directory = tmp_path_factory.mktemp("initialised") / "data"

    async def once() -> None:
        embedded = EmbeddedPostgres(directory)
        await embedded.start()
        await embedded.stop()

    asyncio.run(once())
    return directory


@pytest.fixture
def data_dir(initialised: Path, tmp_path: Path) -> Path:
    copy(initialised, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory that any user may enter, unlike those of pytest."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


@pytest.fixture
async def embedded(data_dir: Path) -> AsyncIterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(data_dir, stop_seconds=3.0)
    yield server
    await server.stop()


@pytest.fixture
def supervisor() -> Iterator[Callable[[Path], tuple[subprocess.Popen[str], dict[str, Any]]]]:
    """Starts a Rampart-like process of its own for a data directory; returns it and what it printed."""
    started: list[subprocess.Popen[str]] = []

    def start(directory: Path) -> tuple[subprocess.Popen[str], dict[str, Any]]:
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(SUPERVISOR), str(directory)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        started.append(process)
        return process, answer_of(process.stdout)

    yield start
    for process in started:
        process.kill()
        process.communicate()


def answer_of(stream: IO[str] | None) -> dict[str, Any]:
    assert stream is not None
    for line in stream:
        if line.startswith("{"):
            answer: dict[str, Any] = json.loads(line)
            return answer
    raise AssertionError("the process ended before it answered")


async def write(dsn: str, value: int) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute("CREATE TABLE IF NOT EXISTS kept (value int)")
    await connection.execute("INSERT INTO kept VALUES ($1)", value)
    await connection.close()


async def read(dsn: str) -> list[int]:
    connection = await asyncpg.connect(dsn)
    try:
        return [row["value"] for row in await connection.fetch("SELECT value FROM kept ORDER BY value")]
    finally:
        await connection.close()


async def eventually(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 - it is the outside world that changes
            await asyncio.sleep(0.02)


async def test_a_cold_start_makes_a_database_that_a_restart_finds_again(open_place: Path) -> None:
    embedded = EmbeddedPostgres(open_place / "new" / "data")
    dsn = await embedded.start()
    await write(dsn, 1)
    connection = await asyncpg.connect(dsn)
    settings = {
        name: await connection.fetchval("SELECT current_setting($1)", name)
        for name in ("data_checksums", "listen_addresses", "server_encoding", "fsync")
    }
    await connection.close()
    assert settings == {"data_checksums": "on", "listen_addresses": "", "server_encoding": "UTF8", "fsync": "on"}
    await embedded.stop()
    assert embedded.pid is None
    assert await embedded.start() == dsn
    assert await read(dsn) == [1]
    await embedded.stop()


def user_of(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


def program_of(pid: int | None) -> Path:
    return Path(f"/proc/{pid}/exe").readlink()


def copy(source: Path, target: Path) -> None:
    """With owners: the data belongs to the user that the server runs as."""
    target.parent.mkdir(exist_ok=True)
    subprocess.run(["cp", "-a", source, target], check=True)


def exists(path: Path) -> bool:
    return path.exists()


async def test_the_server_never_runs_as_root(embedded: EmbeddedPostgres) -> None:
    await embedded.start()
    assert embedded.pid is not None
    assert user_of(embedded.pid) != 0


def _start_as_a_normal_user(directory: str, bin_dir: str, results: Any) -> None:
    if AS_ROOT:
        nobody = pwd.getpwnam("nobody")
        os.setgroups([])
        os.setgid(nobody.pw_gid)
        os.setuid(nobody.pw_uid)

    async def twice() -> list[int]:
        embedded = EmbeddedPostgres(directory, bin_dir=bin_dir)
        await write(await embedded.start(), 1)
        await embedded.stop()
        kept = await read(await embedded.start())
        await embedded.stop()
        return kept

    results.send(asyncio.run(twice()))


def test_a_normal_user_starts_it_too(open_place: Path) -> None:
    programs = binaries.copied(binaries.find(None, None), open_place / "programs")
    home = open_place / "home"
    home.mkdir()
    if AS_ROOT:
        os.chown(home, pwd.getpwnam("nobody").pw_uid, -1)
    receiving, sending = multiprocessing.Pipe(duplex=False)
    # A fork has everything imported already: the user may not be able to read the interpreter's files.
    child = multiprocessing.get_context("fork").Process(
        target=_start_as_a_normal_user, args=(str(home / "data"), str(programs.directory), sending)
    )
    child.start()
    sending.close()
    assert receiving.poll(60)
    assert receiving.recv() == [1]
    child.join()


async def test_killing_its_supervisor_ends_the_server_and_loses_nothing(
    data_dir: Path, supervisor: Callable[[Path], tuple[subprocess.Popen[str], dict[str, Any]]]
) -> None:
    for round_ in range(3):
        process, answer = supervisor(data_dir)
        await write(answer["dsn"], round_)
        process.kill()
        process.wait()
        await eventually(lambda pid=answer["pid"]: not running(pid))  # type: ignore[misc]
    _, answer = supervisor(data_dir)
    assert await read(answer["dsn"]) == [0, 1, 2]


def running(pid: int) -> bool:
    """Whether it still does anything: a zombie whose new parent does not collect it is gone, too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_a_killed_server_comes_back_under_the_same_name_with_everything(embedded: EmbeddedPostgres) -> None:
    dsn = await embedded.start()
    for round_ in range(3):
        await write(dsn, round_)
        before = embedded.pid
        assert before is not None
        os.kill(before, signal.SIGKILL)
        await eventually(lambda before=before: embedded.pid not in (None, before))  # type: ignore[misc]
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(OSError, asyncpg.CannotConnectNowError):
                    assert await read(dsn) == list(range(round_ + 1))
                    break
                await asyncio.sleep(0.02)


async def test_a_second_process_is_refused_and_told_who_is_there(
    embedded: EmbeddedPostgres, data_dir: Path
) -> None:
    dsn = await embedded.start()
    second = EmbeddedPostgres(data_dir)
    with pytest.raises(SettingsError, match=f"in use by process {os.getpid()}"):
        await second.start()
    await write(dsn, 1)


async def test_a_path_too_long_for_a_socket_is_reached_by_a_short_one(initialised: Path, tmp_path: Path) -> None:
    directory = tmp_path / ("a" * 90) / ("b" * 90)
    copy(initialised, directory)
    embedded = EmbeddedPostgres(directory)
    dsn = await embedded.start()
    await write(dsn, 1)
    short = Path((directory / "postgres" / "runtime").read_text())
    assert exists(short)
    await embedded.stop()
    assert not exists(short)


async def test_programs_its_user_cannot_reach_are_copied_where_it_can(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a checkout below /root. A normal user runs them where they are."""
    site = tmp_path / "site"
    binaries.copied(binaries.find(None, None), site)
    (site / binaries.WHEEL / "__init__.py").write_text("raise AssertionError('this is not imported')")
    monkeypatch.syspath_prepend(site)
    embedded = EmbeddedPostgres(data_dir)
    await write(await embedded.start(), 1)
    program = program_of(embedded.pid)
    assert program.is_relative_to(site) is not AS_ROOT
    await embedded.stop()
    assert exists(program) is not AS_ROOT


@pytest.fixture
def stranger(data_dir: Path) -> Iterator[int]:
    """The pid of a process of the server's own user that is no server: others PostgreSQL tells apart itself."""
    user = (data_dir / "postgres" / "data").stat().st_uid
    with subprocess.Popen(["sleep", "600"], user=user if AS_ROOT else None) as process:
        yield process.pid
        process.kill()


async def test_a_pid_file_whose_pid_is_somebody_elses_now_is_cleared(
    embedded: EmbeddedPostgres, data_dir: Path, stranger: int
) -> None:
    data = data_dir / "postgres" / "data"
    content = f"{stranger}\n{data}\n1700000000\n5432\n.\n\n  2146451         4\n"
    (data / "postmaster.pid").write_text(content)
    (data / ".s.PGSQL.5432.lock").write_text(content)
    async with asyncio.timeout(60):
        await write(await embedded.start(), 1)
    assert running(stranger)


async def test_a_frozen_predecessor_is_waited_for_and_then_replaced(
    embedded: EmbeddedPostgres,
    data_dir: Path,
    supervisor: Callable[[Path], tuple[subprocess.Popen[str], dict[str, Any]]],
) -> None:
    process, answer = supervisor(data_dir)
    await write(answer["dsn"], 1)
    with Frozen(answer["pid"]):
        process.kill()
        process.wait()
        given_up = asyncio.create_task(embedded.start())
        await asyncio.sleep(0.5)
        given_up.cancel()
        await asyncio.wait([given_up], timeout=5)
        assert given_up.cancelled()
        starting = asyncio.create_task(embedded.start())
        await asyncio.sleep(0.5)
        assert not starting.done()
        assert running(answer["pid"])
    async with asyncio.timeout(60):
        assert await read(await starting) == [1]


async def test_a_frozen_server_is_stopped_by_force_in_the_end(data_dir: Path) -> None:
    embedded = EmbeddedPostgres(data_dir, stop_seconds=0.3)
    dsn = await embedded.start()
    await write(dsn, 1)
    pid = embedded.pid
    assert pid is not None
    with Frozen(pid):
        began = time.monotonic()
        await embedded.stop()
        assert time.monotonic() - began < 5
    await eventually(lambda: not list(children.servers_in(data_dir / "postgres" / "data", None)))
    await embedded.start()
    assert await read(dsn) == [1]
    await embedded.stop()


async def test_a_half_made_cluster_is_thrown_away(open_place: Path) -> None:
    broken = open_place / "bin"
    broken.mkdir()
    for name, text in {"postgres": "echo 'postgres (PostgreSQL) 18.4'", "initdb": "touch half; exit 1"}.items():
        (broken / name).write_text(f"#!/bin/sh\n{text}\n")
        (broken / name).chmod(0o755)
    with pytest.raises(StoreUnavailable, match="initdb failed"):
        await EmbeddedPostgres(open_place / "data", bin_dir=broken).start()
    assert not exists(open_place / "data" / "postgres" / "data")
    embedded = EmbeddedPostgres(open_place / "data")
    await embedded.start()
    await embedded.stop()
    assert list((open_place / "data" / "postgres").glob("new-*")) == []


async def test_data_of_another_major_version_is_refused_with_the_way_out(data_dir: Path) -> None:
    (data_dir / "postgres" / "data" / "PG_VERSION").write_text("12\n")
    with pytest.raises(SettingsError, match=r"written by PostgreSQL 12.*database\.bin_dir"):
        await EmbeddedPostgres(data_dir).start()


async def test_a_directory_without_programs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"check database\.bin_dir"):
        await EmbeddedPostgres(tmp_path, bin_dir=tmp_path / "nothing").start()


WATCHED = """
    import json, signal, subprocess, time
    from controller.store.children import watch_parent

    signal.signal(signal.SIGQUIT, signal.SIG_DFL)  # what a shell runs in the background ignores it
    child = subprocess.Popen(["sleep", "60"])
    watcher = watch_parent(child.pid)
    print(json.dumps({"child": child.pid, "watcher": watcher.pid}), flush=True)
    time.sleep(60)
"""


@pytest.fixture
def watched() -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    command = [sys.executable, "-c", textwrap.dedent(WATCHED)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        yield parent, answer_of(parent.stdout)
        parent.kill()


async def test_where_the_kernel_cannot_a_pipe_tells_that_the_parent_ended(
    watched: tuple[subprocess.Popen[str], dict[str, Any]],
) -> None:
    parent, pids = watched
    await asyncio.sleep(0.2)
    assert running(pids["child"])
    parent.kill()
    await eventually(lambda: not running(pids["child"]) and not running(pids["watcher"]))
