"""The whole chain with real parts: shops behind LaunchDarkly's SDK → Prometheus → Rampart → the SDK again."""

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar
from urllib.parse import urlencode

import asyncpg
import msgspec

from controller.demo.pace import POLICY, scale_durations, shipped_policy
from controller.domain.audit import AuditEntry
from controller.domain.plan import RolloutPlan
from controller.domain.policy import GuardrailPolicy
from controller.manifests.loader import load
from controller.store.embedded import DATABASE, PORT, USER
from tests.support import manifests
from tests.support.prometheus import prometheus_binary
from tests.support.server import RampartServer, free_port, wait_until
from tests.support.shop import Shops, running_shops

D = TypeVar("D")

SHOPS = 2
USERS_PER_SHOP = 5_000
# Each flag sees 8000 requests per second: 480 in a window of 6 s at 1 %, where the policy wants 200.
TRAFFIC: dict[str, str | float] = {
    "visits-per-second": 400,
    "requests-per-visit": 10,
    "service": "shop",
    "users": USERS_PER_SHOP,
}
SCRAPE_INTERVAL = "250ms"
SETTINGS = """\
[engine]
poll_seconds = 0.1
[sources.prod-prometheus]
kind = "prometheus"
url = "http://127.0.0.1:{port}"
timeout_seconds = 1.5
"""
PLAN = """\
apiVersion: rampart/v1
kind: RolloutPlan
metadata: {{ name: {flag}, owner: team-shop }}
spec:
  flag: {{ provider: main, environment: production, key: {flag} }}
  serve: {{ rollout: "on", fallback: "off" }}
  audience:
    always: [{{ name: staff, match: {{ email: {{ endsWith: "@acme.example" }} }} }}]
  stages:
    - {{ name: canary,   exposure: 1%,   bake: {bake} }}
    - {{ name: early,    exposure: 10%,  bake: {early_bake} }}
    - {{ name: half,     exposure: 50%,  bake: {bake} }}
    - {{ name: everyone, exposure: 100%, bake: {bake} }}
  guardrails:
    - {{ policy: web-service, with: {{ service: shop }} }}
"""


def plan_text(flag: str, *, bake: str = "3s", early_bake: str = "3s") -> str:
    return PLAN.format(flag=flag, bake=bake, early_bake=early_bake)


class PrometheusProcess:
    """A Prometheus that can be stopped, frozen and started again on its data and port."""

    def __init__(self, directory: Path, targets: Sequence[str]) -> None:
        self.port = free_port()
        self._log = directory / "prometheus.log"
        config = directory / "prometheus.yml"
        config.write_text(
            f"global: {{ scrape_interval: {SCRAPE_INTERVAL}, scrape_timeout: {SCRAPE_INTERVAL} }}\n"
            f"scrape_configs: [{{ job_name: shops, static_configs: [{{ targets: {list(targets)} }}] }}]\n"
        )
        self._command = [
            prometheus_binary(),
            f"--config.file={config}",
            f"--storage.tsdb.path={directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=warn",
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        wait_until(self._ready, what="Prometheus to be ready")

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.send_signal(signal.SIGCONT)
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def freeze(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    def query(self, promql: str, at: str | None = None) -> list[float]:
        """The values that answer an instant query. Fails when Prometheus does not accept the text."""
        form = {"query": promql} | ({"time": at} if at else {})
        status, body = self._get(f"/api/v1/query?{urlencode(form)}")
        assert status == 200, f"{promql}: {body!r}"
        return [float(found["value"][1]) for found in json.loads(body)["data"]["result"]]

    def _ready(self) -> bool:
        with suppress(OSError):
            return self._get("/-/ready")[0] == 200
        return False

    def _get(self, path: str) -> tuple[int, bytes]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()


class Live:
    """Everything up, and the shipped policy applied with its durations multiplied by `factor`."""

    def __init__(
        self,
        server: RampartServer,
        prometheus: PrometheusProcess,
        shops: Shops,
        policy: str,
        plans: Mapping[str, str],
    ) -> None:
        self.server = server
        self.prometheus = prometheus
        self.shops = shops
        self.policy = _document(policy, GuardrailPolicy)
        self.plans = {name: _document(text, RolloutPlan) for name, text in plans.items()}

    def history(self, plan: str) -> list[AuditEntry]:
        """What happened to the plan's only run, oldest first."""
        return [entry for entry in self.entries() if entry.run == f"{plan}#1"]

    def entries(self) -> list[AuditEntry]:
        return [msgspec.convert(row["entry"], AuditEntry) for row in self.server.audit()]

    def rampart(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The command line, as a person at a terminal has it."""
        environ = os.environ | {
            "RAMPART_URL": self.server.url,
            "RAMPART_TOKEN_FILE": str(self.server.data / "admin.token"),
        }
        command = [sys.executable, "-m", "controller", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environ)

    async def position(self, sequence: int, text: str) -> int:
        """Where `text` begins in the stored body of an audit row, counted from 1."""
        found = await self._value("SELECT strpos(body, $2) FROM audit WHERE sequence = $1", sequence, text)
        assert isinstance(found, int)
        assert found
        return found

    async def change_byte(self, sequence: int, position: int, byte: str) -> str:
        """Directly in PostgreSQL, behind everybody's back: one byte of one audit row. Returns what was there."""
        before = await self._value("SELECT substr(body, $2, 1) FROM audit WHERE sequence = $1", sequence, position)
        update = "UPDATE audit SET body = overlay(body placing $3 from $2 for 1) WHERE sequence = $1"
        await self._value(update, sequence, position, byte)
        assert isinstance(before, str)
        return before

    async def _value(self, statement: str, *arguments: object) -> object:
        with short_link(self.server.postmaster_file.parent) as sockets:
            connection = await asyncpg.connect(host=sockets, port=PORT, user=USER, database=DATABASE)
            try:
                value: object = await connection.fetchval(statement, *arguments)
            finally:
                await connection.close()
        return value


@contextmanager
def short_link(directory: Path) -> Iterator[str]:
    """The path of a unix socket must be short, and those of tests are not."""
    with TemporaryDirectory() as short:
        link = Path(short, "sockets")
        link.symlink_to(directory)
        yield str(link)


def _document(text: str, kind: type[D]) -> D:
    """The manifest as the server understood it, read from its text alone."""
    loaded = load(text, "manifest.yaml")
    assert not loaded.problems, loaded.problems
    document = loaded.documents[0].value
    assert isinstance(document, kind)
    return document


@contextmanager
def running_live(directory: Path, *, factor: float, plans: Mapping[str, str]) -> Iterator[Live]:
    """`plans` are plan texts by flag key; a built-in flag of that key is made for each. Starts no run."""
    policy = scale_durations(shipped_policy(), factor)
    shop_ports = [free_port() for _ in range(SHOPS)]
    with ExitStack() as stack:
        prometheus = PrometheusProcess(directory, [f"127.0.0.1:{port}" for port in shop_ports])
        stack.callback(prometheus.stop)
        prometheus.start()
        server = RampartServer(directory, SETTINGS.format(port=prometheus.port))
        stack.callback(server.stop)
        server.start()
        files = {POLICY: policy}
        files |= {f"{flag}.flag.yaml": manifests.flag(flag) for flag in plans}
        files |= {f"{flag}.rollout.yaml": text for flag, text in plans.items()}
        listed = [{"name": name, "text": text} for name, text in files.items()]
        server.call("POST", "manifests", {"files": listed})
        shops = stack.enter_context(
            running_shops(
                SHOPS,
                directory / "shops",
                stream_uri=server.url,
                sdk_key=server.sdk_key(),
                flags=list(plans),
                ports=shop_ports,
                options=TRAFFIC,
            )
        )
        yield Live(server, prometheus, shops, policy, plans)
