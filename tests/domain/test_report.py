"""A run in two columns, read from its audit rows alone."""

from datetime import timedelta
from typing import Any

from controller.domain.audit import AuditEntry
from controller.domain.report import report
from controller.domain.status import ReportLine, RunReport, StageTimes
from tests.support.rollouts import FLAG, NOW, make_plan, make_run

STAGES = [
    {"name": "canary", "exposure": "1%", "bake": "30m"},
    {"name": "early", "exposure": "10%", "bake": "10m"},
]
PLAN = make_plan(stages=STAGES, mode="observe")


def at(minutes: int) -> Any:
    return NOW + timedelta(minutes=minutes)


def entry(minutes: int, action: str, *, actor: str = "rampart", **details: Any) -> AuditEntry:
    told = {"from" if name == "begins" else name: value for name, value in details.items()}
    return AuditEntry(
        id=f"{action}-{minutes}", at=at(minutes), actor=actor, action=action, cause="policy",
        subject="checkout-v2#1", environment="production", reason=f"{action} it", run="checkout-v2#1",
        details=told,
    )  # fmt: skip


def moved(begins: int, to: int) -> dict[str, Any]:
    return {"begins": {"phase": "progressing", "exposure": begins}, "to": {"phase": "progressing", "exposure": to}}


def people(exposure: int, *, enabled: bool = True) -> dict[str, Any]:
    return {"people": {"enabled": enabled, "exposure": exposure, "foreign": []}, **moved(0, 0)}


def line(minutes: int, column: Any, action: str, exposure: int | None = None) -> ReportLine:
    return ReportLine(at=at(minutes), column=column, action=action, text=f"{action} it", exposure=exposure)


ROWS = [
    entry(0, "authorise", actor="dana"),
    entry(1, "observe", **people(50_000, enabled=False)),
    entry(2, "start", **moved(0, 1_000)),
    entry(3, "observe", **people(1_000)),
    entry(4, "confirm", **moved(1_000, 1_000)),
    entry(5, "advance", **moved(1_000, 10_000)),
    entry(6, "pause", **moved(10_000, 10_000)),
    entry(7, "resume", **people(20_000)),
    entry(8, "resume", actor="dana", **moved(10_000, 10_000)),
    entry(9, "lower", **moved(10_000, 0)),
    entry(10, "kill", actor="dana", kill_id="kill-1"),
]


def test_each_row_stands_in_the_column_of_whoever_did_it() -> None:
    run = make_run(PLAN, stage=1, phase="paused")
    assert report(run, PLAN, ROWS) == RunReport(
        run="checkout-v2#1",
        plan="checkout-v2",
        flag=FLAG,
        mode="observe",
        phase="paused",
        stages=[
            StageTimes(name="canary", exposure=1_000, rampart_at=at(2), people_at=at(3)),
            StageTimes(name="early", exposure=10_000, rampart_at=at(5), people_at=at(7)),
        ],
        lines=[
            line(0, "people", "authorise"),
            line(1, "people", "observe", 0),
            line(2, "rampart", "start", 1_000),
            line(3, "people", "observe", 1_000),
            line(5, "rampart", "advance", 10_000),
            line(6, "rampart", "pause"),
            line(7, "people", "resume", 20_000),
            line(8, "people", "resume"),
            line(9, "rampart", "lower", 0),
            line(10, "people", "kill"),
        ],
    )


def test_where_rampart_acts_a_stage_is_reached_also_by_taking_it_over() -> None:
    plan = make_plan(stages=STAGES)
    found = report(
        make_run(plan, stage=0), plan, [*ROWS[:3], entry(3, "take_over", actor="dana", **moved(0, 10_000))]
    )
    assert [(stage.rampart_at, stage.people_at) for stage in found.stages] == [(at(2), None), (at(3), None)]
