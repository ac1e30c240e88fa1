"""What an apply means beyond the text: to the runs under way, and beside what the providers show.

It asks and tells; whoever applies decides.
"""

import math
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence, Set

from msgspec import Struct
from msgspec.structs import replace

from controller.domain import adoption
from controller.domain.binding import bind_all
from controller.domain.catalogue import PlanRevision, PolicyRevision
from controller.domain.convergence import converge
from controller.domain.flag import FlagState, Observation, Unknown
from controller.domain.plan import FlagRef, RolloutPlan
from controller.domain.policy import GuardrailPolicy
from controller.domain.rollout import NOT_STARTED, Observations, Run
from controller.domain.status import Change, FlagOutlook, RunOutlook
from controller.errors import Invalid, Refused
from controller.manifests.diff import diff
from controller.ports import Store

Observe = Callable[[Collection[FlagRef]], Awaitable[Mapping[FlagRef, Observation]]]

MOST_RUNS = 100
"""Of which it is told what an adoption would do; a policy may be used by thousands."""


class Newest(Struct, frozen=True, kw_only=True):
    """Everything as it stands once it was applied, by name."""

    plans: Mapping[str, PlanRevision]
    policies: Mapping[str, PolicyRevision]

    def used_by(self, plan: RolloutPlan) -> dict[str, PolicyRevision]:
        """Without those that cannot be read from the database."""
        names = [use.policy for use in plan.spec.guardrails]
        return {name: self.policies[name] for name in names if name in self.policies}


class Situation(Struct, frozen=True, kw_only=True):
    """What is going on: active runs, and the ids of the kills in force by flag."""

    runs: Sequence[tuple[Run, Observations]]
    kills: Mapping[FlagRef, Sequence[str]]

    def run_of(self, flag: FlagRef) -> Run | None:
        return next((run for run, _ in self.runs if run.flag == flag), None)


def behind(newest: Newest, situation: Situation, names: Set[str]) -> list[tuple[Run, Observations]]:
    """Active runs that follow other revisions than the newest, of plans or policies among `names`."""
    return [
        (run, observations)
        for run, observations in situation.runs
        if run.plan in newest.plans
        and names & {run.plan, *run.policy_revisions, *_uses(newest.plans[run.plan].plan)}
        and not _follows(run, newest)
    ]


def _uses(plan: RolloutPlan) -> set[str]:
    return {use.policy for use in plan.spec.guardrails}


def _follows(run: Run, newest: Newest) -> bool:
    plan = newest.plans[run.plan]
    revisions = {name: one.revision for name, one in newest.used_by(plan.plan).items()}
    return (plan.revision, revisions) == (run.plan_revision, run.policy_revisions)


class Preview:
    """`observe` asks the providers, each under its own deadline."""

    def __init__(self, store: Store, observe: Observe) -> None:
        self._store = store
        self._observe = observe

    # — runs —

    async def of_runs(self, runs: Sequence[tuple[Run, Observations]], newest: Newest) -> list[RunOutlook]:
        """What they would take up, and what adopting it would do to them. Raises StoreUnavailable."""
        policies: dict[tuple[str, int], GuardrailPolicy | None] = {}
        return [await self._outlook(run, seen, newest, policies) for run, seen in runs[:MOST_RUNS]]

    async def _outlook(
        self,
        run: Run,
        observations: Observations,
        newest: Newest,
        policies: dict[tuple[str, int], GuardrailPolicy | None],
    ) -> RunOutlook:
        pinned = await self._followed(run)
        for pin in run.policy_revisions.items():
            if pin not in policies:
                policies[pin] = await self._policy(*pin)
        followed = {name: policies[name, number] for name, number in run.policy_revisions.items()}
        if pinned is None or None in followed.values():
            return _outlook_of(run, "", [], obstacles=["what it follows cannot be read from the database"])
        before = {name: one for name, one in followed.items() if one is not None}
        return _compared(run, observations, (pinned, before), newest)

    async def _followed(self, run: Run) -> RolloutPlan | None:
        """None when it cannot be read: a preview says so, and keeps nobody from applying."""
        try:
            found = await self._store.plan(run.plan, run.plan_revision)
        except Refused:
            return None
        return found.plan if found else None

    async def _policy(self, name: str, revision: int) -> GuardrailPolicy | None:
        try:
            found = await self._store.policy(name, revision)
        except Refused:
            return None
        return found.policy if found else None

    # — flags —

    async def of_flags(
        self, plans: Sequence[RolloutPlan], situation: Situation, *, coming: Collection[FlagRef]
    ) -> list[FlagOutlook]:
        """Beside each plan what its provider shows. `coming` are those that are not there before."""
        flags = [plan.spec.flag for plan in plans]
        shown = await self._observe([flag for flag in flags if flag not in coming])
        return [await self._flag(plan, shown.get(plan.spec.flag), situation) for plan in plans]

    async def _flag(self, plan: RolloutPlan, shown: Observation | None, situation: Situation) -> FlagOutlook:
        flag, run = plan.spec.flag, situation.run_of(plan.spec.flag)
        name = plan.metadata.name
        told = FlagOutlook(
            plan=name,
            flag=flag,
            on_kill=plan.spec.serve.kill,
            run=run.id if run else None,
            committed=run.exposure if run else None,
        )
        kills = [
            f"a kill holds it down ({kill}): no start before `rampart reset {name}`"
            for kill in situation.kills.get(flag, ())
        ]
        match shown:
            case None:
                return _with(told, unread="it is not there yet: these files create it, off", findings=kills)
            case Unknown(why=why):
                return _with(told, unread=why, findings=kills)
        followed = await self._followed(run) if run else None
        return _with(
            told,
            enabled=shown.enabled,
            exposure=shown.exposure,
            audience=list(shown.audience),
            foreign=list(shown.foreign),
            findings=[*kills, *_findings(plan, run, followed, shown)],
        )


def _with(told: FlagOutlook, **fields: object) -> FlagOutlook:
    return replace(told, **fields)


def _findings(plan: RolloutPlan, run: Run | None, followed: RolloutPlan | None, shown: FlagState) -> Iterable[str]:
    serve = plan.spec.serve
    if shown.off_serves is not None and shown.off_serves != serve.fallback:
        yield f'when off it serves "{shown.off_serves}", and the fallback of the plan is "{serve.fallback}"'
    if run is None:
        if shown.enabled and (shown.exposure or shown.audience) and plan.spec.mode == "enforce":
            yield f"it serves {serve.rollout} already: no start before it is off, or at 0 % without our rules"
        return
    if run.plan != plan.metadata.name:
        yield f"{run.id}, of another plan, turns it now: no start before that has ended"
    if followed is not None:
        found = converge(run, followed, shown, seconds_since_apply=0.0, settle_seconds=math.inf)
        if found.difference in ("too_high", "too_low"):
            yield f"it is not as {run.id} left it: {found.text}"
        if found.altered:
            yield f"nobody has accepted this for {run.id} yet: {found.altered}"


def _compared(
    run: Run,
    observations: Observations,
    before: tuple[RolloutPlan, Mapping[str, GuardrailPolicy]],
    newest: Newest,
) -> RunOutlook:
    plan, policies = before
    coming = newest.plans[run.plan]
    stage = plan.spec.stages[run.stage].name if run.stage != NOT_STARTED else ""
    changes = diff(plan, coming.plan)
    used = newest.used_by(coming.plan)
    for name, one in used.items():
        changes += diff(policies.get(name), one.policy)
    obstacles = adoption.obstacles(run, plan, coming.plan)
    obstacles += [f"the policy {name} cannot be read" for name in sorted(_uses(coming.plan) - used.keys())]
    if obstacles:
        return _outlook_of(run, stage, changes, obstacles=obstacles)
    try:
        old = bind_all(plan, policies)
        new = bind_all(coming.plan, {name: one.policy for name, one in used.items()})
    except Invalid as error:
        return _outlook_of(run, stage, changes, obstacles=[str(error)])
    because = adoption.second_person_because(run, (plan, old), (coming.plan, new))
    return _outlook_of(
        run,
        stage,
        changes,
        second_person=because,
        authors=sorted(adoption.authors_of_change(run, coming, used)) if because else [],
        consequences=adoption.consequences(run, plan, (coming.plan, new), observations),
    )


def _outlook_of(run: Run, stage: str, changes: list[Change], **about_adopting: list[str]) -> RunOutlook:
    return RunOutlook(
        run=run.id,
        plan=run.plan,
        environment=run.flag.environment,
        phase=run.phase,
        stage=stage,
        exposure=run.exposure,
        plan_revision=run.plan_revision,
        policy_revisions=run.policy_revisions,
        changes=changes,
        **about_adopting,
    )
