"""Every plan, as it would start or as its run goes on: flag, people to tell, policies, and what is measured.

However many plans there are, each provider is read once, each source is asked once, and of series only those are
looked at that differ in more than the flag.
"""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

import structlog
from msgspec import Struct

from controller.doctor import measures
from controller.doctor.findings import answer_or, failed, fine, risky
from controller.doctor.measures import Ask
from controller.domain.assess import metrics_used, nobody_treated
from controller.domain.binding import Guardrail, bind
from controller.domain.catalogue import ActiveKill, PlanRevision
from controller.domain.evidence import Examination, Examined, Question, Reading
from controller.domain.flag import FlagState, Observation, Unknown
from controller.domain.plan import FlagRef, RolloutPlan
from controller.domain.policy import GuardrailPolicy
from controller.domain.quantities import FULL_EXPOSURE, exposure_text
from controller.domain.rollout import Run
from controller.domain.status import Check
from controller.errors import Invalid, NotFound
from controller.ports import FlagProvider, Store
from controller.settings import Settings
from controller.sources.kinds import Source

log = structlog.get_logger()

EXAMINED_AT_MOST = 40
"""Questions whose series are looked at, of one source in one examination."""


class Case(Struct, frozen=True, kw_only=True):
    """One plan with what it is pinned to while its run is active. `over`: its latest run is completed."""

    plan: RolloutPlan
    run: Run | None
    over: bool
    kills: tuple[str, ...]
    guardrails: tuple[Guardrail, ...]
    problems: tuple[Check, ...]

    @property
    def name(self) -> str:
        return f"plan {self.plan.metadata.name}"

    @property
    def flag(self) -> FlagRef:
        return self.plan.spec.flag

    @property
    def asks(self) -> list[Ask]:
        """What must be known for the run to go on, or for one to start."""
        if self.over:
            return []
        serve, sides = self.plan.spec.serve, []
        if self.run is not None and not nobody_treated(self.run):
            sides.append((serve.rollout, True))
        if self.run is None or self.run.exposure < FULL_EXPOSURE:
            sides.append((serve.fallback, False))
        return [
            Ask(guardrail=guardrail, metric=metric, variation=variation, exposed=exposed)
            for guardrail in self.guardrails
            for metric in metrics_used(guardrail)
            for variation, exposed in sides
        ]


class Seen(Struct, frozen=True, kw_only=True):
    """What looking outside brought back, for all plans together. `silent` sources answered nothing at all."""

    flags: Mapping[FlagRef, Observation]
    readings: Mapping[tuple[str, Question], Reading]
    examined: Mapping[str, Examined]
    silent: Collection[str]


class Plans:
    def __init__(
        self,
        *,
        store: Store,
        sources: Mapping[str, Source],
        providers: Mapping[str, FlagProvider],
        settings: Settings,
    ) -> None:
        self._store = store
        self._sources = sources
        self._providers = providers
        self._settings = settings

    async def examine(self, names: Collection[str]) -> tuple[list[Check], Mapping[str, Examined]]:
        """What is wrong with these plans (all, when none is named), and what the sources showed meanwhile.

        Raises NotFound for a name that is no plan's, StoreUnavailable when the database does not answer.
        """
        cases = await self._cases(names)
        seen = await self._look(cases)
        guarded = await asyncio.gather(*(self._guarded(case, seen) for case in cases))
        return [check for checks in guarded for check in checks], seen.examined

    # — what is stored —

    async def _cases(self, names: Collection[str]) -> list[Case]:
        revisions = {one.plan.metadata.name: one for one in await self._store.plans()}
        unknown = sorted(set(names) - revisions.keys())
        if unknown:
            raise NotFound(f'there is no plan "{unknown[0]}"; there are: {", ".join(revisions) or "none"}')
        policies = {one.policy.metadata.name: one.policy for one in await self._store.policies()}
        runs = {run.plan: run for run, _ in await self._store.latest_runs()}
        kills = await self._store.active_kills()
        wanted = [one for name, one in revisions.items() if not names or name in names]
        return [await self._case(one, runs.get(one.plan.metadata.name), policies, kills) for one in wanted]

    async def _case(
        self,
        revision: PlanRevision,
        latest: Run | None,
        policies: Mapping[str, GuardrailPolicy],
        kills: Sequence[ActiveKill],
    ) -> Case:
        run = latest if latest is not None and latest.active else None
        plan, pinned = revision.plan, dict(policies)
        if run is not None:
            followed = revision if run.plan_revision == revision.revision else None
            followed = followed or await self._store.plan(run.plan, run.plan_revision)
            plan = followed.plan if followed else plan
            pinned |= await self._pinned(run)
        guardrails, problems = _bound(plan, pinned)
        return Case(
            plan=plan,
            run=run,
            over=latest is not None and latest.phase == "completed",
            kills=tuple(one.kill.id for one in kills if one.kill.flag == plan.spec.flag),
            guardrails=guardrails,
            problems=problems,
        )

    async def _pinned(self, run: Run) -> dict[str, GuardrailPolicy]:
        found = {name: await self._store.policy(name, number) for name, number in run.policy_revisions.items()}
        return {name: one.policy for name, one in found.items() if one is not None}

    # — what is outside —

    async def _look(self, cases: Sequence[Case]) -> Seen:
        asked: dict[str, dict[Question, None]] = {name: {} for name in self._sources}
        for case in cases:
            for ask in case.asks:
                asked.setdefault(ask.guardrail.source, {})[ask.question] = None
        known = {name: list(several) for name, several in asked.items() if name in self._sources}
        observing = asyncio.ensure_future(self._observe({case.flag for case in cases}))
        measured = await asyncio.gather(*(self._measure(name, questions) for name, questions in known.items()))
        by_source = dict(zip(known, measured, strict=True))
        readings = {
            (name, question): reading for name, some in by_source.items() for question, reading in some.items()
        }
        representatives = _representatives(cases, readings)
        examined = await asyncio.gather(*(self._examine(name, representatives[name]) for name in known))
        silent = {name for name, some in by_source.items() if some and all(one.failure for one in some.values())}
        return Seen(
            flags=await observing,
            readings=readings,
            examined=dict(zip(known, examined, strict=True)),
            silent=silent,
        )

    async def _observe(self, flags: Collection[FlagRef]) -> Mapping[FlagRef, Observation]:
        by_provider: dict[str, list[FlagRef]] = defaultdict(list)
        for flag in flags:
            by_provider[flag.provider].append(flag)
        known = {name: several for name, several in by_provider.items() if name in self._providers}
        states = await asyncio.gather(*(self._states(name, several) for name, several in known.items()))
        return {flag: state for some in states for flag, state in some.items()}

    async def _states(self, provider: str, flags: Sequence[FlagRef]) -> Mapping[FlagRef, Observation]:
        def unknown(why: str) -> Mapping[FlagRef, Observation]:
            return dict.fromkeys(flags, Unknown(why))

        return await answer_or(provider, self._providers[provider].observe(flags), unknown)

    async def _measure(self, source: str, questions: Sequence[Question]) -> Mapping[Question, Reading]:
        def unanswered(why: str) -> Mapping[Question, Reading]:
            return dict.fromkeys(questions, Reading(query="", failure=why))

        return await answer_or(source, self._sources[source].measure(questions), unanswered)

    async def _examine(self, source: str, questions: Sequence[Question]) -> Examined:
        def unseen(why: str) -> Examined:
            return Examined(found=dict.fromkeys(questions, Examination(failure=why)))

        return await answer_or(source, self._sources[source].examine(questions), unseen)

    # — what it means —

    async def _guarded(self, case: Case, seen: Seen) -> Sequence[Check]:
        """One plan that cannot be thought about must not hide the others."""
        try:
            return await self._checks(case, seen)
        except Exception as error:
            log.exception("check_failed", check=case.name)
            fix = "see check_failed in the server's log"
            return [failed(case.name, f"looking at it failed with {type(error).__name__}", fix)]

    async def _checks(self, case: Case, seen: Seen) -> list[Check]:
        found = [*case.problems, *await self._flag(case, seen.flags), *self._people(case)]
        answered, unmeasured = self._measured(case, seen)
        found += unmeasured
        if found:
            return found
        state = seen.flags[case.flag]
        parts = [f"{case.flag} {_shown(state)}", *measures.summary(answered)]
        if case.over:
            parts.append("completed: nothing is watched any more")
        return [fine(case.name, "; ".join(parts))]

    async def _flag(self, case: Case, flags: Mapping[FlagRef, Observation]) -> list[Check]:
        flag, serve = case.flag, case.plan.spec.serve
        provider = self._providers.get(flag.provider)
        if provider is None:
            fix = f"add [providers.{flag.provider}] to rampart.toml, or name another in the plan"
            return [failed(case.name, f'the settings know no provider "{flag.provider}"', fix)]
        mend = "mend the flag at the provider, or the plan and apply it again"
        objections = await answer_or(flag.provider, provider.objections(case.plan), lambda why: [why])
        found = [failed(case.name, objection, mend) for objection in objections]
        state = flags.get(flag, Unknown("the provider did not answer for it"))
        if isinstance(state, Unknown):
            return found or [failed(case.name, f"{flag} cannot be read: {state.why}", mend)]
        if not found and state.off_serves not in (None, serve.fallback):
            detail = (
                f'{flag} serves "{state.off_serves}" when it is off; the plan\'s fallback is "{serve.fallback}"'
            )
            found.append(failed(case.name, detail, f'let the flag serve "{serve.fallback}" when it is off'))
        if state.foreign:
            detail = f"{flag} has what is not Rampart's: {', '.join(state.foreign)}"
            fix = "whoever it matches is in no share, and no stage changes that; remove it unless it is meant so"
            found.append(risky(case.name, detail, fix))
        if case.kills:
            detail = f"{flag} is killed ({', '.join(case.kills)}): nothing raises it"
            fix = "when the cause is mended: rampart reset; a new start is a new run"
            found.append(risky(case.name, detail, fix))
        return found

    def _people(self, case: Case) -> list[Check]:
        spec, found = case.plan.spec, []
        if not spec.notify:
            detail = "nobody is told when it pauses or is killed"
            found.append(risky(case.name, detail, "add notify: [{ to: CHANNEL }] to the plan"))
        for name in sorted({notify.to for notify in spec.notify} - self._settings.channels.keys()):
            fix = f"add [channels.{name}] to rampart.toml, or name another in the plan"
            found.append(failed(case.name, f'the settings know no channel "{name}" that it wants to tell', fix))
        for stage in spec.stages:
            groups = stage.approval.from_ if stage.approval else []
            if groups and not any(self._settings.groups.get(name) for name in groups):
                detail = (
                    f"stage {stage.name} needs an approval from {' or '.join(groups)}, and there is nobody in it"
                )
                fix = f"list its members in rampart.toml: [groups] {groups[0]} = [TOKEN NAMES]"
                found.append(failed(case.name, detail, fix))
        return found

    def _measured(self, case: Case, seen: Seen) -> tuple[dict[str, list[tuple[Ask, Reading]]], list[Check]]:
        answered: dict[str, list[tuple[Ask, Reading]]] = defaultdict(list)
        found: list[Check] = [
            failed(
                case.name,
                f'the settings know no source "{name}" that {policy} measures with',
                f"add [sources.{name}] to rampart.toml, or name another in the policy",
            )
            for policy, name in _missing_sources(case.guardrails, self._sources)
        ]
        for name in sorted({ask.guardrail.source for ask in case.asks} & set(seen.silent)):
            found.append(
                failed(case.name, f"source {name} answers none of its questions", f"see source {name} above")
            )
        for ask in case.asks:
            reading = seen.readings.get((ask.guardrail.source, ask.question))
            if reading is None or ask.guardrail.source in seen.silent:
                continue
            checks = _of_one(case, ask, reading, seen.examined[ask.guardrail.source])
            found += checks
            if not checks:
                answered[ask.guardrail.policy].append((ask, reading))
        return answered, list(dict.fromkeys(found))


def _of_one(case: Case, ask: Ask, reading: Reading, examined: Examined) -> list[Check]:
    problem = measures.silence(case.name, ask, reading)
    if case.run is None and (problem is None or problem.state != "fail"):
        # A first stage needs more than enough for the control: its share of that is to be enough.
        problem = measures.small_stage(case.name, ask, case.plan, reading)
    found = [problem] if problem is not None else []
    examination = examined.found.get(ask.question)
    if examination is not None:
        found += measures.looked_at(case.name, ask, case.plan, examination)
    return found


def _bound(
    plan: RolloutPlan, policies: Mapping[str, GuardrailPolicy]
) -> tuple[tuple[Guardrail, ...], tuple[Check, ...]]:
    name = f"plan {plan.metadata.name}"
    guardrails, problems = [], []
    for use in plan.spec.guardrails:
        policy = policies.get(use.policy)
        if policy is None:
            problems.append(failed(name, f'no policy is called "{use.policy}"', "apply the policy's file, too"))
            continue
        try:
            guardrails.append(bind(use, policy, plan))
        except Invalid as error:
            problems.append(failed(name, str(error), "mend the plan or the policy and apply it again"))
    return tuple(guardrails), tuple(problems)


def _missing_sources(guardrails: Iterable[Guardrail], sources: Collection[str]) -> list[tuple[str, str]]:
    return [(one.policy, one.source) for one in guardrails if one.source not in sources]


def _representatives(
    cases: Sequence[Case], readings: Mapping[tuple[str, Question], Reading]
) -> Mapping[str, list[Question]]:
    """By source: questions with an answer, one for each metric and set of parameters, of the exposed if any.

    Who exports a series, and how often, depends on the service that the parameters name, not on the flag.
    """
    chosen: dict[tuple[object, ...], tuple[str, Ask]] = {}
    for case in cases:
        for ask in case.asks:
            guardrail = ask.guardrail
            reading = readings.get((guardrail.source, ask.question))
            if reading is None or reading.total is None:
                continue
            parameters = tuple(sorted((k, v) for k, v in guardrail.values.items() if k != "flag"))
            key = (
                guardrail.source,
                guardrail.policy,
                ask.metric,
                parameters,
                bool(case.plan.spec.audience.always),
            )
            if key not in chosen or (ask.exposed and not chosen[key][1].exposed):
                chosen[key] = (guardrail.source, ask)
    by_source: dict[str, list[Question]] = defaultdict(list)
    for source, ask in chosen.values():
        if len(by_source[source]) < EXAMINED_AT_MOST:
            by_source[source].append(ask.question)
    return by_source


def _shown(state: Observation) -> str:
    if not isinstance(state, FlagState):
        return "is unknown"
    return f"is on at {exposure_text(state.exposure)}" if state.enabled else "is off"
