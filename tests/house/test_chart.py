"""The chart and the program belong together. All else about it: `make chart-test`."""

import yaml

from controller import __version__
from tests.chart.settings_schema import FILE, document
from tests.support.repository import ROOT


def test_the_chart_installs_the_version_of_this_program() -> None:
    chart = yaml.safe_load((ROOT / "helm" / "rampart" / "Chart.yaml").read_text())
    assert chart["appVersion"] == __version__


def test_the_chart_knows_exactly_the_settings_of_this_program() -> None:
    assert FILE.read_text() == document(), "controller/settings.py has changed: run `make schema`"
