"""Each promise and each constraint names tests, and the tests that are named exist."""

import re

import pytest

from tests.support.repository import ROOT

PROMISED = (ROOT / "docs" / "promises.md").read_text()
RELIABLE = (ROOT / "docs" / "reliability.md").read_text()
PROMISES = [f"I{number}" for number in range(1, 22)]
ROWS = dict(re.findall(r"^\| \*\*(I\d+) (.*)$", PROMISED, re.MULTILINE))
HAZARDS = re.findall(r"^\| \*\*(H\d)\*\*", RELIABLE, re.MULTILINE)
CONSTRAINTS = [
    [cell.strip() for cell in row.strip("|").split("|")]
    for row in re.findall(r"^\|.*\| H\d.*\| I\d.*\|$", RELIABLE, re.MULTILINE)
]
"""Unsafe action, hazards, promises, what enforces it, tests."""


def named(text: str) -> set[str]:
    return set(re.findall(r"`(test_\w+)`", text))


def existing() -> set[str]:
    files = (ROOT / "tests").rglob("*.py")
    return {
        name
        for file in files
        for name in re.findall(r"^ *(?:async )?def (test_\w+)", file.read_text(), re.MULTILINE)
    }


@pytest.mark.parametrize("page", [PROMISED, RELIABLE], ids=["promises", "reliability"])
def test_every_test_that_a_page_names_exists(page: str) -> None:
    assert named(page)
    assert named(page) - existing() == set()


def test_every_promise_names_a_test_and_what_was_broken() -> None:
    assert list(ROWS) == PROMISES
    for promise, row in ROWS.items():
        *_, tests, broken, end = row.split("|")
        assert named(tests), promise
        assert broken.strip(), promise
        assert not end.strip(), promise


def test_every_unsafe_action_leads_to_a_hazard_and_is_forbidden_by_a_promise_and_a_test() -> None:
    for action, hazards, promises, enforced, tests in CONSTRAINTS:
        assert set(hazards.split(", ")) <= set(HAZARDS), action
        assert set(promises.split(", ")) <= set(PROMISES), action
        assert enforced, action
        assert named(tests), action


def test_every_hazard_and_every_promise_has_an_unsafe_action() -> None:
    """A promise that forbids nothing unsafe would be idle, and a hazard that nothing leads to would be none."""
    assert {hazard for row in CONSTRAINTS for hazard in row[1].split(", ")} == set(HAZARDS)
    assert {promise for row in CONSTRAINTS for promise in row[2].split(", ")} == set(PROMISES)
