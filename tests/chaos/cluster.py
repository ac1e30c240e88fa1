"""Three replicas, each with bad ways of its own to one PostgreSQL and to the others, and what they scrape."""

import contextlib
import http.client
import os
import re
import secrets
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import permutations
from pathlib import Path

from tests.chaos import plans
from tests.chaos.database import AWAY, DATABASE, Ground, PostgresServer, Sql, ask, dsn
from tests.chaos.proxy import Network, Proxy
from tests.chaos.shop import Shop
from tests.support.server import Answer, RampartServer, free_port, wait_until

REPLICAS = 3
LEASE_SECONDS = 3.0
PRESENCE_SECONDS = 5.0
DATABASE_TIMEOUT_SECONDS = 2.0
POLL_SECONDS = 0.2
SETTLE_SECONDS = 2.0
FILES_PER_REQUEST = 60
RECOVERY_SECONDS = 60.0

_LAST_TICK = re.compile(rb"^rampart_last_tick_timestamp_seconds (\S+)$", re.MULTILINE)


class Replica(RampartServer):
    """One of the cluster's servers. `way` leads to the database; `name` is how the database knows it."""

    def __init__(self, folder: Path, number: int, port: int, way: Proxy, token_file: Path, settings: str) -> None:
        folder.mkdir()
        super().__init__(folder, settings, port=port)
        self.number = number
        self.way = way
        self._token_file = token_file
        self._token = token_file.read_text().strip()

    @property
    def token(self) -> str:
        return self._token

    @property
    def name(self) -> str:
        return (self.data / "replica").read_text().strip()

    def start(self, *, wait_ready: bool = True, env: Mapping[str, str] | None = None) -> None:
        given = {"RAMPART_ADMIN_TOKEN_FILE": str(self._token_file), **(env or {})}
        super().start(wait_ready=wait_ready, env=given)

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)

    def asked(self, method: str, path: str, body: object = None, *, seconds: float = 5.0) -> Answer | None:
        """None when it could not be reached or did not answer in time."""
        try:
            return self.request(method, path, body, timeout=seconds)
        except (OSError, http.client.HTTPException):
            return None

    def ready(self) -> bool:
        answer = self.asked("GET", "/readyz", seconds=1.0)
        return answer is not None and answer.status == 200

    def last_tick(self) -> float:
        """When it last looked for runs, in wall-clock seconds; 0 when it does not say."""
        answer = self.asked("GET", "/metrics", seconds=2.0)
        found = _LAST_TICK.search(answer.body) if answer is not None and answer.status == 200 else None
        return float(found[1]) if found else 0.0


class Cluster:
    def __init__(self, folder: Path, flags: Sequence[str], *, mount: bool) -> None:
        self.folder = folder
        self.flags = list(flags)
        self.ground = Ground(folder, mount=mount)
        self.network = Network()
        self.shop = Shop(self.flags)
        self.nodes = 1
        self.postgres = PostgresServer(self.ground, "node-1")
        self.replicas: list[Replica] = []
        self.peer_ways: dict[tuple[int, int], Proxy] = {}
        self.sql = Sql(self.postgres.port)
        self.sdk_key = ""

    # — begin and end —

    def start(self) -> None:
        self.postgres.initialise()
        self.postgres.start()
        ask(dsn(self.postgres.port, "postgres"), f"CREATE DATABASE {DATABASE}")
        self._wire()
        for replica in self.replicas:
            replica.start(wait_ready=replica.number == 0)  # the first one migrates and makes the token
        for replica in self.replicas:
            replica.wait_ready()
        self.sdk_key = self.replicas[0].sdk_key()
        for first in range(0, len(self.flags), FILES_PER_REQUEST):
            files = plans.files(self.flags[first : first + FILES_PER_REQUEST])
            wait_until(partial(self._applied, files), seconds=60, what="manifests to be applied")

    def _applied(self, files: list[dict[str, str]]) -> bool:
        """A busy machine may take longer than the database is given; applying is repeatable."""
        answer = self.replicas[0].request("POST", "/api/v1/manifests", {"files": files}, timeout=120.0)
        assert answer.status in (200, 503), answer.body.decode()[:2000]
        return answer.status == 200

    def _wire(self) -> None:
        token_file, peer_secret = self.folder / "admin.token", self.folder / "peers.secret"
        for file in (token_file, peer_secret):
            file.write_text(secrets.token_urlsafe(32))
            file.chmod(0o600)
        ports = [free_port() for _ in range(REPLICAS)]
        self.peer_ways = {pair: Proxy(self.network, ports[pair[1]]) for pair in permutations(range(REPLICAS), 2)}
        for number, port in enumerate(ports):
            way = Proxy(self.network, self.postgres.port)
            peers = [self.peer_ways[pair].port for pair in self.peer_ways if pair[0] == number]
            settings = _settings(way.port, peers, peer_secret, self.shop.url)
            folder = self.folder / f"replica-{number}"
            self.replicas.append(Replica(folder, number, port, way, token_file, settings))

    def close(self) -> None:
        for replica in self.replicas:
            with contextlib.suppress(ProcessLookupError, AssertionError):
                replica.signal(signal.SIGCONT)
            replica.kill()
        for proxy in (*self.peer_ways.values(), *(replica.way for replica in self.replicas)):
            proxy.close()
        self.network.close()
        self.sql.close()
        self.shop.close()
        self.postgres.end()
        self.ground.close()

    # — who is well —

    def restore(self) -> None:
        """Whatever a fault left behind that failed halfway: everything runs again, and is reached."""
        self.heal()
        if self.postgres.ended():
            self.postgres.start()
        for replica in self.replicas:
            if not replica.alive():
                replica.start(wait_ready=False)
            replica.signal(signal.SIGCONT)
        with contextlib.suppress(AssertionError):  # the next fault says it again
            self.wait_ticking()
            self.wait_raises_allowed()

    def heal(self) -> None:
        """Undo whatever the network and the application suffer from."""
        for proxy in (*self.peer_ways.values(), *(replica.way for replica in self.replicas)):
            proxy.heal()
        self.shop.ails("")

    def wait_ticking(self, replicas: Iterable[Replica] = (), *, seconds: float = RECOVERY_SECONDS) -> None:
        """Until these replicas, or all, are ready and have looked for runs after now."""
        after = time.time()
        waiting = list(replicas or self.replicas)

        def ticking() -> bool:
            waiting[:] = [one for one in waiting if not (one.ready() and one.last_tick() > after)]
            return not waiting

        try:
            wait_until(ticking, seconds=seconds, every=0.08)
        except AssertionError as error:
            late = ", ".join(f"replica {one.number} ({one.tail(600)})" for one in waiting)
            raise AssertionError(f"after {seconds:g} s these did not tick: {late}") from error

    def wait_raises_allowed(self, *, seconds: float = RECOVERY_SECONDS) -> None:
        """Until every replica has merged its kills into the present life of the database."""
        wait_until(self._everybody_present, seconds=seconds, every=0.05, what="every replica to be present")

    def _everybody_present(self) -> bool:
        with contextlib.suppress(*AWAY):
            present = self.sql.value("SELECT count(*) FILTER (WHERE NOT is_absent(replicas)) FROM replicas")
            return bool(present == REPLICAS)
        return False

    def barriers(self) -> list[str]:
        """Why nothing rises until a person has looked."""
        query = "SELECT document->>'reason' FROM barriers WHERE released_at IS NULL ORDER BY raised_at"
        return [row[0] for row in self.sql.rows(query)]

    def release_raises(self) -> None:
        """A person has looked. Raises AssertionError when no replica takes it."""
        body = {"note": "looked at what was lost"}
        answers = [one.asked("POST", "/api/v1/raises/release", body) for one in self.replicas]
        assert any(answer is not None and answer.status == 200 for answer in answers), "no replica releases raises"

    def leases_of(self, replica: Replica) -> list[str]:
        """The active runs that the present owner of this replica holds."""
        pattern = replica.name.replace("_", r"\_") + "/%"
        query = "SELECT id FROM runs WHERE active AND lease_owner LIKE $1 AND lease_expires_at > clock_timestamp()"
        return [row["id"] for row in self.sql.rows(query, pattern)]

    def deal_leases_anew(self) -> None:
        """Whoever looks first takes a run that is due. Nothing else moves runs to a replica that came back."""
        self.sql.rows("UPDATE runs SET lease_owner = NULL, lease_expires_at = NULL WHERE active")

    # — PostgreSQL —

    @contextmanager
    def lagging_standby(self) -> Iterator[tuple[PostgresServer, Callable[[], None]]]:
        """A streaming standby, and how to keep what follows from it."""
        way = Proxy(self.network, self.postgres.port)
        self.nodes += 1
        standby = PostgresServer(self.ground, f"node-{self.nodes}")
        try:
            standby.copy_from(self.postgres, way.port)
            standby.start()
            streaming = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"
            wait_until(lambda: self.sql.value(streaming) == 1, seconds=30, what="the standby to stream")
            yield standby, way.hold
        finally:
            way.close()

    def fail_over_to(self, standby: PostgresServer) -> float:
        """The primary dies, the standby takes its place. When it answered, on the monotonic clock."""
        lost, self.postgres = self.postgres, standby
        lost.end()
        ask(standby.dsn, "SELECT pg_promote()", seconds=60.0)
        answered = standby.wait_answers()
        for replica in self.replicas:
            replica.way.lead_to(standby.port)
        self.sql.lead_to(standby.port)
        lost.remove()
        return answered


def _settings(database_port: int, peers: Sequence[int], secret: Path, scraped: str) -> str:
    urls = ", ".join(f'"http://127.0.0.1:{port}"' for port in peers)
    return f"""\
[database]
url = "{dsn(database_port)}"
timeout_seconds = {DATABASE_TIMEOUT_SECONDS}
[engine]
poll_seconds = {POLL_SECONDS}
lease_seconds = {LEASE_SECONDS}
presence_seconds = {PRESENCE_SECONDS}
measure_timeout_seconds = 2.0
provider_timeout_seconds = 2.0
max_automatic_kills = 10000
[peers]
urls = [{urls}]
secret_file = "{secret}"
[providers.main]
kind = "builtin"
settle_seconds = {SETTLE_SECONDS}
[sources.app]
kind = "scrape"
targets = ["{scraped}"]
every_seconds = 2.0
timeout_seconds = 1.0
retention_seconds = 60.0
"""
