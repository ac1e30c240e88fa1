"""Our alerts fire when they should, with the words that are expected, and do not when they should not."""

from pathlib import Path

import pytest

from tests.peers.alert_cases import ALERTS, Case, cases, tried
from tests.peers.test_metrics_promtool import promtool


def test_promtool_accepts_the_alerts() -> None:
    checked = promtool("check", "rules", str(ALERTS))
    assert checked.returncode == 0, checked.stderr.decode()


@pytest.mark.parametrize("case", list(cases()), ids=lambda case: case.name)
def test_each_alert_does_what_its_cases_say(case: Case, tmp_path: Path) -> None:
    found = tried(case, tmp_path)
    assert found.returncode == 0, found.stdout.decode() + found.stderr.decode()
