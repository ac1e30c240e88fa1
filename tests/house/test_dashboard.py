"""The dashboard is one that Grafana draws: its form, its places, its variables, and series that exist."""

import re
from itertools import combinations

import pytest

from tests.house.test_alerts import EXPORTED
from tests.support.dashboard import COLUMNS, GridPos, as_asked, dashboard, expressions, labels_shown

SERIES = re.compile(r"\b(?:rampart|process)_\w+")
LISTED = list(expressions())
WORTH_NO_PANEL = {
    "rampart_rollout_info",
    "rampart_rollout_stage_index",
    "rampart_rollout_stages",
    "rampart_rollout_confirmed",
    "rampart_rollout_quarantined",
    "rampart_approvals_pending",
    "rampart_events_total",
    "rampart_events_held",
    "rampart_front_last_change_timestamp_seconds",
    "rampart_front_streams",
    "rampart_front_event_deliveries_total",
    "rampart_manifests_in_force",
    "rampart_manifests_last_load_timestamp_seconds",
}
"""Names to join by, numbers that another panel tells better, and parts that most installations do not use."""


def overlap(one: GridPos, other: GridPos) -> bool:
    across = one.x < other.x + other.w and other.x < one.x + one.w
    return across and one.y < other.y + other.h and other.y < one.y + one.h


def test_it_has_the_form_of_a_dashboard_and_nothing_beside_it() -> None:
    shown = dashboard()
    assert len({panel.id for panel in shown.panels}) == len(shown.panels)
    assert [variable.name for variable in shown.templating.list] == ["datasource", "job", "environment", "rollout"]


def test_no_panel_covers_another_or_leaves_the_page() -> None:
    places = [panel.grid for panel in dashboard().panels]
    assert all(place.x >= 0 and place.x + place.w <= COLUMNS for place in places)
    assert not [pair for pair in combinations(places, 2) if overlap(*pair)]


def test_every_panel_says_what_it_shows_and_of_what_unit() -> None:
    for panel in dashboard().panels:
        if panel.type != "row":
            assert panel.fields is not None, panel.title
            assert panel.fields.defaults["unit"], panel.title
            assert panel.targets, panel.title
            assert len({target.refId for target in panel.targets}) == len(panel.targets), panel.title


@pytest.mark.parametrize(("where", "expr", "legend"), LISTED, ids=[where for where, _, _ in LISTED])
def test_every_expression_is_about_series_that_exist_and_filtered_by_what_was_chosen(
    where: str, expr: str, legend: str
) -> None:
    assert set(SERIES.findall(expr)) <= EXPORTED, where
    assert "$" not in as_asked(expr), "a variable that the dashboard does not have"
    assert expr.count("$job") == expr.count("{") == expr.count("}"), "another installation would be shown, too"


@pytest.mark.parametrize(("where", "expr", "legend"), LISTED, ids=[where for where, _, _ in LISTED])
def test_a_legend_shows_labels_that_the_result_has_and_all_that_tell_its_lines_apart(
    where: str, expr: str, legend: str
) -> None:
    kept = re.match(r".*?\b(?:sum|max|min|count) by \(([^)]*)\)", expr.replace("\n", " "))
    grouped = {one.strip() for one in kept[1].split(",")} - {"le"} if kept else set()
    if "count(" in expr:
        grouped = set()
    assert labels_shown(legend) <= grouped, where
    if legend:
        # Only a policy is left out: within a rollout a rule's name tells enough. Nor is the environment of numbers
        # that are drawn for one rollout at a time.
        assert grouped - labels_shown(legend) <= {"policy", "environment"}, where


def test_every_series_has_a_place_or_a_reason_to_have_none() -> None:
    named = {name for _, expr, _ in LISTED for name in SERIES.findall(expr)}
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in EXPORTED if name.startswith("rampart_")}
    families = {
        name if name != "rampart_guardrail_sample" else "rampart_guardrail_sample_count" for name in families
    }
    shown = {re.sub(r"_bucket$", "", name) for name in named}
    assert families - shown == WORTH_NO_PANEL
