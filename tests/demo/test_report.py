"""The demo's exit code: it is 0 only when everything it promises was found to be so."""

import pytest
from msgspec.structs import replace
from rich.console import Console

from controller.demo.report import Finding, findings, plan_of, summary
from controller.demo.script import BAD, GOOD
from controller.demo.server_api import Record
from controller.domain.audit import AuditEntry, ChainReport
from controller.domain.status import RunStatus
from tests.support.demo import AT, RUN

KILL = Record(
    sequence=7,
    entry=AuditEntry(
        id="e7",
        at=AT,
        actor="rampart",
        action="kill",
        cause="policy",
        subject=BAD,
        environment="production",
        reason="killed by web-service/p95-3x",
        run=f"{BAD}#1",
    ),
)
CHAIN = ChainReport(rows=7, head_sequence=7, head_hash="ab")
SERVED = {GOOD: {"share": {"on": 99}, "always": {"on": 1}}, BAD: {"share": {"off": 99}, "always": {"off": 1}}}
STATUSES = {
    GOOD: replace(RUN, id=f"{GOOD}#1", plan=GOOD, phase="completed", reason="completed"),
    BAD: replace(RUN, id=f"{BAD}#1", plan=BAD, phase="killed", reason="killed by web-service/p95-3x"),
}


def failures(
    statuses: dict[str, RunStatus] = STATUSES,
    record: Record = KILL,
    chain: ChainReport = CHAIN,
    served: dict[str, dict[str, dict[str, int]]] = SERVED,
) -> list[str]:
    return [finding.text for finding in findings(statuses, [record], chain, [SERVED, served]) if not finding.ok]


def test_nothing_is_wrong_when_one_completed_and_the_other_was_killed_by_its_policy() -> None:
    assert failures() == []


@pytest.mark.parametrize("phase", ["paused", "killed", "progressing"])
def test_a_good_release_that_did_not_complete_is_a_failure(phase: str) -> None:
    statuses = {**STATUSES, GOOD: replace(STATUSES[GOOD], phase=phase, reason=f"{phase} for some reason")}
    assert failures(statuses=statuses) == [f"{GOOD}: {phase} for some reason"]


def test_a_bad_release_killed_by_a_person_is_a_failure() -> None:
    by_hand = replace(KILL, entry=replace(KILL.entry, cause="user"))
    assert failures(record=by_hand) == [f"{BAD}: killed by web-service/p95-3x"]


def test_a_bad_release_only_paused_is_a_failure() -> None:
    statuses = {**STATUSES, BAD: replace(STATUSES[BAD], phase="paused", reason="paused")}
    assert failures(statuses=statuses) == [f"{BAD}: paused"]


def test_one_member_of_the_staff_still_served_the_killed_release_is_a_failure() -> None:
    served = {**SERVED, BAD: {"share": {"off": 99}, "always": {"on": 1}}}
    (text,) = failures(served=served)
    assert text.startswith(f"{BAD}: the SDKs of 2 shops now serve off to 199, on to 1 contexts")


def test_a_broken_chain_is_a_failure_and_named() -> None:
    broken = replace(CHAIN, problem="breaks at row 3")
    assert failures(chain=broken) == ["audit log: 7 rows, the hash chain breaks at row 3"]


def test_the_summary_tells_what_happened_when_and_why() -> None:
    console = Console(width=120, force_terminal=False)
    with console.capture() as captured:
        console.print(summary([Finding(True, "fine"), Finding(False, "not fine")], [KILL], 51.4))
    text = captured.get()
    assert "03:12:09  checkout-v2  killed by web-service/p95-3x" in text
    assert "✔ fine" in text
    assert "✘ not fine" in text
    assert "Something did not end as it should, after 51 s." in text


def test_confirmations_are_not_part_of_the_story() -> None:
    assert plan_of(KILL) == BAD
    assert plan_of(replace(KILL, entry=replace(KILL.entry, action="confirm"))) is None
    assert plan_of(replace(KILL, entry=replace(KILL.entry, run=None))) is None
