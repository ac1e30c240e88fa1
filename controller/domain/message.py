"""What channels are told: one audit entry, with the numbers of its rule and where to look and act."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

import msgspec
from msgspec import Struct

from controller.domain.audit import AuditEntry
from controller.domain.evidence import Verdict
from controller.domain.plan import EventName, RolloutPlan

EVENTS: Mapping[str, EventName] = {
    "start": "started",
    "take_over": "started",
    "advance": "advanced",
    "pause": "paused",
    "lower": "paused",
    "resume": "resumed",
    "step_back": "stepped_back",
    "kill": "killed",
    "complete": "completed",
    "request_approval": "approval",
    "reset": "reset",
    "abandon": "abandoned",
}
"""The actions that somebody may want to be told of."""


ENDS: Mapping[EventName, frozenset[EventName]] = {
    "started": frozenset({"approval"}),
    "advanced": frozenset({"approval"}),
    "paused": frozenset({"approval"}),
    "resumed": frozenset({"paused", "stepped_back"}),
    "stepped_back": frozenset({"approval"}),
    "killed": frozenset({"paused", "stepped_back", "approval"}),
    "completed": frozenset({"approval"}),
    "reset": frozenset({"killed"}),
    "abandoned": frozenset({"paused", "stepped_back", "approval"}),
}
"""What is over once an event has happened to the same flag: an incident that was opened for it can be closed."""


class Cited(Struct, frozen=True, kw_only=True):
    """The rule that decided, as judged. Numbers are in `unit`; ratios are 0 to 1."""

    policy: str
    rule: str
    condition: str
    detail: str
    unit: str
    value: float | None = None
    limit: float | None = None
    baseline: float | None = None
    sample: float | None = None


class Message(Struct, frozen=True, kw_only=True):
    """`id` is the audit entry's: whoever is told twice knows it by that. `reason` is the text of the decision.

    `rollout` is the plan's name; None for a flag without one. `exposure` is desired from now on, in thousandths
    of a percent; None where nothing was said of it. `link` is the rollout's page, empty without a public URL.
    `only_ends`: the plan did not ask for this event; it is told to end what was told before (`ENDS`).
    `observed`: the plan only observes, and this is what Rampart would have done.
    """

    id: str
    sequence: int
    event: EventName | Literal["test"]
    at: datetime
    environment: str
    flag: str
    actor: str
    cause: str
    reason: str
    rollout: str | None = None
    run: str | None = None
    owner: str = ""
    exposure: int | None = None
    cited: Cited | None = None
    link: str = ""
    runbook: str = ""
    only_ends: bool = False
    observed: bool = False

    @property
    def ends(self) -> frozenset[EventName]:
        """The events that are over now."""
        return frozenset() if self.event == "test" else ENDS.get(self.event, frozenset())


class _Side(Struct, frozen=True):
    exposure: int | None = None


class _Told(Struct, frozen=True):
    """What is needed of an entry's details."""

    to: _Side = _Side()
    rule: str | None = None
    verdicts: list[Verdict] = []


def message(sequence: int, entry: AuditEntry, plan: RolloutPlan | None, public_url: str) -> Message | None:
    """None for an entry that nobody is told of. Raises msgspec.ValidationError for details that are not ours."""
    event = EVENTS.get(entry.action)
    if event is None:
        return None
    told = _told(entry.details)
    name = plan.metadata.name if plan else None
    return Message(
        id=entry.id,
        sequence=sequence,
        event=event,
        at=entry.at,
        environment=entry.environment,
        flag=entry.flag or entry.subject,
        actor=entry.actor,
        cause=entry.cause,
        reason=entry.reason,
        rollout=name,
        run=entry.run,
        owner=plan.metadata.owner if plan else "",
        exposure=0 if event == "killed" else told.to.exposure,
        cited=_cited(told),
        link=f"{public_url.rstrip('/')}/r/{name}" if public_url and name else "",
        runbook=plan.metadata.links.get("runbook", "") if plan else "",
        # A person's kill is about the flag, whoever only observes it.
        observed=plan is not None and plan.spec.mode == "observe" and event not in ("killed", "reset"),
    )


def _told(details: dict[str, Any]) -> _Told:
    return msgspec.convert(details, _Told)


def _cited(told: _Told) -> Cited | None:
    found = next((one for one in told.verdicts if told.rule in (one.id, one.rule)), None)
    if found is None:
        return None
    return Cited(
        policy=found.policy,
        rule=found.rule,
        condition=found.condition,
        detail=found.detail,
        unit=found.unit,
        value=found.value,
        limit=found.limit,
        baseline=found.baseline,
        sample=found.sample,
    )
