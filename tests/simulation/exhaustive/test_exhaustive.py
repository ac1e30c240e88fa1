"""Every interleaving of the small model keeps the promises; with a guard left out, one of them does not."""

import pytest

from tests.simulation.exhaustive.checker import Explorer
from tests.simulation.exhaustive.scopes import BUGS, SMALL, Bug
from tests.simulation.exhaustive.state import Scope


@pytest.mark.parametrize("scope", SMALL, ids=[scope.name for scope in SMALL])
def test_no_interleaving_breaks_a_promise_and_all_come_to_rest(scope: Scope) -> None:
    report = Explorer(scope).explore()
    assert report.violation is None, "\n".join(report.violation.trace)
    assert report.complete
    assert report.at_rest > 0


@pytest.mark.parametrize("bug", BUGS, ids=[bug.name for bug in BUGS])
def test_a_guard_that_is_left_out_is_missed(bug: Bug) -> None:
    report = Explorer(bug.planted()).explore()
    assert report.violation is not None
    assert report.violation.promise == bug.promise
    assert report.violation.trace[-1] == f"BROKEN: {bug.promise}"
