"""An incident, staged: one bad release is stopped by its guardrail, one by a team's alert. Who was told, and when.

INCIDENT_TIMELINE names a file for the timeline; `-s` shows it.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.peers.incident.staging import (
    CHANNELS,
    CHECKOUT,
    OUR_ALERTS,
    SEARCH,
    Scene,
    alertmanager_binary,
    alertmanager_config,
    documented,
    shortened,
    staged,
)
from tests.peers.incident.timeline import Timeline, changes, seconds
from tests.support.postgres import Frozen
from tests.support.prometheus import prometheus_binary
from tests.support.server import wait_until

pytestmark = pytest.mark.timeout(240)


def test_a_bad_release_is_killed_by_its_guardrail_and_one_that_only_a_team_sees_is_paused_by_its_alert(
    tmp_path: Path,
) -> None:
    timeline = Timeline()
    with staged(tmp_path, timeline) as scene:
        for plan in (CHECKOUT, SEARCH):
            scene.rampart.command(plan, "start")
        for plan in (CHECKOUT, SEARCH):
            _wait_for_half(scene, plan)
        began = time.time()
        _checkout_is_killed(scene)
        _search_is_paused_once_for_a_start_of_its_alert(scene)
        _search_is_paused_by_the_next_start_as_soon_as_that_can_be(scene)
        _channels_have_told_all(timeline)
        _recollect(scene, began)
        _write(timeline.table(began))
    _the_order_of_things_is_right(timeline)


def _wait_for_half(scene: Scene, plan: str) -> None:
    def reached() -> bool:
        status = scene.rampart.status(plan)
        return bool(status["confirmed"] and status["desired_exposure"] == 50_000)

    wait_until(reached, seconds=60, every=0.2, what=f"{plan} at half; {scene.rampart.status(plan)['reason']}")


def _checkout_is_killed(scene: Scene) -> None:
    scene.breaks(CHECKOUT)
    scene.rampart.wait_phase(CHECKOUT, "killed", seconds=60)
    (kill,) = scene.rampart.call("GET", "kills")
    assert kill["actor"] == "rampart"
    assert kill["confirmed_at"]


def _search_is_paused_once_for_a_start_of_its_alert(scene: Scene) -> None:
    rampart, timeline, plan = scene.rampart, scene.timeline, SEARCH
    assert rampart.status(plan)["phase"] == "progressing"
    scene.breaks(plan)
    scene.heard("paused")
    assert rampart.status(plan)["phase"] == "paused"
    assert "alert SearchIndexLags of" in rampart.status(plan)["reason"]
    wait_until(
        lambda: timeline.of("pagerduty", "trigger", "paused", plan), seconds=30, what="somebody to be paged"
    )
    rampart.command(plan, "resume", "a false alarm?")
    resumed = len(scene.deliveries())
    scene.heard("repeated", 2, after=resumed)
    assert rampart.status(plan)["phase"] == "progressing", "the same start of the alert pauses once"
    scene.is_mended(plan)
    scene.heard("resolved", after=resumed)


def _search_is_paused_by_the_next_start_as_soon_as_that_can_be(scene: Scene) -> None:
    rampart, timeline, plan = scene.rampart, scene.timeline, SEARCH
    again = len(scene.deliveries())
    timeline.add("PostgreSQL", "hangs: all its processes are stopped")
    with Frozen(rampart.postmaster):
        scene.breaks(plan)
        scene.heard("unable", after=again)
    timeline.add("PostgreSQL", "goes on")
    scene.heard("paused", after=again)
    scene.is_mended(plan)
    ended = len(scene.deliveries())
    scene.heard("resolved", after=ended)
    looked_at = rampart.status(plan)["observed_at"]
    wait_until(lambda: rampart.status(plan)["observed_at"] > looked_at, what="another tick of the run")
    assert rampart.status(plan)["phase"] == "paused", "the end of an alert resumes nothing"


def _channels_have_told_all(timeline: Timeline) -> None:
    def unaware() -> list[str]:
        return [one for one in CHANNELS if len(timeline.of(one, SEARCH, "paused")) < 2]

    wait_until(lambda: not unaware(), seconds=30, what=f"all to be told of both pauses; not told: {unaware()}")
    for channel in CHANNELS:
        assert timeline.of(channel, CHECKOUT, "killed")


def _recollect(scene: Scene, began: float) -> None:
    """What Rampart, Prometheus and the shop remember, beside what the receivers said at once."""
    timeline = scene.timeline
    for row in scene.rampart.audit():
        entry: dict[str, Any] = row["entry"]
        if entry["action"] in ("pause", "resume", "kill", "alert"):
            what = f"{entry['action']} {entry['run'] or entry['subject']} ({entry['cause']}): {entry['reason']}"
            timeline.add("Rampart", what, seconds(entry["at"]))
    for name, samples in scene.alerts(began).items():
        for at, state in changes(samples):
            timeline.add("Prometheus", f"{name} is {state}", at)
    for one in scene.deliveries():
        what = f"tells Rampart of {one['alert']}: {one['outcome']}"
        timeline.add("Alertmanager", what, seconds(one["timestamp"]))
    last = scene.last_served()[CHECKOUT]
    timeline.add("shop", f"the last customer was served the new {CHECKOUT}", last)


def _write(table: str) -> None:
    sys.stdout.write(f"\n{table}\n")
    if target := os.environ.get("INCIDENT_TIMELINE"):
        Path(target).write_text(f"{table}\n")


def _the_order_of_things_is_right(timeline: Timeline) -> None:
    (kill,) = timeline.of("Rampart", "kill checkout-v2#1", "(policy)", "errors-jump")
    (last,) = timeline.of("shop", "the last customer")
    assert timeline.of("shop", "the new checkout-v2 goes wrong")[0].at < kill.at
    assert last.at - kill.at < 2.0, "the shop's SDK was told at once"
    pauses = timeline.of("Rampart", "pause search-v2#1 (alert)")
    firings = timeline.of("Prometheus", "SearchIndexLags (search-v2) is firing")
    assert len(pauses) == 2
    assert firings[0].at <= pauses[0].at < timeline.of("Rampart", "resume search-v2#1 (user)")[0].at < pauses[1].at
    assert timeline.of("Prometheus", "RampartKilled (checkout-v2) is firing")
    assert timeline.of("on-call (Alertmanager)", "firing RampartKilled (checkout-v2)")
    assert timeline.of("on-call (Alertmanager)", "firing SearchIndexLags", "documents wait")
    assert timeline.of("on-call (Alertmanager)", "resolved SearchIndexLags")
    assert timeline.of("pagerduty", "trigger rampart/killed/main/production/checkout-v2")


def test_alertmanager_and_promtool_accept_what_the_page_shows(tmp_path: Path) -> None:
    config, rules = documented()
    token = tmp_path / "token"
    token.write_text("rampart_secret")
    (tmp_path / "alertmanager.yml").write_text(config.replace("/etc/alertmanager/rampart-token", str(token)))
    (tmp_path / "staged.yml").write_text(alertmanager_config("http://127.0.0.1:1", token, "http://127.0.0.1:2"))
    for name in ("alertmanager.yml", "staged.yml"):
        checked = subprocess.run(
            [alertmanager_binary("amtool"), "check-config", tmp_path / name], capture_output=True, check=False
        )
        assert checked.returncode == 0, checked.stderr.decode()
    (tmp_path / "rules.yml").write_text(rules)
    (tmp_path / "ours.yml").write_text(shortened(OUR_ALERTS.read_text()))
    promtool = Path(prometheus_binary()).with_name("promtool")
    for name in ("rules.yml", "ours.yml"):
        checked = subprocess.run([promtool, "check", "rules", tmp_path / name], capture_output=True, check=False)
        assert checked.returncode == 0, checked.stderr.decode()


def test_the_documented_route_takes_alerts_that_name_a_rollout_and_want_something(tmp_path: Path) -> None:
    config = tmp_path / "alertmanager.yml"
    config.write_text(documented()[0])
    expected = {
        "rampart_rollout=checkout-v2": "rampart,team",
        "rampart_rollout=checkout-v2 rampart_action=kill": "rampart,team",
        "rampart_rollout=checkout-v2 rampart_action=none": "team",
        "alertname=DiskFull": "team",
    }
    for labels, receivers in expected.items():
        routed = subprocess.run(
            [
                alertmanager_binary("amtool"),
                "config",
                "routes",
                "test",
                f"--config.file={config}",
                *labels.split(),
            ],
            capture_output=True,
            check=True,
        )
        assert routed.stdout.decode().strip() == receivers, labels
