"""Prometheus' own tool accepts our series and the alerts we recommend."""

import re
import shutil
import subprocess
from datetime import timedelta
from pathlib import Path

from controller.domain.notification import Backlog
from controller.domain.plan import FlagRef
from controller.domain.status import ApprovalStatus
from controller.telemetry import KilledFlag, Metrics
from tests.support.statuses import NOW, make_rule, make_status

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
ASKED = ApprovalStatus(stage="half", requested_at=NOW)
KILLED = KilledFlag(
    flag=FlagRef(provider="main", environment="production", key="cart"),
    rollout="cart-v3",
    cause="user",
    accepted_at=NOW,
    confirmed=False,
)
ALERTS = re.search(r"```yaml\n(groups:.*?)```", PAGE.read_text(), re.DOTALL)


def promtool(*arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    program = shutil.which("promtool")
    assert program, "these tests need Debian's prometheus: run tests/peers/install.sh"
    return subprocess.run([program, *arguments], input=given, capture_output=True, timeout=30, check=False)


def everything() -> Metrics:
    metrics = Metrics()
    metrics.tick(lag_seconds=0.01, duration_seconds=0.2, at=NOW)
    metrics.kill(0.004, "policy")
    metrics.kills_in_force(lambda: [KILLED])
    metrics.tick_failed("search-v4")
    metrics.alert_received("paused")
    metrics.source_request("prod", "ok")
    metrics.source_answered("prod", NOW - timedelta(hours=1))
    metrics.provider_request("main", "apply", "ok")
    metrics.provider_delivered("ld", "production", 0.03)
    metrics.front_connected("ld", "production", connected=False)
    metrics.front_changed("ld", "production", NOW)
    metrics.front_overlaid("ld", "production", lambda: 1)
    metrics.front_streams("ld", "production", lambda: 40)
    metrics.front_events("ld", "production", "forwarded", 3)
    metrics.notification("oncall", "ok")
    pager = Backlog(channel="pager", waiting=2, oldest_waiting_seconds=61.5, dead=1)
    metrics.notifications_left([pager], ["oncall"])
    metrics.circuit("source", "prod", is_open=True)
    metrics.peer_request("timeout")
    metrics.replicas(present=2, absent=1)
    metrics.raises_blocked(1)
    metrics.manifests("/etc/rampart/manifests", in_force=True)
    metrics.manifests_loaded("/etc/rampart/manifests", NOW)
    metrics.event_delivery("counted")
    metrics.events({"custom": 2}, {"no_flag": 1})
    metrics.events_held(3)
    metrics.quarantined("search-v4#1", "search-v4", "production")
    metrics.audit_head(41)
    rules = [make_rule("errors-high", baseline=0.002), make_rule("p95", outcome="no_data", value=None)]
    metrics.run_seen(make_status("checkout-v2#3", rules=rules, owner='team "checkout"\n\\', approval=ASKED))
    metrics.decision("checkout-v2", "production", "advance", "policy")
    return metrics


def test_promtool_accepts_our_series_and_remarks_on_one_name_only() -> None:
    checked = promtool("check", "metrics", given=everything().render())
    remarks = checked.stderr.decode().splitlines()
    # It would keep `_count` for histograms; the name says what it counts and is too widely known to change.
    assert remarks == [
        'rampart_guardrail_sample_count non-histogram and non-summary metrics should not have "_count" suffix'
    ]


def test_promtool_accepts_the_alerts_of_the_page(tmp_path: Path) -> None:
    assert ALERTS
    rules = tmp_path / "rules.yml"
    rules.write_text(ALERTS[1])
    checked = promtool("check", "rules", str(rules))
    assert checked.returncode == 0, checked.stderr.decode()


def test_alerts_name_only_series_that_exist() -> None:
    assert ALERTS
    exported = set(re.findall(r"^(rampart_\w+)[{ ]", everything().render().decode(), re.MULTILINE))
    assert set(re.findall(r"rampart_\w+", ALERTS[1])) <= exported


def test_the_first_kill_of_a_run_raises_the_alert(tmp_path: Path) -> None:
    assert ALERTS
    (tmp_path / "rules.yml").write_text(ALERTS[1])
    series = (
        'rampart_decisions_total{rollout="checkout-v2", environment="production", action="kill", cause="policy"}'
    )
    (tmp_path / "test.yml").write_text(
        f"""
rule_files: [rules.yml]
evaluation_interval: 15s
tests:
  - interval: 15s
    input_series:
      - {{ series: '{series}', values: '0 0 1 1 1 1' }}
      - {{ series: 'rampart_build_info', values: '1x10' }}
    alert_rule_test:
      - alertname: RampartFlagKilled
        eval_time: 1m
        exp_alerts:
          - exp_labels: {{ rollout: checkout-v2, environment: production, cause: policy }}
"""
    )
    checked = promtool("test", "rules", str(tmp_path / "test.yml"))
    assert checked.returncode == 0, checked.stdout.decode() + checked.stderr.decode()
