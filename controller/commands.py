"""What people command, and what they ask. Every command ends in the reconciler's commit-then-apply tail.

A command is a decision with a person behind it: the table of transitions, the flag's kill epoch and the run's
version guard it as they guard a tick. It waives nothing but the remaining bake.
"""

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec.structs import replace

from controller.access import Actor
from controller.domain import adoption
from controller.domain.alerts import AlertOutcome, Order
from controller.domain.assess import assess_and_decide
from controller.domain.audit import AuditEntry, AuditRow
from controller.domain.binding import Guardrail, bind_all
from controller.domain.catalogue import PlanRevision, PolicyRevision
from controller.domain.consequences import basis, carried
from controller.domain.decide import Decision, stage_holding, step_back
from controller.domain.explain import explanation, plan_summary, run_status, unreadable_summary
from controller.domain.flag import FlagState, Observation, Unknown
from controller.domain.pins import pins
from controller.domain.plan import FlagRef, RolloutPlan
from controller.domain.policy import GuardrailPolicy
from controller.domain.quantities import exposure_text
from controller.domain.report import report
from controller.domain.rollout import Accepted, Action, Observations, Run, Seen, next_phase
from controller.domain.status import Explanation, PlanSummary, RunReport, RunStatus
from controller.errors import Conflict, Forbidden, KillInForce, NotFound, ProviderUnavailable, Refused
from controller.reconciler import Reconciler

PAGE = 1000
"""Rows of the audit log that are read at once."""


class Commands:
    """`groups` name who may approve: group → token names."""

    def __init__(self, reconciler: Reconciler, groups: Mapping[str, list[str]]) -> None:
        self._reconciler = reconciler
        self._store = reconciler.store
        self._killbook = reconciler.killbook
        self._clock = reconciler.clock
        self._groups = groups

    # — commands —

    async def start(self, plan: str, actor: Actor, note: str) -> RunStatus:
        """Authorise a run. It raises nothing yet: the first tick with a healthy baseline does."""
        revision = await self._plan(plan)
        definition, flag = revision.plan, revision.plan.spec.flag
        actor.require("operate", flag.environment)
        self._require_free(plan, flag)
        latest = await self._store.latest_run(plan)
        if latest is not None and latest[0].active:
            raise Conflict(f"{latest[0].id} is {latest[0].phase}; a flag has one active run")
        policies = await self._policy_revisions(definition)
        bind_all(definition, {name: one.policy for name, one in policies.items()})
        accepted = await self._startable(definition)
        why = f"{plan} was authorised to start" + (f": {note}" if note else "")
        await self._authorise(revision, policies, accepted, actor, why)
        return await self.status(plan)

    async def take_over(self, key: str, environment: str | None, actor: Actor, note: str) -> RunStatus:
        """Begin a run where people have brought the flag; `key` is the flag's, or the name of its plan.

        Nothing is written to it, and all of it that is not ours is accepted thereby. Raises Refused naming what is
        in the way.
        """
        revision = await self._plan_of_flag(key, environment)
        plan, name, flag = revision.plan, revision.plan.metadata.name, revision.plan.spec.flag
        actor.require("operate", flag.environment)
        self._require_free(name, flag)
        policies = await self._policy_revisions(plan)
        guardrails = bind_all(plan, {policy: one.policy for policy, one in policies.items()})
        await self._require_fitting(plan)
        observed = await self._shown(flag)
        if against := adoption.against_taking_over(plan, observed):
            raise Refused(f"{name} cannot take over {flag}", blocks=against)
        accepted = Accepted().found(observed)
        run = await self._pending_run(revision, policies)
        if run is None:
            why = f"{name} was authorised to take over {flag}"
            run = await self._authorise(revision, policies, accepted, actor, why)
        after = adoption.taken_over(run, plan, observed)
        text = _by(actor, f"took the flag over at {exposure_text(after.exposure)}", note)
        decision = _unmoved(after, "take_over", "; ".join([text, *adoption.unjudged(after, guardrails)]))
        details = {"accepted": msgspec.to_builtins(accepted), "audience": after.audience}
        extra = {"accepted": accepted}
        await self._carry_out(run, plan, decision, Observations(), actor, extra=extra, details=details)
        return await self.status(name)

    async def _authorise(
        self,
        revision: PlanRevision,
        policies: Mapping[str, PolicyRevision],
        accepted: Accepted | None,
        actor: Actor,
        why: str,
    ) -> Run:
        """A new run, waiting to start."""
        name, flag = revision.plan.metadata.name, revision.plan.spec.flag
        run = Run(
            id=name,
            plan=name,
            number=0,
            plan_revision=revision.revision,
            policy_revisions={policy: one.revision for policy, one in policies.items()},
            flag=flag,
            author=revision.author,
            started_by=actor.name,
            created_at=self._clock.now(),
            accepted=accepted,
            status="waiting for a healthy baseline",
        )
        entry = self._entry(actor, "authorise", flag.environment, name, why)
        details = {"pinned": pins(revision, policies), "accepted": accepted}
        return await self._store.create_run(run, replace(entry, details=msgspec.to_builtins(details)))

    async def advance(self, plan: str, actor: Actor, note: str) -> RunStatus:
        """Waive the remaining bake, and nothing else. Raises Refused naming what else is in the way."""
        run, definition, guardrails, observations = await self._operable(plan, actor, "advance")
        inputs = await self._reconciler.look_at(run, definition, guardrails, observations)
        evidence, decision = assess_and_decide(run, definition, guardrails, inputs)
        if decision.action not in ("advance", "request_approval"):
            raise Refused(
                f"{run.id} cannot advance now: {decision.text}", blocks=[block.text for block in decision.blocks]
            )
        decision = replace(decision, cause="user", text=_by(actor, decision.text, note))
        extra = carried(uuid.uuid4().hex, run, definition, guardrails, inputs, decision)
        details = basis(run, inputs, evidence)
        more = {"extra": extra, "details": details, "newest_freeze": inputs.newest_freeze}
        await self._carry_out(run, definition, decision, observations, actor, **more)
        return await self.status(plan)

    async def pause(self, plan: str, actor: Actor, note: str) -> RunStatus:
        run, definition, _, observations = await self._operable(plan, actor, "pause")
        text = _by(actor, f"paused at {exposure_text(run.exposure)}", note)
        return await self._stay(run, definition, observations, actor, "pause", text)

    async def pause_by_alert(self, order: Order, actor: Actor) -> tuple[AlertOutcome, str]:
        """Once for each start of the alert and each run, whoever resumed that since. Raises as a pause does."""
        run, observations = await self._found(order.plan, None)
        _require_lowering(run, actor)
        alert = order.alert
        acted, noted = alert.identity(run.id), alert.identity(f"{run.id} was paused")
        for entry_id in (acted, noted):
            if await self._store.committed(entry_id) is not None:
                return "repeated", f"this start of the alert was dealt with before; {run.id} is {run.phase}"
        if run.phase == "paused":
            text = f"{order.reason}; {run.id} was paused already"
            entry = self._entry(actor, "alert", run.flag.environment, run.id, text)
            await self._store.note_once(replace(entry, id=noted, cause="alert", details={"alert": alert.facts()}))
            return "already_paused", f"{run.id} was paused already"
        if run.phase != "progressing":
            return "not_running", f"{run.id} is {run.phase}: there is nothing to pause"
        definition = (await self._plan(order.plan, run.plan_revision)).plan
        text = _by(actor, f"paused at {exposure_text(run.exposure)}", order.reason)
        decision = replace(_unmoved(run, "pause", text), cause="alert")
        details = {"alert": alert.facts()}
        await self._carry_out(run, definition, decision, observations, actor, details=details, entry_id=acted)
        return "paused", f"{run.id} is paused at {exposure_text(run.exposure)}"

    async def resume(self, plan: str, actor: Actor, note: str) -> RunStatus:
        """Adopt the exposure that is observed, never more than was committed, and restart the bake."""
        run, definition, _, observations = await self._operable(plan, actor, "resume")
        if run.phase != "paused":
            next_phase(run.phase, "resume")
        exposure, enabled, accepted = run.exposure, True, run.accepted
        if definition.spec.mode == "enforce":
            observed = (await self._reconciler.lookout.observe([run.flag], insist=True))[run.flag]
            if isinstance(observed, Unknown):
                raise ProviderUnavailable(f"cannot resume: {observed.why}")
            exposure, enabled = min(run.exposure, observed.effective_exposure), observed.enabled
            accepted = (run.accepted or Accepted()).found(observed)
        if run.turned_on and not enabled:
            raise Refused(
                f"{run.id} cannot resume: the flag is off at the provider, and only a start turns a flag on",
                blocks=[f"rampart abandon {plan}, then rampart start {plan}"],
            )
        audience = run.audience and exposure > 0
        decision = Decision(
            action="resume",
            cause="user",
            text=_by(actor, f"resumed at {exposure_text(exposure)}; the bake starts anew", note),
            stage=stage_holding(definition, exposure),
            exposure=exposure,
            audience=audience,
        )
        extra = {"confirmed_at": None, "approval": None, "accepted": accepted}
        details = {"accepted": msgspec.to_builtins(accepted)}
        await self._carry_out(run, definition, decision, observations, actor, extra=extra, details=details)
        return await self.status(plan)

    async def step_back(self, plan: str, actor: Actor, note: str) -> RunStatus:
        run, definition, _, observations = await self._operable(plan, actor, "step_back")
        if run.exposure == 0:
            raise Refused(f"{run.id} is at 0 % already; there is no stage to step back to")
        decision = step_back(run, definition, _by(actor, "", note).strip(), cause="user")
        await self._carry_out(run, definition, decision, observations, actor)
        return await self.status(plan)

    async def abandon(self, plan: str, actor: Actor, note: str) -> RunStatus:
        run, definition, _, observations = await self._operable(plan, actor, "abandon")
        text = _by(actor, f"abandoned; the flag stays at {exposure_text(run.exposure)}", note)
        return await self._stay(run, definition, observations, actor, "abandon", text)

    async def approve(self, plan: str, actor: Actor, note: str) -> RunStatus:
        """Grant the open request. Two people: not the plan's author, not whoever started the run."""
        run, definition, _, observations = await self._active(plan)
        actor.require("approve", run.flag.environment)
        request = run.approval
        if request is None or request.granted_at is not None:
            raise Conflict(f"{run.id} waits for no approval")
        stage = definition.spec.stages[request.stage]
        groups = stage.approval.from_ if stage.approval else []
        if not any(actor.name in self._groups.get(group, []) for group in groups):
            raise Forbidden(f'"{actor.name}" is in no group that may approve {stage.name}: {", ".join(groups)}')
        if actor.name in (run.author, run.started_by):
            raise Forbidden(
                f'{stage.name} needs a second person: "{actor.name}" wrote the plan or started the run'
            )
        granted = replace(request, granted_by=actor.name, granted_at=self._clock.now())
        text = _by(actor, f"approved {stage.name} ({exposure_text(stage.share)})", note)
        decision = _unmoved(run, "approve", text)
        await self._carry_out(run, definition, decision, observations, actor, extra={"approval": granted})
        return await self.status(plan)

    async def adopt(self, plan: str, actor: Actor, note: str) -> RunStatus:
        """Move the active run to the newest revisions. Bake restarts; other rules or approvals need two people."""
        run, definition, _, observations = await self._operable(plan, actor, "adopt")
        newest = await self._plan(plan)
        policies = await self._policy_revisions(newest.plan)
        revisions = {name: one.revision for name, one in policies.items()}
        if (newest.revision, revisions) == (run.plan_revision, run.policy_revisions):
            raise Conflict(f"{run.id} already follows the newest revisions")
        if against := adoption.obstacles(run, definition, newest.plan):
            raise Refused(f"{run.id} cannot move to plan revision {newest.revision}", blocks=against)
        before = bind_all(definition, await self._pinned(run))
        after = bind_all(newest.plan, {name: one.policy for name, one in policies.items()})
        if because := adoption.second_person_because(run, (definition, before), (newest.plan, after)):
            authors = adoption.authors_of_change(run, newest, policies)
            _require_second_person(actor, run, authors, because)
        decision = replace(
            _unmoved(run, "adopt", _by(actor, f"adopted plan revision {newest.revision}", note)),
            stage=stage_holding(newest.plan, run.exposure),
        )
        extra = {
            "plan_revision": newest.revision,
            "policy_revisions": revisions,
            "author": newest.author,
            "confirmed_at": None,
            "approval": None,
        }
        pinned = {"pinned": msgspec.to_builtins(pins(newest, policies))}
        await self._carry_out(run, definition, decision, observations, actor, extra=extra, details=pinned)
        return await self.status(plan)

    # — questions —

    async def status(self, plan: str, run: int | None = None) -> RunStatus:
        this, observations = await self._found(plan, run)
        definition = await self._plan(plan, this.plan_revision)
        if not this.active:
            observations = (await self._as_served_now([(this, observations)]))[0][1]
        # Rules that cannot be bound are why a run is quarantined: it must be shown all the same.
        pinned = await self._pinned(this)
        guardrails = () if observations.quarantine else bind_all(definition.plan, pinned)
        return run_status(this, definition.plan, guardrails, observations, self._killbook.kills_of(this.flag))

    async def _found(self, plan: str, run: int | None) -> tuple[Run, Observations]:
        """That run, or the latest."""
        found = await (self._store.run(f"{plan}#{run}") if run is not None else self._store.latest_run(plan))
        if found is None:
            await self._plan(plan)
            raise NotFound(f"{plan} has no run {run}" if run is not None else f"{plan} was never started")
        return found

    async def summaries(self) -> list[PlanSummary]:
        runs = await self._as_served_now(await self._store.latest_runs())
        latest = {run.plan: (run, observations) for run, observations in runs}
        plans = await self._store.plans()
        left_out = [one for one in await self._store.unreadable() if one.kind == "run"]
        unreadable = {one.name.rpartition("#")[0]: one for one in left_out}
        return [
            unreadable_summary(one.plan, one.revision, unreadable[name])
            if (name := one.plan.metadata.name) in unreadable
            else plan_summary(one.plan, one.revision, latest.get(name))
            for one in plans
        ]

    async def explain(self, plan: str) -> Explanation:
        return explanation(*await self._found(plan, None))

    async def report(self, plan: str, run: int | None = None) -> RunReport:
        """What Rampart did, or would have done, beside what people did."""
        this, _ = await self._found(plan, run)
        definition = await self._plan(plan, this.plan_revision)
        rows: list[AuditRow] = []
        while page := await self._store.audit(after=rows[-1].sequence if rows else 0, run=this.id, limit=PAGE):
            rows += page
        return report(this, definition.plan, [msgspec.json.decode(row.body, type=AuditEntry) for row in rows])

    async def _as_served_now(self, runs: Sequence[tuple[Run, Observations]]) -> list[tuple[Run, Observations]]:
        """What an ended run's last tick saw is long past: show what the provider shows now."""
        ended = [run.flag for run, _ in runs if not run.active]
        shown = await self._reconciler.lookout.observe(ended)
        now = self._clock.now()
        return [
            (run, observations if run.active else replace(observations, seen=_seen_now(shown[run.flag], now)))
            for run, observations in runs
        ]

    # — the way there —

    async def _plan(self, name: str, revision: int | None = None) -> PlanRevision:
        found = await self._store.plan(name, revision)
        if found is None:
            raise NotFound(f'no plan is called "{name}"; rampart list shows them all')
        return found

    async def _policy_revisions(self, plan: RolloutPlan) -> dict[str, PolicyRevision]:
        found = {use.policy: await self._store.policy(use.policy) for use in plan.spec.guardrails}
        missing = [name for name, one in found.items() if one is None]
        if missing:
            raise Refused(f"no policy is called {', '.join(missing)}; apply it first")
        return {name: one for name, one in found.items() if one is not None}

    async def _pinned(self, run: Run) -> dict[str, GuardrailPolicy]:
        found = {name: await self._store.policy(name, number) for name, number in run.policy_revisions.items()}
        return {name: one.policy for name, one in found.items() if one is not None}

    def _require_free(self, plan: str, flag: FlagRef) -> None:
        if held := self._killbook.holds(flag):
            raise KillInForce(f"{flag} is killed ({', '.join(held)}); reset it first: rampart reset {plan}")

    async def _plan_of_flag(self, key: str, environment: str | None) -> PlanRevision:
        """The one plan of that name, or for that flag. Raises NotFound, Conflict."""
        plans = await self._store.plans()
        named = [one for one in plans if one.plan.metadata.name == key]
        found = named or [one for one in plans if one.plan.spec.flag.key == key]
        found = [one for one in found if environment in (None, one.plan.spec.flag.environment)]
        where = f" in {environment}" if environment else ""
        if not found:
            raise NotFound(
                f'no plan is called "{key}" or is for a flag of that key{where}; rampart list shows them'
            )
        if len(found) > 1:
            names = ", ".join(sorted(one.plan.metadata.name for one in found))
            raise Conflict(f"several plans are for {key}{where}: {names}; name the one that is meant")
        return found[0]

    async def _pending_run(self, revision: PlanRevision, policies: Mapping[str, PolicyRevision]) -> Run | None:
        """The run that waits to start by these revisions, if there is one. Raises Conflict for any other."""
        latest = await self._store.latest_run(revision.plan.metadata.name)
        if latest is None or not latest[0].active:
            return None
        run, revisions = latest[0], {name: one.revision for name, one in policies.items()}
        if run.phase != "pending" or (run.plan_revision, run.policy_revisions) != (revision.revision, revisions):
            raise Conflict(f"{run.id} is {run.phase}; a flag has one active run")
        return run

    async def _require_fitting(self, plan: RolloutPlan) -> None:
        name = plan.spec.flag.provider
        provider = self._reconciler.providers.get(name)
        if provider is None:
            raise Refused(f'the settings know no provider "{name}"')
        if objections := await provider.objections(plan):
            raise Refused(f"{name} cannot represent this plan", blocks=objections)

    async def _shown(self, flag: FlagRef) -> FlagState:
        observed = (await self._reconciler.lookout.observe([flag], insist=True))[flag]
        if isinstance(observed, Unknown):
            raise ProviderUnavailable(f"cannot start: {observed.why}")
        return observed

    async def _startable(self, plan: RolloutPlan) -> Accepted | None:
        """What is accepted by starting now; None when nothing is written. Raises Refused, ProviderUnavailable."""
        flag = plan.spec.flag
        await self._require_fitting(plan)
        if plan.spec.mode == "observe":
            return None
        observed = await self._shown(flag)
        if observed.enabled and (observed.exposure or observed.audience):
            raise Refused(
                f"{flag} already serves {plan.spec.serve.rollout} to {exposure_text(observed.exposure)}; lower it "
                f"to 0 % or turn it off, then start; or go on from there: rampart adopt {plan.metadata.name}"
            )
        return Accepted().found(observed)

    async def _active(self, plan: str) -> tuple[Run, RolloutPlan, tuple[Guardrail, ...], Observations]:
        run, observations = await self._found(plan, None)
        definition = (await self._plan(plan, run.plan_revision)).plan
        return run, definition, bind_all(definition, await self._pinned(run)), observations

    async def _operable(
        self, plan: str, actor: Actor, action: Action
    ) -> tuple[Run, RolloutPlan, tuple[Guardrail, ...], Observations]:
        """The run, when this actor may do this to it now."""
        run, definition, guardrails, observations = await self._active(plan)
        if action in ("pause", "step_back"):
            _require_lowering(run, actor)
        else:
            actor.require("operate", run.flag.environment)
        next_phase(run.phase, action)
        return run, definition, guardrails, observations

    async def _stay(
        self, run: Run, plan: RolloutPlan, observations: Observations, actor: Actor, action: Action, text: str
    ) -> RunStatus:
        await self._carry_out(run, plan, _unmoved(run, action, text), observations, actor)
        return await self.status(run.plan)

    async def _carry_out(
        self,
        run: Run,
        plan: RolloutPlan,
        decision: Decision,
        observations: Observations,
        actor: Actor,
        **more: Any,
    ) -> None:
        await self._reconciler.commit_and_apply(
            run, plan, decision, observations, actor=actor.name, lease_epoch=None, **more
        )

    def _entry(self, actor: Actor, action: str, environment: str, subject: str, reason: str) -> AuditEntry:
        return AuditEntry(
            id=uuid.uuid4().hex,
            at=self._clock.now(),
            actor=actor.name,
            action=action,
            cause="user",
            subject=subject,
            environment=environment,
            reason=reason,
        )


def _require_second_person(actor: Actor, run: Run, authors: set[str], because: Sequence[str]) -> None:
    if not actor.may("approve", run.flag.environment) or actor.name in authors:
        raise Refused(
            "the guardrails or approvals change: adopting them needs the scope approve and a person who is "
            "not the author",
            blocks=[*because, f"written by {', '.join(sorted(authors))}"],
        )


def _require_lowering(run: Run, actor: Actor) -> None:
    """Lowering is also the right of whoever may kill."""
    if not actor.may("kill", run.flag.environment):
        actor.require("operate", run.flag.environment)


def _by(actor: Actor, text: str, note: str) -> str:
    return f"{text} by {actor.name}" + (f": {note}" if note else "")


def _seen_now(observed: Observation, now: datetime) -> Seen:
    if isinstance(observed, Unknown):
        return Seen(at=now, flag=None, flag_unknown=observed.why)
    return Seen(at=now, flag=observed)


def _unmoved(run: Run, action: Action, text: str) -> Decision:
    return Decision(
        action=action, cause="user", text=text, stage=run.stage, exposure=run.exposure, audience=run.audience
    )
