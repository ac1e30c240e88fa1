"""Synthetic series answer as a source that scraped them would."""

from typing import Any

import pytest

from controller.domain.evidence import Reading
from controller.domain.quantities import FULL_EXPOSURE
from controller.errors import Invalid
from controller.rehearsal.script import Script
from controller.rehearsal.world import World
from tests.rehearsal.scripts import scripted

QUEUE = {"metrics": {"queue_depth": {"unit": "jobs", "query": "max(queue_depth)"}}}


def ask(world: World, script: Script, metric: str, variation: str, now: float) -> Reading:
    question = script.guardrails[0].question(metric, variation)
    ((_, reading),) = world.measure([question], now)
    return reading


def exposed(share: int = FULL_EXPOSURE // 10, **case: Any) -> tuple[World, Script]:
    script = scripted(**case)
    world = World(script)
    world.expose(share, 0.0)
    return world, script


def test_a_level_comes_out_as_it_was_written() -> None:
    world, script = exposed(rollout={"error_rate": "0.5%", "latency_p95": "180ms"}, traffic="100/s")
    errors = ask(world, script, "error_rate", "on", 1800)
    assert errors.total == pytest.approx(10 * 300)
    assert errors.bad == pytest.approx(0.005 * 10 * 300)
    assert errors.age_seconds == 0
    latency = ask(world, script, "latency_p95", "on", 1800)
    assert latency.value == pytest.approx(0.18)
    assert latency.total == pytest.approx(10 * 300)


def test_traffic_is_shared_out_by_exposure_and_a_side_may_have_its_own() -> None:
    world, script = exposed(share=20_000, traffic="100/s", control={"requests": "7/s"})
    assert ask(world, script, "error_rate", "on", 1800).total == pytest.approx(20 * 300)
    assert ask(world, script, "error_rate", "off", 1800).total == pytest.approx(7 * 300)


def test_a_change_fills_the_window_little_by_little() -> None:
    world, script = exposed(rollout={"error_rate": "0% for 20m then 10%"}, traffic="1000/s")

    def rate(now: float) -> float:
        reading = ask(world, script, "error_rate", "on", now)
        return (reading.bad or 0) / (reading.total or 1)

    assert rate(1200) == 0
    assert rate(1350) == pytest.approx(0.05, abs=0.003)
    assert rate(1500) == pytest.approx(0.10, abs=0.003)


def test_before_the_start_there_is_a_control_and_no_rollout() -> None:
    script = scripted(control={"error_rate": "2%"}, before={"error_rate": "1%"})
    world = World(script)
    assert ask(world, script, "error_rate", "on", 0).total is None
    control = ask(world, script, "error_rate", "off", 0)
    assert (control.bad or 0) / (control.total or 1) == pytest.approx(0.01, rel=1e-6)


def test_silence_makes_the_series_stale_at_once() -> None:
    world, script = exposed(rollout={"error_rate": "1% for 20m then none"})
    assert ask(world, script, "error_rate", "on", 1200).age_seconds == 0
    assert ask(world, script, "error_rate", "on", 1230).age_seconds is None


def test_a_source_that_fails_says_so_for_as_long() -> None:
    world, script = exposed(events=["source fails from 10m until 20m"])
    assert ask(world, script, "error_rate", "on", 599).failure is None
    assert ask(world, script, "error_rate", "on", 600).failure
    assert ask(world, script, "error_rate", "on", 1200).failure is None


def test_the_level_of_a_raw_query_is_its_answer() -> None:
    rules = [{"id": "backlog", "if": "queue_depth > 100", "then": "pause"}]
    world, script = exposed(policy=QUEUE | {"rules": rules}, rollout={"queue_depth": "5 for 1m then 9"})
    assert [ask(world, script, "queue_depth", "on", now).value for now in (0, 59, 60)] == [5, 5, 9]


def test_raw_series_are_selected_by_the_policys_own_selectors() -> None:
    def series(code: str, variation: str = "on") -> str:
        return f'requests_total{{flag="example",variation="{variation}",code="{code}"}}'

    world, script = exposed(
        interval="15s",
        series=[
            {"series": series("200"), "values": "0+90x100"},
            {"series": series("503"), "values": "0x80 10+10x19"},
            {"series": series("200", "off"), "values": "0+300x100"},
        ],
    )
    errors = ask(world, script, "error_rate", "on", 1500)
    assert errors.total == pytest.approx(20 * 90 + 20 * 10)
    assert errors.bad == pytest.approx(200)
    assert ask(world, script, "error_rate", "off", 1500).total == pytest.approx(20 * 300)
    assert ask(world, script, "error_rate", "off", 0).total == pytest.approx(20 * 300), "as in its first step"
    assert ask(world, script, "error_rate", "off", 1515).age_seconds is None, "the series has ended"


def test_a_series_with_a_pattern_is_refused() -> None:
    with pytest.raises(Invalid, match="labels with values"):
        World(scripted(series=[{"series": 'requests_total{code=~"5.."}', "values": "0x9"}]))


def test_what_is_answered_from_before_is_what_would_be_answered_anew() -> None:
    """The reading that is kept while nothing moves, against a world that was asked only once."""
    case: dict[str, Any] = {
        "rollout": {"error_rate": "0.2% for 30m then 1% to 3% over 10m then 2%", "latency_p95": "90ms"},
        "traffic": "500/s for 1h then 800/s",
    }
    asked_often, script = exposed(**case)
    for now in range(0, 7200, 15):
        for metric in ("error_rate", "latency_p95"):
            often = ask(asked_often, script, metric, "on", now)
            if now % 450 == 0:
                once, _ = exposed(**case)
                anew = ask(once, script, metric, "on", now)
                assert (often.total, often.bad) == pytest.approx((anew.total, anew.bad), nan_ok=True), now


def test_noise_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    def draw(seed: int) -> Reading:
        world, script = exposed(
            noise={"seed": seed, "spread": "20%"}, rollout={"error_rate": "1%"}, traffic="100/s"
        )
        return ask(world, script, "error_rate", "on", 1800)

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)
    drawn = draw(1)
    assert drawn.total == pytest.approx(3000, rel=0.2)
    assert drawn.bad == pytest.approx(30, rel=0.8)


def test_buckets_of_the_service_make_of_a_latency_what_they_can() -> None:
    world, script = exposed(rollout={"latency_p95": "180ms"}, buckets={"latency_p95": ["100ms", 0.25, 1]})
    coarse = ask(world, script, "latency_p95", "on", 1800).value
    assert coarse is not None
    assert 0.1 < coarse < 0.25
    assert coarse != pytest.approx(0.18, abs=0.005)
