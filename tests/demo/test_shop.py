"""The toy shop alone: the real SDK behind a stream the test speaks, and the series it shows."""

import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from controller.errors import Unavailable
from tests.support.flag_stream import FlagStream, boolean_flag, running_stream
from tests.support.shop import Shops, running_shops

STAFF = "@acme.example"
OPTIONS = {"users": 2000, "visits-per-second": 400}
WAIT_SECONDS = 10.0


@pytest.fixture(scope="module")
def stream() -> Iterator[FlagStream]:
    with running_stream() as stream:
        stream.send(boolean_flag("checkout", 1, share=10_000, staff_domain=STAFF))
        yield stream


@pytest.fixture(scope="module")
def shops(stream: FlagStream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shops]:
    directory = tmp_path_factory.mktemp("shops")
    arguments = {"stream_uri": stream.url, "sdk_key": "sdk-test", "flags": ["checkout"], "options": OPTIONS}
    with running_shops(2, directory, **arguments) as shops:  # type: ignore[arg-type]
        yield shops


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.05)


def scraped(shops: Shops) -> dict[tuple[str, str, str, str], float]:
    """(sample, variation, cohort, code or bucket) → sum over the shops."""
    total: dict[tuple[str, str, str, str], float] = {}
    for target in shops.targets:
        text = urllib.request.urlopen(f"http://{target}/metrics", timeout=5).read().decode()
        for family in text_string_to_metric_families(text):
            for name, labels, value, *_ in family.samples:
                detail = labels.get("code", labels.get("le", ""))
                key = (name, labels["variation"], labels["cohort"], detail)
                total[key] = total.get(key, 0.0) + value
    return total


def gained(shops: Shops, requests: float = 1000) -> dict[tuple[str, str, str, str], float]:
    """What the series gain while either variation sees that many requests."""
    before = scraped(shops)

    def gains() -> dict[tuple[str, str, str, str], float]:
        return {key: value - before.get(key, 0.0) for key, value in scraped(shops).items()}

    until(lambda: all(answered(gains(), variation) > requests for variation in ("on", "off")))
    return gains()


def answered(series: dict[tuple[str, str, str, str], float], variation: str, code: str = "200") -> float:
    return series.get(("http_requests_total", variation, "share", code), 0.0)


def p95_at_most(series: dict[tuple[str, str, str, str], float], variation: str) -> float:
    """The upper bound of the bucket that holds the 95th percentile."""
    buckets = sorted(
        (float(bound), count)
        for (name, served, cohort, bound), count in series.items()
        if name.endswith("_bucket") and served == variation and cohort == "share"
    )
    rank = 0.95 * buckets[-1][1]
    return next(bound for bound, count in buckets if count >= rank)


def test_contexts_are_served_by_the_flag_and_the_staff_always(shops: Shops) -> None:
    served = shops.served("checkout")
    assert served["always"] == {"on": 40}
    assert served["share"].total() == 3960
    assert 280 < served["share"]["on"] < 520  # 10 %, within six standard deviations


def test_each_request_is_counted_once_under_its_variation_and_cohort(shops: Shops) -> None:
    series = gained(shops, requests=300)
    requests = answered(series, "on") + answered(series, "off")
    durations = sum(
        series[("http_request_duration_seconds_count", variation, "share", "")] for variation in ("on", "off")
    )
    errors = answered(series, "on", "500") + answered(series, "off", "500")
    assert durations == requests + errors
    assert 0.05 < answered(series, "on") / requests < 0.2
    assert series[("http_requests_total", "on", "always", "200")] > 0
    assert ("http_requests_total", "off", "always", "200") not in series


def test_a_p95_three_times_its_baseline_shows_in_the_buckets_of_the_rollout_alone(shops: Shops) -> None:
    shops.behave("checkout", p95_seconds=0.1, latency_factor=3.4, extra_error_rate=0.05)
    series = gained(shops)
    assert p95_at_most(series, "off") in {0.1, 0.125}
    assert p95_at_most(series, "on") in {0.33, 0.4}
    assert 0.02 < answered(series, "on", "500") / answered(series, "on") < 0.1
    assert answered(series, "off", "500") / answered(series, "off") < 0.005


def test_a_fault_of_the_whole_shop_shows_in_both_variations(shops: Shops) -> None:
    shops.behave("checkout", error_rate=0.2)
    series = gained(shops)
    for variation in ("on", "off"):
        assert 0.15 < answered(series, variation, "500") / answered(series, variation) < 0.4


def test_a_person_sees_the_variation_of_their_context(shops: Shops) -> None:
    shops.behave("checkout", p95_seconds=0.01)
    assert shops.storefronts[0].visit("checkout", "anna", f"anna{STAFF}")["variation"] == "on"


def test_a_behaviour_that_makes_no_sense_is_refused_by_name(shops: Shops) -> None:
    with pytest.raises(Unavailable, match="error_rate"):
        shops.behave("checkout", error_rate=2)
    with pytest.raises(Unavailable, match="no flag search"):
        shops.behave("search", error_rate=0.1)


def test_a_kill_serves_the_fallback_to_every_context_staff_included(stream: FlagStream, shops: Shops) -> None:
    stream.send(boolean_flag("checkout", 2, share=0, enabled=False))
    until(lambda: shops.served("checkout") == {"share": {"off": 3960}, "always": {"off": 40}})
    stream.send(boolean_flag("checkout", 3, share=10_000, staff_domain=STAFF))
    until(lambda: shops.served("checkout")["always"] == {"on": 40})


def test_a_shop_is_not_ready_before_its_sdk_has_the_flags(tmp_path: Path) -> None:
    with running_stream() as stream:
        stream.ready = False
        arguments = {"stream_uri": stream.url, "sdk_key": "sdk-test", "flags": ["checkout"], "options": OPTIONS}
        with running_shops(1, tmp_path, wait=False, **arguments) as shops:  # type: ignore[arg-type]
            with pytest.raises(Unavailable, match=r"not ready within 2 s.*has not received the flags"):
                shops.storefronts[0].wait_until_answers(shops.storefronts[0].port, "/ready", seconds=2)
            stream.ready = True
            shops.wait_until_ready()


def test_a_shop_that_cannot_start_says_why_from_its_log(tmp_path: Path) -> None:
    arguments = {"stream_uri": "http://127.0.0.1:9", "sdk_key": "sdk-test", "flags": ["checkout"]}
    with (
        running_shops(1, tmp_path, wait=False, options={"nonsense": 1}, **arguments) as shops,  # type: ignore[arg-type]
        pytest.raises(Unavailable, match="No such option"),
    ):
        shops.wait_until_ready()
