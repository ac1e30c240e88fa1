"""Several `rampart serve` on one PostgreSQL, with the settings that docs/replicas.md shows."""

import asyncio
import contextlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import asyncpg

from controller.store.embedded import EmbeddedPostgres
from tests.support.repository import ROOT, blocks
from tests.support.server import RampartServer, free_port, wait_until


def documented() -> str:
    """The settings as people copy them."""
    return blocks(ROOT / "docs" / "replicas.md", "toml")[0]


class Database:
    """A PostgreSQL server of its own. `postmaster` is its process id."""

    def __init__(self, folder: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self._embedded = EmbeddedPostgres(folder)
        self.url = self._loop.run_until_complete(self._embedded.start())

    @property
    def postmaster(self) -> int:
        assert self._embedded.pid is not None
        return self._embedded.pid

    def holder(self, plan: str, *, left_seconds: float = 0.0) -> str:
        """The replica whose lease of the plan's active run lasts longer than that; empty when there is none."""
        query = (
            "SELECT lease_owner FROM runs WHERE active AND id LIKE $1"
            " AND lease_expires_at > clock_timestamp() + make_interval(secs => $2)"
        )
        owner = self._loop.run_until_complete(self._ask(query, f"{plan}#%", left_seconds))
        return str(owner or "").rpartition("/")[0]

    async def _ask(self, query: str, *arguments: object) -> object:
        connection = await asyncpg.connect(self.url)
        try:
            return await connection.fetchval(query, *arguments)
        finally:
            await connection.close()

    def stop(self) -> None:
        self._loop.run_until_complete(self._embedded.stop())
        self._loop.close()


class Replica(RampartServer):
    """One of several. `files` holds what they share: the database's address, the secret, the first token."""

    def __init__(self, folder: Path, files: Path, ports: Sequence[int], number: int, more: str) -> None:
        folder.mkdir()
        super().__init__(folder, port=ports[number])
        self._token_file = files / "admin.token"
        settings = documented().replace("/var/lib/rampart", str(self.data)).replace("/etc/rampart", str(files))
        settings = settings.replace("0.0.0.0:8400", f"127.0.0.1:{self.port}")
        for other, port in enumerate(ports, 1):
            settings = settings.replace(f"rampart-{other}:8400", f"127.0.0.1:{port}")
        self.config.write_text(settings + more)

    @property
    def token(self) -> str:
        return self._token_file.read_text().strip()

    @property
    def name(self) -> str:
        return (self.data / "replica").read_text().strip()

    def start(self, *, wait_ready: bool = True, env: Mapping[str, str] | None = None) -> None:
        given = {"RAMPART_ADMIN_TOKEN_FILE": str(self._token_file), **(env or {})}
        super().start(wait_ready=wait_ready, env=given)

    def raises(self) -> Any:
        return self.call("GET", "raises")

    def states(self) -> dict[str, str]:
        """Every registered replica by name, as this one knows them."""
        return {one["name"]: one["state"] for one in self.raises()["replicas"]}


@contextlib.contextmanager
def replicas(folder: Path, database_url: str, *, more: str = "", count: int = 3) -> Iterator[list[Replica]]:
    """Started, registered, and telling each other of kills. `more` is TOML after the documented settings."""
    files = folder / "shared"
    files.mkdir()
    for name, text in (
        ("database.url", database_url),
        ("peers.secret", secrets.token_hex(32)),
        ("admin.token", f"rampart_{secrets.token_urlsafe(32)}"),
    ):
        (files / name).write_text(text + "\n")
    ports = [free_port() for _ in range(count)]
    several = [Replica(folder / f"replica-{n + 1}", files, ports, n, more) for n in range(count)]
    try:
        several[0].start()  # it migrates the database
        for one in several[1:]:
            one.start(wait_ready=False)
        for one in several[1:]:
            one.wait_ready()
        wait_all_there(several)
        yield several
    finally:
        for one in several:
            one.kill()


def wait_all_there(several: Sequence[Replica], *, seconds: float = 30.0) -> None:
    """Until each sees all others registered and reaches them."""

    def there() -> bool:
        return all(len(one.states()) == len(several) and one.raises()["allowed"] for one in several)

    def reached() -> bool:
        checks = [check for one in several for check in one.call("GET", "doctor")]
        met = [check for check in checks if check["name"].startswith("peer ") and check["state"] == "ok"]
        return len(met) == len(several) * (len(several) - 1)

    wait_until(there, seconds=seconds, every=0.1, what="all replicas to be registered")
    wait_until(reached, seconds=seconds, every=0.1, what="all replicas to reach each other")
