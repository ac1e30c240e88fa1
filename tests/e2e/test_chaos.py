"""Some faults of `make chaos`, so that it does not rot: three real replicas, and what must never happen."""

from pathlib import Path

import pytest

from tests.chaos.course import Course
from tests.chaos.faults import schedule

FAULTS = (
    "connections reset", "backends terminated", "kill in a crowd", "commands at once", "PostgreSQL restarted",
    "replica killed",
)  # fmt: skip


@pytest.mark.timeout(300)
def test_a_few_faults_on_three_replicas_duplicate_lose_skip_and_undo_nothing(tmp_path: Path) -> None:
    told: list[str] = []
    course = Course(tmp_path, seed=1, rollouts=12, say=told.append, mount=False)
    report = course.run(schedule(seed=1, faults=8, names=FAULTS))
    assert report.problems == [], told
    assert [one for one in report.outcomes if one.problem] == [], told
    assert {one.fault for one in report.outcomes} == set(FAULTS)
    assert report.transitions > 0
