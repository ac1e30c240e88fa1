"""Every alert is tried, is about series that exist, says how urgent it is, and has a page for whoever is paged."""

import re

import pytest

from tests.peers.alert_cases import RUNBOOKS, cases, rules
from tests.peers.test_metrics_promtool import everything
from tests.support.repository import ROOT

EXPORTED = set(re.findall(r"^(rampart_\w+|process_\w+)[{ ]", everything().render().decode(), re.MULTILINE))
SCRAPES_SECONDS = 30
"""Two scrapes at the usual interval."""


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    fires = {case.alert for case in cases() if case.fires}
    silent = {case.alert for case in cases() if not case.fires}
    assert fires == silent == set(rules())


def test_alerts_name_only_series_that_exist() -> None:
    for name, rule in rules().items():
        named = set(re.findall(r"\b(?:rampart|process)_\w+", rule["expr"] + str(rule["annotations"])))
        assert named <= EXPORTED, name


def test_cases_name_only_series_that_exist() -> None:
    """A case about a series that was renamed would go on to pass."""
    for case in cases():
        assert {series.partition("{")[0] for series in case.series} <= EXPORTED, case.name


@pytest.mark.parametrize("name", rules())
def test_every_alert_tells_how_urgent_it_is_what_it_means_and_where_to_read_on(name: str) -> None:
    rule = rules()[name]
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"{RUNBOOKS}/{name}.md"


@pytest.mark.parametrize("name", rules())
def test_an_alert_on_absence_or_on_a_rate_outlasts_two_scrapes(name: str) -> None:
    rule = rules()[name]
    if re.search(r"\b(absent|rate|increase)\(", rule["expr"]):
        assert seconds(rule.get("for", "0s")) >= SCRAPES_SECONDS


def seconds(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([smh])", text).groups()  # type: ignore[union-attr]
    return int(number) * {"s": 1, "m": 60, "h": 3600}[unit]


@pytest.mark.parametrize("name", rules())
def test_an_alert_about_a_rollout_can_be_routed_by_it_and_orders_nothing(name: str) -> None:
    """Routed back to our own receiver, it would otherwise pause what only waits for an approval."""
    rule = rules()[name]
    about_one = "{{ $labels.rollout }}" in str(rule["annotations"]) or "flag" in rule["expr"]
    routed = {"rampart_rollout": "{{ $labels.rollout }}", "rampart_action": "none"}
    assert about_one == (routed.items() <= rule["labels"].items())


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    pages = {page.stem for page in (ROOT / "docs" / "runbooks").glob("*.md")} - {"README"}
    assert pages == set(rules())


def test_the_index_of_runbooks_lists_every_alert_with_its_severity() -> None:
    index = (ROOT / "docs" / "runbooks" / "README.md").read_text()
    listed = re.findall(r"^\| \[(\w+)\]\(\1\.md\) \| (\w+) \|", index, re.MULTILINE)
    assert dict(listed) == {name: rule["labels"]["severity"] for name, rule in rules().items()}
    assert len(listed) == len(rules())
