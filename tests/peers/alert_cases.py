"""What each alert does, given series: the cases beside this file, told to promtool."""

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from msgspec import Struct

from tests.peers.test_metrics_promtool import promtool
from tests.support.repository import ROOT

ALERTS = ROOT / "helm" / "rampart" / "files" / "alerts.yaml"
CASES = ROOT / "tests" / "peers" / "alerts"
RUNBOOKS = "https://rampart.example/docs/runbooks"
INTERVAL = "15s"


class Case(Struct, frozen=True, kw_only=True):
    """`fires` holds the labels of each alert that is expected, with its `summary` and `description`."""

    alert: str
    says: str
    series: Mapping[str, str]
    at: str
    fires: list[dict[str, Any]] = []

    @property
    def name(self) -> str:
        return f"{self.alert}: {self.says}"


def rules() -> dict[str, Any]:
    """Every alert by its name."""
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def cases() -> Iterator[Case]:
    for path in sorted(CASES.glob("*.yaml")):
        for alert, listed in yaml.safe_load(path.read_text()).items():
            for case in listed:
                yield Case(alert=alert, **case)


def tried(case: Case, folder: Path) -> subprocess.CompletedProcess[bytes]:
    """What promtool says of the case."""
    file = folder / "case.yaml"
    file.write_text(yaml.safe_dump(_test(case)))
    return promtool("test", "rules", str(file))


def _test(case: Case) -> dict[str, Any]:
    expected = [_expected(case.alert, one) for one in case.fires]
    return {
        "rule_files": [str(ALERTS)],
        "evaluation_interval": INTERVAL,
        "tests": [
            {
                "interval": INTERVAL,
                "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
                "alert_rule_test": [{"alertname": case.alert, "eval_time": case.at, "exp_alerts": expected}],
            }
        ],
    }


def _expected(alert: str, fires: Mapping[str, Any]) -> dict[str, Any]:
    rule = rules()[alert]
    labels = {**fires.get("labels", {}), "severity": rule["labels"]["severity"]}
    if "rampart_action" in rule["labels"]:
        labels["rampart_action"] = "none"
        if "rollout" in labels:
            labels["rampart_rollout"] = labels["rollout"]
    return {
        "exp_labels": labels,
        "exp_annotations": {
            "summary": fires.get("summary", ""),
            "description": fires.get("description", ""),
            "runbook_url": f"{RUNBOOKS}/{alert}.md",
        },
    }
