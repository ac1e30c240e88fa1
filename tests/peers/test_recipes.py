"""docs/measuring.md with Node and OpenTelemetry: real SDKs, a real Prometheus, the shipped policies unchanged."""

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import aiohttp
import pytest

from controller.domain.binding import Guardrail, bind
from controller.domain.judge import Side, settle
from controller.domain.plan import RolloutPlan
from controller.domain.policy import GuardrailPolicy
from controller.manifests.loader import load
from controller.settings import PrometheusSourceSettings
from controller.sources.prometheus import PrometheusSource
from tests.support import manifests
from tests.support.engine import World
from tests.support.many_flags import SystemClock
from tests.support.practice import Practice
from tests.support.prometheus import free_port, running_prometheus
from tests.support.repository import ROOT
from tests.support.sdk_door import KEY, STAFF, make_flag, raised, running_door
from tests.support.sources import lent
from tests.support.twenty import FLAGS

pytestmark = pytest.mark.timeout(240)

PEERS = ROOT / "tests" / "peers"
RECIPES = ROOT / "docs" / "recipes"
PYTHON = ROOT / ".peers" / "python" / "bin" / "python"
POLICIES = {"node": "web-service", "otel": "otel-service"}
SERIES = {
    "node": '{__name__=~"http_request.*",service="node"}',
    "otel": '{__name__=~"feature_flag_request.*",service_name="otel"}',
}


def policy_of(service: str) -> GuardrailPolicy:
    text = (ROOT / "policies" / f"{POLICIES[service]}.policy.yaml").read_bytes()
    policy = load(text, "shipped.policy.yaml").documents[0].value
    assert isinstance(policy, GuardrailPolicy)
    return policy


def plan_of(service: str, flag: str) -> RolloutPlan:
    text = manifests.plan(flag, "1h", stages={"everyone": "100%"}, policy=POLICIES[service])
    text = text.replace("service: shop", f"service: {service}") + "  notify: [{ to: oncall }]\n"
    plan = load(text.encode(), "some.rollout.yaml").documents[0].value
    assert isinstance(plan, RolloutPlan)
    return plan


def guardrail_of(service: str, flag: str) -> Guardrail:
    plan = plan_of(service, flag)
    return bind(plan.spec.guardrails[0], policy_of(service), plan)


class Installation:
    """One service with twenty flags at half, scraped by `prometheus`."""

    def __init__(self, service: str, prometheus: str) -> None:
        self.service = service
        self.prometheus = prometheus
        self.source = PrometheusSource("prod", PrometheusSourceSettings(url=prometheus), lent(SystemClock()))

    async def ask(self, query: str) -> float:
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self.prometheus}/api/v1/query", data={"query": query}) as response,
        ):
            result = (await response.json())["data"]["result"]
        return float(result[0]["value"][1]) if result else 0.0

    async def measured(self) -> Mapping[str, Side]:
        """Every metric of every flag and variation, once all are numbers; fails with those that are none."""
        guardrails = {flag: guardrail_of(self.service, flag) for flag in FLAGS}
        asked = {
            f"{flag} {metric} {variation}": (guardrail, metric, guardrail.question(metric, variation))
            for flag, guardrail in guardrails.items()
            for metric in guardrail.metrics
            for variation in ("on", "off")
        }
        deadline = time.monotonic() + 120
        while True:
            readings = await self.source.measure([question for _, _, question in asked.values()])
            sides = {
                label: settle(
                    readings[question],
                    guardrail.metrics[metric].shape,
                    min_sample=guardrail.min_sample,
                    stale_after=guardrail.stale_after_seconds,
                )
                for label, (guardrail, metric, question) in asked.items()
            }
            missing = {label: side.detail for label, side in sides.items() if side.problem}
            if not missing:
                return sides
            assert time.monotonic() < deadline, missing
            await asyncio.sleep(0.5)


@contextmanager
def process(command: Sequence[str | Path], log: Path, **env: str) -> Iterator[None]:
    with log.open("wb") as output:
        running = subprocess.Popen(
            list(map(str, command)), stdout=output, stderr=output, env={**os.environ, **env}
        )
    try:
        yield
        assert running.poll() is None, log.read_text()
    finally:
        running.terminate()
        running.wait(10)


def command_of(service: str, folder: Path, *arguments: str) -> list[str | Path]:
    if service == "otel":
        return [PYTHON, PEERS / "recipes" / "otel_service.py", *arguments]
    # Node looks for packages beside the file that wants them.
    shutil.copy(RECIPES / "flag-metrics.mjs", folder)
    shutil.copy(PEERS / "recipes" / "node_service.mjs", folder)
    (folder / "node_modules").symlink_to(PEERS / "node_modules")
    return ["node", folder / "node_service.mjs", *arguments]


@asynccontextmanager
async def installed(service: str, folder: Path) -> AsyncIterator[Installation]:
    port = free_port()
    flags = [raised(make_flag(key), 50_000, STAFF) for key in FLAGS]
    async with running_door(*flags) as door:
        command = command_of(service, folder, door.url, KEY, str(port), ",".join(FLAGS))
        with (
            process(command, folder / "service.log", PYTHONPATH=str(RECIPES)),
            running_prometheus(folder / "prometheus", [f"127.0.0.1:{port}"], scrape_interval="1s") as prometheus,
        ):
            one = Installation(service, prometheus)
            try:
                yield one
            finally:
                await one.source.close()


@pytest.mark.parametrize("service", POLICIES)
async def test_the_policy_as_it_is_shipped_measures_twenty_flags_of_the_recipe(
    service: str, tmp_path: Path
) -> None:
    async with installed(service, tmp_path) as installation:
        sides = await installation.measured()
        assert len(sides) == 20 * 2 * 2
        rates = [side.value or 0.0 for label, side in sides.items() if "error_rate" in label]
        assert all(0.1 < rate < 0.3 for rate in rates), rates  # one in five
        assert all((side.value or 0.0) < 1 for label, side in sides.items() if "latency" in label)

        assert "960 series" in (ROOT / "docs" / "measuring.md").read_text()
        assert await installation.ask(f"count({SERIES[service]})") == 960

        assert [one for one in await doctor(installation, tmp_path) if one.startswith("plan")] == [
            f"plan {FLAGS[0]}: ok: main/production/{FLAGS[0]} is off; {POLICIES[service]} answers for off"
        ]


async def doctor(installation: Installation, folder: Path) -> list[str]:
    """What it finds, each cut off before the figures."""
    (folder / "data").mkdir()
    world = World(folder / "data")
    await world.presence.check_in()
    await world.apply(plan_of(installation.service, FLAGS[0]), policy_of(installation.service))
    practice = Practice(world)
    practice.sources = {"prod-prometheus": installation.source}
    found = await practice.examined()
    return [f"{one.name}: {one.state}: {one.detail.split(' (')[0]}" for checks in found.values() for one in checks]
