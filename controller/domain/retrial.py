"""The run of a proof, run again: each decision is made anew from its record, each state from the one before it.

Only what people decided is taken from the rows; what follows from measurements must come out the same.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from controller.domain.assess import Inputs, assess_and_decide
from controller.domain.audit import AuditEntry
from controller.domain.binding import Guardrail, bind_all
from controller.domain.consequences import carried, state_after
from controller.domain.decide import Decision
from controller.domain.evidence import Verdict
from controller.domain.pins import Pins
from controller.domain.plan import FlagRef, RolloutPlan
from controller.domain.policy import GuardrailPolicy
from controller.domain.rollout import (
    NOT_STARTED,
    Accepted,
    Action,
    Cause,
    Phase,
    Run,
    ended_by_kill,
    transition,
)
from controller.errors import Conflict, NotFound, RampartError

ENGINE = "rampart"
"""The actor of what no person commanded."""

RESTS_ON_EVIDENCE = ("start", "advance", "confirm", "lower", "complete", "request_approval")


class Place(Struct, frozen=True, kw_only=True):
    phase: Phase
    stage: int
    exposure: int


class Facts(Struct, frozen=True, kw_only=True):
    """The details of a run's audit row. People's rows have no `inputs`; a kill has neither `origin` nor `to`.

    `accepted` is told where a person accepts what is not ours, and `audience` where a flag was taken over.
    """

    origin: Place | None = field(default=None, name="from")
    to: Place | None = None
    plan_revision: int | None = None
    policy_revisions: dict[str, int] = {}
    pinned: Pins | None = None
    rule: str | None = None
    kill_id: str = ""
    accepted: Accepted | None = None
    audience: bool | None = None
    run: Run | None = None
    inputs: Inputs | None = None
    verdicts: tuple[Verdict, ...] = ()


class Step(Struct, frozen=True, kw_only=True):
    """One audit row of the run."""

    sequence: int
    entry: AuditEntry
    facts: Facts

    @property
    def automatic(self) -> bool:
        return self.entry.actor == ENGINE

    @property
    def action(self) -> Action:
        """As written; what is no action is refused by the table of transitions."""
        return cast("Action", self.entry.action)

    @property
    def plan_after(self) -> int:
        """The revision of the plan that the run follows from this row on; 0 when it does not say."""
        pinned = self.facts.pinned
        return pinned.plan.revision if pinned else self.facts.plan_revision or 0


class Documents(Struct, frozen=True):
    """Revisions of the run's plan, and policies by name and revision."""

    plans: Mapping[int, RolloutPlan]
    policies: Mapping[tuple[str, int], GuardrailPolicy]

    def bound(self, run: Run) -> tuple[RolloutPlan, tuple[Guardrail, ...]]:
        """What the run is pinned to. Raises NotFound naming what is not here."""
        plan = self.plans.get(run.plan_revision)
        if plan is None:
            raise NotFound(f"plan {run.plan} revision {run.plan_revision} is not in the file")
        return plan, bind_all(plan, {use.policy: self._policy(run, use.policy) for use in plan.spec.guardrails})

    def _policy(self, run: Run, name: str) -> GuardrailPolicy:
        revision = run.policy_revisions.get(name, 0)
        policy = self.policies.get((name, revision))
        if policy is None:
            raise NotFound(f"policy {name} revision {revision} is not in the file")
        return policy


class Tally(Struct):
    """`findings` are (row, sentence)."""

    checked: int = 0
    findings: list[tuple[int, str]] = []


class Retrial(Struct, frozen=True):
    """`elsewhere` says which decisions could not be tried because they belong to another run."""

    decisions: Tally
    states: Tally
    elsewhere: list[str]


def retry(run_id: str, steps: Sequence[Step], documents: Documents) -> Retrial:
    decisions, course, elsewhere = Tally(), Course(), []
    for step in steps:
        recorded = step.facts.run
        if recorded is not None and recorded.id != run_id and step.action == "kill":
            elsewhere.append(
                f"The kill in row {step.sequence} was decided for {recorded.id}; that run's proof shows why."
            )
            course.follow(step, None)
        else:
            course.follow(step, _tried(step, documents, decisions))
    return Retrial(decisions, course.tally, elsewhere)


# — decisions —


class Remade(Struct, frozen=True):
    """A decision made again, in the words of the person behind it, if any. `extra` goes into the run with it."""

    run: Run
    decision: Decision
    verdicts: tuple[Verdict, ...]
    waived: bool
    extra: Mapping[str, Any]


def _tried(step: Step, documents: Documents, tally: Tally) -> Remade | None:
    """The decision made again, if the row rests on evidence and it is the same; what differs is in the tally."""
    run, inputs = step.facts.run, step.facts.inputs
    row = f"row {step.sequence} ({step.action})"
    if run is None or inputs is None:
        if step.automatic or step.action in RESTS_ON_EVIDENCE:
            tally.checked += 1
            tally.findings.append((step.sequence, f"{row} does not record what it rested on"))
        return None
    tally.checked += 1
    try:
        remade = _remade(step, run, inputs, documents)
    except Exception as error:  # noqa: BLE001 - a stranger's file may hold anything; that it fails is the finding
        why = str(error) if isinstance(error, RampartError) else f"{type(error).__name__}: {error}"
        tally.findings.append((step.sequence, f"{row} cannot be decided again: {why}"))
        return None
    problems = _differences(step, remade)
    tally.findings += [(step.sequence, f"{row}: {problem}") for problem in problems]
    return None if problems else remade


def _remade(step: Step, run: Run, inputs: Inputs, documents: Documents) -> Remade:
    plan, guardrails = documents.bound(run)
    evidence, decision = assess_and_decide(run, plan, guardrails, inputs)
    extra = carried("", run, plan, guardrails, inputs, decision)
    if not step.automatic and _commanded(step, decision):
        decision = replace(decision, cause="user", text=step.entry.reason)
    return Remade(run, decision, evidence.verdicts, inputs.bake_waived, extra)


def _commanded(step: Step, decision: Decision) -> bool:
    """The words of a command: what is decided, by whom, and perhaps a note."""
    words = f"{decision.text} by {step.entry.actor}"
    return step.entry.reason == words or step.entry.reason.startswith(f"{words}: ")


def _differences(step: Step, remade: Remade) -> list[str]:
    entry, decision, to = step.entry, remade.decision, step.facts.to
    if decision.action != entry.action:
        return [f"its record leads to another decision: {decision.action}, {decision.text}"]
    problems = []
    if remade.waived and step.automatic:
        problems.append("the bake was waived, and nobody is named who did")
    if (decision.text, decision.cause) != (entry.reason, entry.cause):
        problems.append(
            f'the row says "{entry.reason}" ({entry.cause}); decided again it is "{decision.text}" '
            f"({decision.cause})"
        )
    if decision.rule != step.facts.rule:
        problems.append(f"the row names the rule {step.facts.rule}; decided again it is {decision.rule}")
    if to is not None and (to.stage, to.exposure) != (decision.stage, decision.exposure):
        problems.append("decided again it leads to another stage or exposure")
    return problems + _other_verdicts(step.facts.verdicts, remade.verdicts)


def _other_verdicts(recorded: Sequence[Verdict], again: Sequence[Verdict]) -> list[str]:
    if [verdict.id for verdict in recorded] != [verdict.id for verdict in again]:
        return ["other rules were judged than its policies have"]
    # JSON has no NaN: such a reading is recorded as none, and only `detail` tells the two apart.
    return [
        f"the rule {was.id} is recorded as {_verdict(was)}; judged again it is {_verdict(now)}"
        for was, now in zip(recorded, again, strict=True)
        if replace(was, detail="") != replace(now, detail="")
    ]


def _verdict(verdict: Verdict) -> str:
    names = ("value", "limit", "baseline", "sample")
    numbers = [f"{name} {number:g}" for name in names if (number := getattr(verdict, name)) is not None]
    return f"{verdict.outcome} ({', '.join(numbers)})" if numbers else verdict.outcome


# — states —

UNTOLD_AT_FIRST = frozenset({"author", "created_at", "flag", "kill_epoch", "status"})
"""Fields that the row of the authorisation does not tell: the first recorded run does, for all that follow."""


class Course:
    """The run as its rows lead it, from its authorisation on. `untold` are fields only a recorded run can tell."""

    def __init__(self) -> None:
        self.tally = Tally()
        self._now: Run | None = None
        self._by_version: dict[int, Run] = {}
        self._untold: frozenset[str] = frozenset()

    def follow(self, step: Step, remade: Remade | None) -> None:
        if remade is not None:
            self._compare(step, remade.run)
        if step.action == "approve" and self._now and step.entry.actor in (self._now.author, self._now.started_by):
            text = f"row {step.sequence}: {step.entry.actor} approved what the same person wrote or started"
            self.tally.findings.append((step.sequence, text))
        try:
            self._now = self._after(step, remade)
        except Conflict:
            self._now = None  # the check of transitions says what is wrong
        if self._now is not None:
            self._by_version[self._now.version] = self._now

    def _compare(self, step: Step, recorded: Run) -> None:
        known = self._now
        if known is not None and step.action == "kill" and recorded.version < known.version:
            known = self._by_version.get(recorded.version)  # a kill needs no version: it may have come later
        if known is None:
            return  # a row before this one is missing or wrong, which is a finding of its own
        self.tally.checked += 1
        known = replace(known, **{name: getattr(recorded, name) for name in self._untold})
        self._untold = frozenset()
        known, recorded = _comparable(known), _comparable(recorded)
        names = [one.name for one in msgspec.structs.fields(Run)]
        differing = ", ".join(name for name in names if getattr(known, name) != getattr(recorded, name))
        if differing:
            text = f"row {step.sequence} was decided on a run that the rows before it do not lead to: {differing}"
            self.tally.findings.append((step.sequence, text))

    def _after(self, step: Step, remade: Remade | None) -> Run | None:
        entry, facts = step.entry, step.facts
        if entry.action == "authorise":
            self._untold = UNTOLD_AT_FIRST
            return _authorised(step)
        if remade is not None and facts.to is not None:
            return state_after(remade.run, remade.decision, entry.at, remade.extra)
        if self._now is None or step.automatic:
            return self._now and _killed(step, self._now)
        if entry.action == "reset":
            return transition(self._now, "reset")
        if entry.action == "adopt":
            self._untold |= {"author"}
        return _killed(step, self._now) or _ordered(step, self._now)


def _comparable(run: Run) -> Run:
    """Without what no row tells: the number of a request for approval, and the instant of its answer."""
    approval = run.approval and replace(run.approval, id="", granted_at=None)
    return replace(run, approval=approval)


def _authorised(step: Step) -> Run | None:
    pinned, run_id = step.facts.pinned, step.entry.run or ""
    if pinned is None:
        return None
    plan, _, number = run_id.rpartition("#")
    return Run(
        id=run_id,
        plan=plan,
        number=int(number) if number.isdecimal() else 0,
        plan_revision=pinned.plan.revision,
        policy_revisions={pin.name: pin.revision for pin in pinned.policies},
        flag=FlagRef(provider="", environment=step.entry.environment, key=""),
        author="",
        started_by=step.entry.actor,
        created_at=step.entry.at,
        accepted=step.facts.accepted,
        version=1,
    )


def _killed(step: Step, run: Run) -> Run | None:
    if step.action != "kill" or step.facts.to is not None:
        return None
    return ended_by_kill(run, step.facts.kill_id, at=step.entry.at, why=step.entry.reason)


def _ordered(step: Step, run: Run) -> Run | None:
    """The run after a person's command; None for what no command alone can do."""
    entry, to, pinned = step.entry, step.facts.to, step.facts.pinned
    if to is None or step.action in RESTS_ON_EVIDENCE:
        return None
    audience = run.audience
    extra: dict[str, Any] = {}
    match entry.action:
        case "step_back":
            audience = run.audience and to.stage != NOT_STARTED
        case "resume":
            audience = run.audience and to.exposure > 0
            extra = {"confirmed_at": None, "approval": None, "accepted": step.facts.accepted}
        case "take_over":
            audience = bool(step.facts.audience)
            extra = {"accepted": step.facts.accepted}
        case "approve" if run.approval is not None:
            extra = {"approval": replace(run.approval, granted_by=entry.actor, granted_at=entry.at)}
        case "adopt" if pinned is not None:
            extra = {
                "plan_revision": pinned.plan.revision,
                "policy_revisions": {pin.name: pin.revision for pin in pinned.policies},
                "confirmed_at": None,
                "approval": None,
            }
    decision = Decision(
        action=step.action,
        cause=cast("Cause", entry.cause),
        text=entry.reason,
        stage=to.stage,
        exposure=to.exposure,
        audience=audience,
    )
    return state_after(run, decision, entry.at, extra)
