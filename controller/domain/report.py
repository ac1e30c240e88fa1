"""A run in two columns, from its audit rows: what Rampart did, or would have done, beside what people did."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec
from msgspec import Struct, field

from controller.domain.audit import AuditEntry
from controller.domain.plan import RolloutPlan
from controller.domain.retrial import ENGINE
from controller.domain.rollout import Run, Served
from controller.domain.status import ReportLine, RunReport, StageTimes

PEOPLES_OWN = ("observe", "resume")
"""What the engine records of people, beside what people command."""

UNTOLD = ("confirm",)


class _Told(Struct, frozen=True, kw_only=True):
    """What is needed of an entry's details."""

    class Place(Struct, frozen=True):
        exposure: int = 0

    origin: Place | None = field(default=None, name="from")
    to: Place | None = None
    people: Served | None = None


def report(run: Run, plan: RolloutPlan, entries: Iterable[AuditEntry]) -> RunReport:
    """`entries` are those of the run, in their order."""
    lines = [_line(entry) for entry in entries if entry.action not in UNTOLD]
    observing = plan.spec.mode == "observe"
    return RunReport(
        run=run.id,
        plan=run.plan,
        flag=run.flag,
        mode=plan.spec.mode,
        phase=run.phase,
        stages=[
            StageTimes(
                name=stage.name,
                exposure=stage.share,
                rampart_at=_reached(lines, "rampart" if observing else "", stage.share),
                people_at=_reached(lines, "people", stage.share) if observing else None,
            )
            for stage in plan.spec.stages
        ],
        lines=lines,
    )


def _line(entry: AuditEntry) -> ReportLine:
    told = _told(entry.details)
    if entry.actor == ENGINE and entry.action in PEOPLES_OWN:
        return _written(entry, "people", told.people.effective_exposure if told.people else None)
    moved = told.to is not None and (told.origin is None or told.to.exposure != told.origin.exposure)
    exposure = told.to.exposure if told.to is not None and moved else None
    return _written(entry, "rampart" if entry.actor == ENGINE else "people", exposure)


def _told(details: dict[str, Any]) -> _Told:
    return msgspec.convert(details, _Told)


def _written(entry: AuditEntry, column: Literal["rampart", "people"], exposure: int | None) -> ReportLine:
    return ReportLine(at=entry.at, column=column, action=entry.action, text=entry.reason, exposure=exposure)


def _reached(lines: Sequence[ReportLine], column: str, share: int) -> datetime | None:
    """In any column, if none is named: a run that acts may have taken over what people did."""
    reached = (one.at for one in lines if column in ("", one.column) and one.exposure and one.exposure >= share)
    return next(reached, None)
