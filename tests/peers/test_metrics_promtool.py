"""Prometheus' own tool accepts our series."""

import shutil
import subprocess
from datetime import timedelta

from controller.domain.notification import Backlog
from controller.domain.plan import FlagRef
from controller.domain.status import ApprovalStatus
from controller.telemetry import KilledFlag, Metrics
from tests.support.statuses import NOW, make_rule, make_status

ASKED = ApprovalStatus(stage="half", requested_at=NOW)
KILLED = KilledFlag(
    flag=FlagRef(provider="main", environment="production", key="cart"),
    rollout="cart-v3",
    cause="user",
    accepted_at=NOW,
    confirmed=False,
)


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
