"""An application without any metrics is guarded through what it tracks: a real SDK and a real server."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import ldclient
from ldclient import Context
from ldclient.config import Config

from tests.support.server import RampartServer, serving

SETTINGS = """\
[engine]
poll_seconds = 0.2
[sources.track]
kind = "events"
"""
FLAG = """\
apiVersion: rampart/v1
kind: Flag
metadata: { name: NAME }
spec: { environment: NAME, key: NAME }
"""
POLICY = """\
apiVersion: rampart/v1
kind: GuardrailPolicy
metadata: { name: tracked }
spec:
  source: track
  every: 1s
  window: 15s
  staleAfter: 10s
  baseline: { from: control, fallback: before, before: 15s }
  metrics:
    failing_users:
      bad:   error_contexts_total{environment="$environment",flag="$flag",variation="$variation",cohort="share"}
      total: contexts_total{environment="$environment",flag="$flag",variation="$variation",cohort="share"}
    latency_p95:
      quantile: 0.95
      unit: seconds
      histogram: latency_bucket{environment="$environment",flag="$flag",variation="$variation",cohort="share"}
  rules:
    - { id: failing, if: failing_users > 10%, for: 2s, then: pause }
    - { id: slow, if: latency_p95 > 2x baseline, floor: 50ms, for: 2s, then: pause }
  minSample: { requests: 20 }
"""
PLAN = """\
apiVersion: rampart/v1
kind: RolloutPlan
metadata: { name: NAME }
spec:
  flag: { provider: main, environment: NAME, key: NAME }
  serve: { rollout: "on", fallback: "off" }
  audience: { always: [{ name: staff, match: { email: { endsWith: "@acme.example" } } }] }
  stages:
    - { name: half, exposure: 50%, bake: 10m }
    - { name: everyone, exposure: 100%, bake: 10m }
  guardrails: [{ policy: tracked }]
"""
BROKEN: dict[str, tuple[dict[str, float], str]] = {
    "failing": ({"failing": 0.5}, "tracked/failing"),
    "slow": ({"slow": 0.4}, "tracked/slow"),
}
"""Application, alone in its environment → what its new code does, and the rule that is to notice."""

USERS = 200


class Application:
    """Serves users round and round, and knows nothing of metrics. `failing`, `slow`: what the new code does."""

    def __init__(self, server: RampartServer, flag: str, *, failing: float = 0.0, slow: float = 0.0) -> None:
        self._flag = flag
        config = Config(
            server.sdk_key(flag),
            base_uri=server.url,
            stream_uri=server.url,
            events_uri=server.url,
            flush_interval=0.5,
            diagnostic_opt_out=True,
        )
        self._client: Any = ldclient.LDClient(config, start_wait=10)
        self._failing = failing
        self._slow = slow
        self._chance = Random(3)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self.errors = 0

    def _serve(self) -> None:
        number = 0
        while not self._over.wait(0.01):
            number += 1
            self._visit(f"user-{number % USERS}")

    def _visit(self, name: str) -> None:
        user = Context.builder(name).set("email", f"{name}@example.org").build()
        new = self._client.variation(self._flag, user, False)
        self._client.track("latency", user, metric_value=0.1 + (self._slow if new else 0.0))
        if new and self._chance.random() < self._failing:
            # A client that tries again, and again: one user has a problem, not three.
            for _ in range(3):
                self._client.track("error", user)
            self.errors += 3

    @contextmanager
    def serving(self) -> Iterator["Application"]:
        self._thread.start()
        try:
            yield self
        finally:
            self._over.set()
            self._thread.join()
            self._client.close()


def test_an_application_without_metrics_is_paused_by_what_it_tracks(tmp_path: Path) -> None:
    with serving(tmp_path, SETTINGS) as server, ExitStack() as running:
        server.apply(
            **{f"{name}_flag": FLAG.replace("NAME", name) for name in BROKEN},
            **{f"{name}_rollout": PLAN.replace("NAME", name) for name in BROKEN},
            tracked_policy=POLICY,
        )
        for name, (broken, _) in BROKEN.items():
            running.enter_context(Application(server, name, **broken).serving())
            server.command(name, "start")
        for name, (_, rule) in BROKEN.items():
            status = server.wait_phase(name, "paused", seconds=90)
            assert rule in str(status["reason"])
            assert status["desired_exposure"] == 50_000
