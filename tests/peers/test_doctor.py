"""What the doctor finds with a real Prometheus: pairs that are summed, ambiguous queries, what is down."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from controller.domain.status import Check
from controller.settings import PrometheusSourceSettings
from controller.sources.prometheus import PrometheusSource
from tests.support.engine import World
from tests.support.many_flags import SystemClock
from tests.support.practice import Practice
from tests.support.prometheus import ExpositionServer, running_prometheus
from tests.support.rollouts import make_plan, make_policy
from tests.support.sources import lent

NOTIFY = [{"to": "oncall"}]
PLAN = make_plan(audience={"always": []}, notify=NOTIFY)
SHORT: dict[str, Any] = {"window": "10s", "every": "1s", "staleAfter": "5s", "minSample": {"requests": 1}}
NAME = "plan checkout-v2"


class Shop:
    """Counters that grow with time, of a service with some threads that are called alike."""

    def __init__(self) -> None:
        self.began = time.monotonic()

    def text(self) -> str:
        grown = 50 + (time.monotonic() - self.began) * 2000
        lines = ""
        for thread, part in (("1", 0.3), ("2", 0.7)):
            labels = f'flag="checkout-v2",variation="off",thread="{thread}"'
            lines += f'requests_total{{{labels},code="200"}} {grown * part}\n'
            for edge in ("0.1", "+Inf"):
                lines += f'seconds_bucket{{{labels},le="{edge}"}} {grown * part}\n'
        return lines


class Pair:
    """Two Prometheus servers that scrape one shop, and a third that both write to."""

    def __init__(self, shop: ExpositionServer, one: str, both: str) -> None:
        self.shop, self.one, self.both = shop, one, both


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    with ExitStack() as stack:
        shop = stack.enter_context(ExpositionServer(Shop().text))
        arguments = ["--web.enable-remote-write-receiver"]
        both = stack.enter_context(running_prometheus(folder / "both", [], arguments=arguments))
        one, _ = (
            stack.enter_context(running_prometheus(folder / name, [shop.address], replica=name, writes_to=both))
            for name in ("a", "b")
        )
        yield Pair(shop, one, both)


@pytest.fixture
async def practice(tmp_path: Path) -> Practice:
    world = World(tmp_path)
    await world.presence.check_in()
    return Practice(world)


@asynccontextmanager
async def asking(practice: Practice, url: str, policy: dict[str, Any] | None = None) -> AsyncIterator[Practice]:
    await practice.world.apply(PLAN, make_policy(**{**SHORT, **(policy or {})}))
    source = PrometheusSource("prom", PrometheusSourceSettings(url=url, timeout_seconds=3.0), lent(SystemClock()))
    practice.sources = {"prom": source}
    yield practice
    await source.close()


async def until(found: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + 60
    while not await found():
        assert time.monotonic() < deadline, "the doctor did not find it in time"
        await asyncio.sleep(0.3)


async def first(practice: Practice) -> Check:
    return (await practice.examined())[NAME][0]


async def test_one_prometheus_has_nothing_to_fix(practice: Practice, pair: Pair) -> None:
    async with asking(practice, pair.one):

        async def well() -> bool:
            return (await first(practice)).state == "ok"

        await until(well)
        assert (await practice.one("clock of source prom")).detail == "within 2 s of this host's"


async def test_the_sum_over_a_pair_is_found_out(practice: Practice, pair: Pair) -> None:
    async with asking(practice, pair.both):

        async def both() -> bool:
            return "prometheus_replica (a, b)" in (await first(practice)).detail

        await until(both)
        check = await first(practice)
        assert check.state == "fail"
        assert "their sum counts each twice" in check.detail
        # As the message says: with one of them chosen everything is well.
        chosen = 'requests_total{flag="$flag",variation="$variation",prometheus_replica="a"'
        histogram = 'seconds_bucket{flag="$flag",variation="$variation",prometheus_replica="a"}'
        metrics = {
            "error_rate": {"bad": chosen + ',code=~"5.."}', "total": chosen + "}"},
            "latency_p95": {"quantile": 0.95, "unit": "seconds", "histogram": histogram},
        }
        await practice.world.apply(PLAN, make_policy(**SHORT, metrics=metrics))
        assert (await first(practice)).state == "ok"


async def test_a_raw_query_must_give_one_number(practice: Practice, pair: Pair) -> None:
    metrics = {
        "busy": {"unit": "items", "query": "requests_total"},
        "lost": {"unit": "items", "query": "max(nobody_exports_this)"},
        "fine": {"unit": "items", "query": "max(requests_total)"},
    }
    rules = [{"id": name, "if": f"{name} > 1", "then": "pause"} for name in metrics]
    async with asking(practice, pair.one, {"metrics": metrics, "rules": rules}):

        async def two_series() -> bool:
            return any(
                "2 series where one was expected" in one.detail for one in (await practice.examined())[NAME]
            )

        await until(two_series)
        busy, lost = (await practice.examined())[NAME]
        assert "make it one number" in busy.fix
        assert lost.detail == 'web/lost of "off": the query returned nothing'


async def test_an_error_label_that_nobody_exports_is_found(practice: Practice, pair: Pair) -> None:
    total = 'requests_total{flag="$flag",variation="$variation"}'
    bad = 'requests_total{flag="$flag",variation="$variation",status=~"5.."}'
    metrics = {"error_rate": {"bad": bad, "total": total}}
    rules = [{"id": "errors", "if": "error_rate > 1%", "then": "pause"}]
    async with asking(practice, pair.one, {"metrics": metrics, "rules": rules}):

        async def blind() -> bool:
            return "has the label status" in (await first(practice)).detail

        await until(blind)
        assert "code, flag, instance, job, thread, variation" in (await first(practice)).fix


async def test_samples_that_are_too_rare_for_their_window_are_found(practice: Practice, tmp_path: Path) -> None:
    with (
        ExpositionServer(Shop().text) as shop,
        running_prometheus(tmp_path / "slow", [shop.address], scrape_interval="3s") as url,
    ):
        async with asking(practice, url, {"window": "5s"}):

            async def rare() -> bool:
                return (
                    "a sample comes every 3s, so a window of 5s never holds two" in (await first(practice)).detail
                )

            # A window of 5 s has two samples of 3 s now and then: only then is there something to look at.
            await until(rare)
            assert (await first(practice)).state == "fail"


async def test_a_target_that_died_is_stale_or_gone(practice: Practice, tmp_path: Path) -> None:
    with ExpositionServer(Shop().text) as shop, running_prometheus(tmp_path / "dies", [shop.address]) as url:
        async with asking(practice, url):

            async def well() -> bool:
                return (await first(practice)).state == "ok"

            await until(well)
            shop.close()

            async def gone() -> bool:
                return not await well()

            await until(gone)
            check = await first(practice)
            assert check.state == "fail"
            assert "s old (limit 5 s)" in check.detail or "the age of the newest sample is unknown" in check.detail


async def test_a_prometheus_that_is_gone_is_told_once_and_by_its_name(practice: Practice) -> None:
    async with asking(practice, "http://127.0.0.1:9"):
        found = await practice.examined()
    assert "cannot connect" in found["source prom"][0].detail
    assert [one.detail for one in found[NAME]] == ["source prom answers none of its questions"]
