"""A real PgBouncer in transaction mode, in front of a server that listens on a Unix socket."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.support.server import free_port, wait_until

# Debian puts it where only root's search path looks.
SEARCH_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def pgbouncer_binary() -> str:
    found = shutil.which("pgbouncer", path=SEARCH_PATH)
    if not found:
        raise RuntimeError("these tests need PgBouncer: apt-get install pgbouncer")
    return found


@contextmanager
def running_pgbouncer(directory: Path, dsn: str, *, pool_size: int = 4) -> Iterator[str]:
    """Yields the DSN that leads to the database of `dsn` through it; `pool_size` sessions are shared by all.

    The socket gets a second name: PgBouncer as somebody else than root cannot enter the directory it is in.
    """
    server, port = urlsplit(dsn), free_port()
    query = parse_qs(server.query)
    name = f".s.PGSQL.{query['port'][0]}"
    reachable = Path(tempfile.mkdtemp(prefix="rampart-pooler-"))
    reachable.chmod(0o711)
    os.link(Path(query["host"][0]) / name, reachable / name)
    config = directory / "pgbouncer.ini"
    config.write_text(
        f"[databases]\n* = host={reachable} port={query['port'][0]} user={server.username}\n[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
        f"pool_mode = transaction\ndefault_pool_size = {pool_size}\nmax_client_conn = 200\n"
        "ignore_startup_parameters =\nlog_connections = 0\nlog_disconnections = 0\n"
    )
    log = directory / "pgbouncer.log"
    command = [pgbouncer_binary(), str(config)]
    if os.getuid() == 0:
        # It refuses to be root, and reads its settings before it becomes somebody else.
        command[1:1] = ["-u", (reachable / name).owner()]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        wait_until(lambda: _listens(process, port), what=f"PgBouncer: {log.read_text(errors='replace')}")
        yield f"postgresql://{server.username}@127.0.0.1:{port}{server.path}"
    finally:
        process.terminate()
        process.wait(timeout=10)
        shutil.rmtree(reachable)


def _listens(process: "subprocess.Popen[bytes]", port: int) -> bool:
    if process.poll() is not None:
        raise AssertionError(f"PgBouncer ended with {process.returncode}")
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
