"""Our alerts fire when they should, with the words that are expected, and do not when they should not."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.peers.alert_cases import ALERTS, Case, cases, rules, tried
from tests.peers.incident.staging import alertmanager_binary
from tests.peers.test_metrics_promtool import promtool
from tests.support.repository import ROOT, blocks


def test_promtool_accepts_the_alerts() -> None:
    checked = promtool("check", "rules", str(ALERTS))
    assert checked.returncode == 0, checked.stderr.decode()


@pytest.mark.parametrize("case", list(cases()), ids=lambda case: case.name)
def test_each_alert_does_what_its_cases_say(case: Case, tmp_path: Path) -> None:
    found = tried(case, tmp_path)
    assert found.returncode == 0, found.stdout.decode() + found.stderr.decode()


def documented() -> str:
    (block,) = blocks(ROOT / "docs" / "runbooks" / "README.md", "yaml")
    return block


def test_amtool_accepts_the_routes_that_the_index_of_runbooks_shows(tmp_path: Path) -> None:
    (tmp_path / "alertmanager.yml").write_text(documented())
    amtool = [alertmanager_binary("amtool"), "check-config", str(tmp_path / "alertmanager.yml")]
    checked = subprocess.run(amtool, capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr.decode()


def test_an_alert_is_only_silenced_by_one_that_has_the_labels_in_which_both_must_agree() -> None:
    """Labels that neither has agree, too: then one rollout's alert would silence another's."""
    labels = {
        name: set().union(*(one.get("labels", {}) for case in cases() if case.alert == name for one in case.fires))
        for name in rules()
    }
    for rule in yaml.safe_load(documented())["inhibit_rules"]:
        named = re.findall(r"Rampart\w+", " ".join([*rule["source_matchers"], *rule["target_matchers"]]))
        assert len(named) > 1
        for name in named:
            assert set(rule["equal"]) - {"namespace"} <= labels[name], name
