"""Our own series: a valid exposition, bounded, gone when their run is, and cheap to scrape."""

import time
from collections.abc import Callable
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from controller.telemetry import Metrics
from tests.support.statuses import NOW, make_rule, make_status

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scraped(metrics: Metrics) -> Series:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return scraped(metrics).get((f"rampart_{name}", tuple(sorted(labels.items()))))


def names(metrics: Metrics) -> set[str]:
    return {name for name, _ in scraped(metrics)}


def busy() -> Metrics:
    metrics = Metrics()
    metrics.decision("checkout-v2", "production", "advance", "policy")
    metrics.kill(0.004, "policy")
    metrics.kill_unconfirmed(1.5)
    metrics.tick(lag_seconds=0.01, duration_seconds=0.2, at=NOW)
    metrics.tick_failed("checkout-v2")
    metrics.source_request("prod", "ok")
    metrics.source_answered("prod", NOW)
    metrics.provider_request("main", "apply", "ok")
    metrics.notification("oncall", "ok")
    metrics.audit_head(41)
    metrics.run_seen(make_status("checkout-v2#3"))
    metrics.run_seen(make_status("search-v4#1", phase="paused"))
    return metrics


def test_every_family_is_announced_once_and_in_one_piece() -> None:
    lines = busy().render().decode().splitlines()
    announced = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(announced) == len(set(announced))
    family = ""
    for line in lines:
        if line.startswith("# HELP"):
            family = line.split()[2]
        else:
            assert line.removeprefix("# TYPE ").startswith(family.removesuffix("_total"))


def test_no_series_appears_twice() -> None:
    samples = [line.rpartition(" ")[0] for line in busy().render().decode().splitlines() if line[0] != "#"]
    assert len(samples) == len(set(samples))


def test_names_follow_the_conventions() -> None:
    for name in names(busy()) - {name for name in names(busy()) if name.startswith("process_")}:
        assert name.startswith("rampart_")
        assert not name.endswith("_created")
        assert not name.endswith(("_ms", "_percent", "_milliseconds"))


def test_a_run_shows_its_phase_stage_and_exposure_as_ratios() -> None:
    metrics = busy()
    run = {"rollout": "checkout-v2", "environment": "production"}
    assert value(metrics, "rollout_state", **run, state="progressing") == 1
    assert value(metrics, "rollout_state", **run, state="paused") == 0
    assert value(metrics, "rollout_stage_index", **run) == 1
    assert value(metrics, "rollout_exposure_ratio", **run, kind="desired") == 0.1
    assert value(metrics, "rollout_exposure_ratio", **run, kind="observed") == 0.01
    assert value(metrics, "rollout_stage_bake_seconds", **run) == 7200


def test_an_unread_provider_has_no_observed_exposure_rather_than_zero() -> None:
    metrics = Metrics()
    metrics.run_seen(make_status("checkout-v2#3", observed_exposure=None))
    kinds = {dict(labels)["kind"] for name, labels in scraped(metrics) if name.endswith("exposure_ratio")}
    assert kinds == {"desired"}


def test_what_would_be_of_a_flag_that_is_only_observed_is_not_called_desired() -> None:
    metrics = Metrics()
    metrics.run_seen(make_status("checkout-v2#3", mode="observe"))
    kinds = {dict(labels)["kind"] for name, labels in scraped(metrics) if name.endswith("exposure_ratio")}
    assert kinds == {"would_be", "observed"}, "an alert on desired and observed must not fire for it"
    assert "rampart_rollout_confirmed{" not in metrics.render().decode()


def test_a_rule_shows_value_limit_baseline_sample_and_verdict() -> None:
    metrics = Metrics()
    rule = make_rule("errors-high", outcome="breach", value=0.05, limit=0.01, baseline=0.002, sample=1200.0)
    metrics.run_seen(make_status("checkout-v2#3", rules=[rule]))
    labels = {
        "rollout": "checkout-v2",
        "environment": "production",
        "policy": "web-service",
        "rule": "errors-high",
    }
    shown = [
        value(metrics, f"guardrail_{what}", **labels)
        for what in ("value", "threshold", "baseline", "sample_count")
    ]
    assert shown == [0.05, 0.01, 0.002, 1200]
    assert value(metrics, "guardrail_breached", **labels) == 1
    assert value(metrics, "guardrail_data_state", **labels, state="ok") == 1


def test_silence_is_shown_as_no_data_and_without_a_value() -> None:
    metrics = Metrics()
    silent = make_rule("errors-high", outcome="no_data", value=None, sample=None)
    metrics.run_seen(make_status("checkout-v2#3", rules=[silent]))
    states = {
        dict(labels)["state"]: number
        for (name, labels), number in scraped(metrics).items()
        if "data_state" in name
    }
    assert states == {"ok": 0, "too_few": 0, "no_data": 1, "error": 0, "not_applicable": 0}
    assert "rampart_guardrail_value" not in names(metrics)


def test_series_of_an_ended_run_are_gone() -> None:
    metrics = busy()
    metrics.run_ended("checkout-v2#3")
    metrics.run_ended("search-v4#1")
    assert not {name for name in names(metrics) if "rollout_" in name or "guardrail_" in name}


def test_a_run_not_seen_for_long_is_no_longer_ours_to_show() -> None:
    metrics = busy()
    metrics.tick(lag_seconds=0, duration_seconds=0, at=NOW + timedelta(minutes=14))
    assert "rampart_rollout_info" in names(metrics)
    metrics.tick(lag_seconds=0, duration_seconds=0, at=NOW + timedelta(minutes=16))
    assert "rampart_rollout_info" not in names(metrics)


def test_a_new_phase_replaces_the_old_one() -> None:
    metrics = busy()
    metrics.run_seen(make_status("checkout-v2#3", phase="paused"))
    states = [
        dict(labels)["state"]
        for (name, labels), number in scraped(metrics).items()
        if name == "rampart_rollout_state" and number and ("rollout", "checkout-v2") in labels
    ]
    assert states == ["paused"]


def test_the_first_kill_of_a_run_is_an_increase_that_prometheus_can_see() -> None:
    metrics = Metrics()
    metrics.run_seen(make_status("checkout-v2#3"))
    labels = {"rollout": "checkout-v2", "environment": "production", "action": "kill", "cause": "policy"}
    assert value(metrics, "decisions_total", **labels) == 0
    assert value(metrics, "kills_total", cause="user") == 0
    metrics.decision("checkout-v2", "production", "kill", "policy")
    assert value(metrics, "decisions_total", **labels) == 1


def test_series_stay_bounded_under_a_flood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controller.telemetry.metrics.MAX_RUNS", 10)
    monkeypatch.setattr("controller.telemetry.metrics.MAX_COUNTS", 50)
    metrics = Metrics()
    for number in range(200):
        metrics.run_seen(make_status(f"plan-{number}#1"))
        metrics.tick_failed(f"plan-{number}")
    series = scraped(metrics)
    assert sum(name == "rampart_rollout_info" for name, _ in series) == 10
    assert sum(name == "rampart_decisions_total" for name, _ in series) == 50
    assert sum(name == "rampart_tick_failures_total" for name, _ in series) == 50
    assert value(metrics, "runs_without_series_total") == 190


@given(st.text(max_size=200))
def test_any_text_in_a_label_survives_the_exposition(owner: str) -> None:
    metrics = Metrics()
    metrics.run_seen(replace(make_status("checkout-v2#3"), owner=owner))
    (info,) = (dict(labels) for name, labels in scraped(metrics) if name == "rampart_rollout_info")
    assert info["owner"] == owner[:100]


def test_a_scrape_of_a_thousand_runs_takes_a_tenth_of_what_the_library_would() -> None:
    metrics = Metrics()
    rules = [make_rule(f"rule-{number}", baseline=0.002) for number in range(5)]
    for number in range(1000):
        metrics.run_seen(make_status(f"plan-{number}#1", rules=rules))
    registry = CollectorRegistry()
    gauge = Gauge("rampart_guardrail_value", "As many series.", ["rollout"], registry=registry)
    for number in range(sum(not line.startswith(b"#") for line in metrics.render().splitlines())):
        gauge.labels(f"plan-{number}").set(0.002)
    library = _timed(lambda: generate_latest(registry))
    assert min(_timed(metrics.render) for _ in range(5)) < library / 10


def _timed(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began
