"""docs/measuring.md: a service of twenty active flags is measurable with the recipe, and by the shipped policy."""

import asyncio
import importlib.util
import math
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any

import ldclient
import pytest
from ldclient.config import Config
from prometheus_client import CollectorRegistry, disable_created_metrics, generate_latest

from controller.doctor import measures
from controller.doctor.measures import Ask
from controller.domain.binding import Guardrail, bind
from controller.domain.judge import settle
from controller.domain.plan import RolloutPlan
from controller.domain.policy import GuardrailPolicy
from controller.manifests.loader import load
from controller.settings import ScrapeSourceSettings
from controller.sources.scrape import ScrapeSource
from tests.support import manifests
from tests.support.prometheus import ExpositionServer
from tests.support.repository import ROOT, blocks
from tests.support.server import RampartServer, wait_until
from tests.support.sources import lent
from tests.support.twenty import FLAGS, STAFF_EMAIL, twenty_at_half

pytestmark = pytest.mark.timeout(300)

PAGE = (ROOT / "docs" / "measuring.md").read_text()
EVERY_SECONDS = 5.0
SCRAPES = 70
REQUESTS_PER_SCRAPE = 12
CODES = (200, 200, 200, 404, 500)


def recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("flag_metrics", ROOT / "docs" / "recipes" / "flag_metrics.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RampartServer]:
    disable_created_metrics()  # type: ignore[no-untyped-call]
    with twenty_at_half(tmp_path_factory.mktemp("twenty")) as server:
        yield server


class Service:
    """A web service that asks for all twenty flags in every request. `handled` counts what really happened."""

    def __init__(self, server: RampartServer) -> None:
        self.registry = CollectorRegistry()
        self.metrics = recipe().FlagMetrics(service="shop", environment="production", registry=self.registry)
        self.client: Any = ldclient.LDClient(
            Config(
                server.sdk_key(), base_uri=server.url, stream_uri=server.url, events_uri=server.url,
                send_events=False, hooks=[self.metrics],
            )
        )  # fmt: skip
        wait_until(self.client.is_initialized, what="the SDK to have its flags")
        self.handled: Counter[tuple[str, str, str]] = Counter()
        self.visits = 0

    def handle(self, user: str, code: int, email: str = "") -> None:
        context = ldclient.Context.builder(user).set("email", email).build()
        with self.metrics.request() as request:
            for flag in FLAGS:
                # Twice: it counts as one use.
                value = self.client.variation(flag, context, False)
                assert self.client.variation(flag, context, False) is value
                cohort = "always" if email else "share"
                self.handled[flag, "on" if value else "off", cohort] += 1
            request.code = code

    def work(self, requests: int) -> None:
        for _ in range(requests):
            self.visits += 1
            number = self.visits
            staff = number % 10 == 0
            self.handle(
                f"user-{number}", CODES[number // 10 % 5 if staff else number % 5], STAFF_EMAIL if staff else ""
            )

    def text(self) -> str:
        return generate_latest(self.registry).decode()

    def series(self) -> list[str]:
        return [line for line in self.text().splitlines() if not line.startswith("#")]


@contextmanager
def open_service(server: RampartServer) -> Iterator[Service]:
    service = Service(server)
    yield service
    service.client.close()


@pytest.fixture
def service(server: RampartServer) -> Iterator[Service]:
    with open_service(server) as service:
        yield service


def test_twenty_flags_cost_the_number_of_series_the_page_says(service: Service) -> None:
    service.work(400)
    series = service.series()
    assert len(series) == 961
    assert "960 series" in PAGE
    # On and off by share, and on always; three classes of codes; ten buckets and +Inf; sum and count.
    assert len(series) - 1 == 20 * 3 * (3 + 11 + 2)
    assert series.count("flag_metrics_left_out_total 0.0") == 1


def test_each_use_is_counted_once_with_its_variation_and_cohort(service: Service) -> None:
    service.work(200)
    counted: Counter[tuple[str, str, str]] = Counter()
    for metric in service.registry.collect():
        for sample in metric.samples:
            if sample.name == "http_requests_total":
                labels = sample.labels
                counted[labels["flag"], labels["variation"], labels["cohort"]] += round(sample.value)
    assert counted == service.handled
    assert {(variation, cohort) for _, variation, cohort in counted} == {
        ("on", "share"), ("off", "share"), ("on", "always"),
    }  # fmt: skip


def test_a_request_that_raises_is_an_error_and_one_without_flags_is_none(service: Service) -> None:
    def fail() -> None:
        with service.metrics.request():
            service.client.variation(FLAGS[0], ldclient.Context.create("user-1"), False)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with service.metrics.request():
        assert service.client.variation("nobody-made-this", ldclient.Context.create("user-1"), False) is False
    # Outside of a request nothing is counted either.
    service.client.variation(FLAGS[1], ldclient.Context.create("user-1"), False)
    counted = [line for line in service.series() if line.startswith("http_requests_total")]
    assert len(counted) == 1
    assert 'code="5xx"' in counted[0]
    assert counted[0].endswith(" 1.0")


def test_a_mistake_cannot_make_series_without_end() -> None:
    module = recipe()
    metrics = module.FlagMetrics(
        service="shop", environment="production", registry=(registry := CollectorRegistry())
    )
    for number in range(module.COMBINATIONS + 5):
        with metrics.request():
            metrics.use(f"user-{number}-flag", "on", "share")
    with metrics.request():
        for number in range(module.FLAGS_PER_REQUEST + 7):
            metrics.use(f"user-{number}-flag", "on", "share")
    text = generate_latest(registry).decode().splitlines()
    assert sum(line.startswith("http_requests_total") for line in text) == module.COMBINATIONS
    assert "flag_metrics_left_out_total 12.0" in text


@pytest.mark.parametrize(
    ("reason", "cohort"),
    [
        ({"kind": "FALLTHROUGH"}, "share"),
        ({"kind": "OFF"}, "share"),
        ({"kind": "RULE_MATCH", "ruleIndex": 0, "ruleId": "rampart-always-staff"}, "always"),
        ({"kind": "RULE_MATCH", "ruleIndex": 0, "ruleId": "vip"}, "other"),
        ({"kind": "RULE_MATCH", "ruleIndex": 0}, "other"),
        ({"kind": "TARGET_MATCH"}, "other"),
    ],
)
def test_only_who_is_drawn_by_the_percentage_is_of_the_share(reason: dict[str, Any], cohort: str) -> None:
    assert recipe().cohort_of(reason) == cohort


# — the page's own code —


def from_the_page(word: str, metrics: Any) -> Any:
    """What the block of the page that holds `word` defines under that name."""
    (block,) = (text for text in blocks(ROOT / "docs" / "measuring.md", "python") if f" {word}" in text)
    names: dict[str, Any] = {"metrics": metrics}
    exec(block, names)  # it is ours
    return names[word]


def counted(registry: CollectorRegistry) -> list[tuple[str, str]]:
    """Class of the code and count, for each combination."""
    text = generate_latest(registry).decode()
    return re.findall(r'^http_requests_total\{.*code="(\dxx)".*\} (\S+)$', text, re.MULTILINE)


async def test_the_middleware_of_the_page_counts_asgi_requests() -> None:
    registry = CollectorRegistry()
    metrics = recipe().FlagMetrics(service="shop", environment="production", registry=registry)

    async def shop(scope: Any, receive: Any, send: Any) -> None:
        metrics.use("checkout-v2", "on", "share")
        await asyncio.to_thread(metrics.use, "search", "off", "share")
        await send({"type": "http.response.start", "status": 302, "headers": []})

    async def send(_: Any) -> None:
        """Nobody listens."""

    application = from_the_page("CountFlags", metrics)(shop)
    await application({"type": "http"}, None, send)
    assert counted(registry) == [("3xx", "1.0")] * 2
    await application({"type": "lifespan"}, None, send)
    assert counted(registry) == [("3xx", "1.0")] * 2


def test_the_middleware_of_the_page_counts_wsgi_requests() -> None:
    registry = CollectorRegistry()
    metrics = recipe().FlagMetrics(service="shop", environment="production", registry=registry)

    def shop(environ: Any, start_response: Any) -> list[bytes]:
        metrics.use("checkout-v2", "on", "share")
        start_response("404 Not Found", [])
        return [b"gone"]

    assert from_the_page("count_flags", metrics)(shop)({}, lambda *_: None) == [b"gone"]
    assert counted(registry) == [("4xx", "1.0")]


# — by the shipped policy, unchanged —


class SteppedClock:
    def __init__(self) -> None:
        self.elapsed = 0.0

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.elapsed)

    def monotonic(self) -> float:
        return self.elapsed


def shipped(flag: str) -> tuple[RolloutPlan, Guardrail]:
    text = (ROOT / "policies" / "web-service.policy.yaml").read_bytes()
    policy = load(text, "web-service.policy.yaml").documents[0].value
    plan = load(manifests.plan(flag, policy="web-service").encode(), "plan.yaml").documents[0].value
    assert isinstance(policy, GuardrailPolicy)
    assert isinstance(plan, RolloutPlan)
    return plan, bind(plan.spec.guardrails[0], policy, plan)


async def test_the_shipped_policy_reads_what_the_recipe_exports(service: Service) -> None:
    clock = SteppedClock()
    with ExpositionServer(service.text) as target:
        settings = ScrapeSourceSettings(targets=[target.address], every_seconds=EVERY_SECONDS)
        source = ScrapeSource("prod-prometheus", settings, lent(clock))
        service.work(100)  # series that begin in the window count from their second sample on
        for _ in range(SCRAPES):
            await source.scrape()
            clock.elapsed += EVERY_SECONDS
            service.work(REQUESTS_PER_SCRAPE)
        await source.scrape()
        for flag in FLAGS:
            await judged(flag, source, service)
        await source.close()


async def judged(flag: str, source: ScrapeSource, service: Service) -> None:
    """Every metric of the policy is a number for both variations, of the right size, and hides nothing."""
    plan, guardrail = shipped(flag)
    asks = [
        Ask(guardrail=guardrail, metric=metric, variation=variation, exposed=True)
        for metric in guardrail.metrics
        for variation in ("on", "off")
    ]
    readings = await source.measure([ask.question for ask in asks])
    examined = await source.examine([ask.question for ask in asks])
    totals = Counter[str]()
    for ask in asks:
        reading, shape = readings[ask.question], guardrail.metrics[ask.metric].shape
        side = settle(reading, shape, min_sample=guardrail.min_sample, stale_after=guardrail.stale_after_seconds)
        assert side.problem is None, (ask.label, side)
        assert measures.looked_at("plan", ask, plan, examined.found[ask.question]) == []
        if shape == "ratio":
            assert math.isclose(side.value or 0, 1 / 5, rel_tol=0.35), (ask.label, side)
        totals[ask.metric] += round(reading.total or 0)
    # Nine of ten visitors are no staff.
    expected = 0.9 * REQUESTS_PER_SCRAPE * guardrail.window_seconds / EVERY_SECONDS
    assert all(math.isclose(total, expected, rel_tol=0.05) for total in totals.values()), totals
    assert totals.keys() == {"error_rate", "latency_p95"}
