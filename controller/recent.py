"""What this replica saw last of every run, and a little of what came before: for pages, judged by nobody.

In memory only and bounded (promise I20), so that people are shown the last known state, and curves, while the
database is away.
"""

from collections import deque
from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from controller.domain.audit import AuditEntry
from controller.domain.status import RuleStatus, RunStatus

MOST_RUNS = 5_000
POINTS_KEPT = 120
RULES_KEPT = 50
"""Curves of one run; the rules beyond it have none."""


class Point(Struct, frozen=True, gc=False):
    """One measurement of a rule, in the rule's unit. None: nothing was measured, or no limit known."""

    at: datetime
    value: float | None
    limit: float | None
    breach: bool


class Remembered(Struct, frozen=True, kw_only=True):
    """`at`: when somebody looked.

    `events` are the latest entries of the audit log, newest first, without their evidence.
    """

    status: RunStatus
    at: datetime
    events: tuple[AuditEntry, ...] = ()


class Recent:
    """By plan. Whoever was not seen for longest is forgotten first."""

    def __init__(self, *, most_runs: int = MOST_RUNS) -> None:
        self._most_runs = most_runs
        self._runs: dict[str, Remembered] = {}
        self._curves: dict[str, dict[str, deque[Point]]] = {}

    def __len__(self) -> int:
        return len(self._runs)

    def seen(self, status: RunStatus, at: datetime) -> None:
        """Somebody read this: a tick, or a page. What is older than what is known adds nothing."""
        before = self._runs.pop(status.plan, None)
        if before is not None and before.status.id == status.id and before.status.version > status.version:
            self._runs[status.plan] = before
            return
        if before is None or before.status.id != status.id:
            self._curves.pop(status.plan, None)
            before = None
        self._runs[status.plan] = Remembered(status=status, at=at, events=before.events if before else ())
        self._measure(status, at)
        if len(self._runs) > self._most_runs:
            oldest = next(iter(self._runs))
            del self._runs[oldest]
            self._curves.pop(oldest, None)

    def told(self, plan: str, events: Sequence[AuditEntry]) -> None:
        known = self._runs.get(plan)
        if known is not None:
            self._runs[plan] = replace(known, events=tuple(replace(event, details={}) for event in events))

    def of(self, plan: str) -> Remembered | None:
        return self._runs.get(plan)

    def all(self) -> list[Remembered]:
        return list(self._runs.values())

    def curve(self, plan: str, rule: RuleStatus) -> Sequence[Point]:
        """Oldest first."""
        return tuple(self._curves.get(plan, {}).get(_name(rule), ()))

    def _measure(self, status: RunStatus, at: datetime) -> None:
        if not status.rules:
            return
        curves = self._curves.setdefault(status.plan, {})
        for rule in status.rules[:RULES_KEPT]:
            curve = curves.setdefault(_name(rule), deque(maxlen=POINTS_KEPT))
            seen_at = status.observed_at or at
            if not curve or curve[-1].at < seen_at:
                curve.append(Point(seen_at, rule.value, rule.limit, rule.outcome == "breach"))


def _name(rule: RuleStatus) -> str:
    return f"{rule.policy}/{rule.rule}"
