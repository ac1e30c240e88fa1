"""The judge of `make chaos` notices what it is there for."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from tests.chaos.history import Details, Entry, Step, raised_under_a_kill, run_problems

BEGAN = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def entry(version: int, action: str, seconds: float, exposure: int, *kills: str, run: str = "flag-000#1") -> Entry:
    """Of a quick rollout: a window of 6 s and a bake of 6 s."""
    return Entry(
        id=f"{run} {version}",
        at=BEGAN + timedelta(seconds=seconds),
        actor="rampart",
        action=action,
        cause="policy",
        subject=run,
        run=run,
        run_version=version,
        flag="main/production/flag-000",
        details=Details(to=Step(exposure=exposure), kill_ids=kills),
    )


STARTED = [entry(1, "authorise", 0, 0), entry(2, "start", 1, 1_000), entry(3, "confirm", 2, 1_000)]


def test_a_rollout_that_climbs_as_promised_has_no_problem() -> None:
    climbed = [*STARTED, entry(4, "advance", 14.5, 20_000), entry(5, "confirm", 15, 20_000)]
    assert list(run_problems(climbed)) == []


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ([entry(4, "advance", 9, 20_000)], "advance after 7.0 s"),
        ([entry(4, "advance", 15, 50_000)], "advance from 1000 to 50000"),
        ([entry(5, "advance", 15, 20_000)], "versions are [1, 2, 3, 5]"),
        ([entry(4, "advance", 15, 20_000), entry(4, "advance", 15, 20_000)], "versions are [1, 2, 3, 4, 4]"),
        ([entry(4, "pause", 15, 20_000)], "pause raised it from 1000 to 20000"),
        ([entry(4, "kill", 15, 0), entry(5, "advance", 30, 1_000)], "advance of a run that is killed"),
    ],
    ids=["short bake", "stage skipped", "row lost", "row twice", "raised by a pause", "raised after a kill"],
)
def test_a_broken_history_is_told(more: Sequence[Entry], told: str) -> None:
    problems = list(run_problems([*STARTED, *more]))
    assert any(told in problem for problem in problems), problems


def test_a_raise_between_a_kill_and_its_reset_is_told_and_one_after_it_is_not() -> None:
    kill, again = entry(4, "kill", 10, 0), entry(1, "start", 30, 1_000, run="flag-000#2")
    reset = entry(5, "reset", 20, 0, kill.id)
    assert list(raised_under_a_kill([*STARTED, kill, again])) == [f"row 5: start of flag-000#2 under {kill.id}"]
    assert list(raised_under_a_kill([*STARTED, kill, reset, again])) == []
