"""One tick of the runs that are due, and what people command. Both end the same way: commit, then apply.

claim → measure and observe → judge → decide → commit → apply → (next tick) observe. No verdict is made here, no
foreign call is made inside a transaction, and nothing is applied whose commit is in doubt.
"""

import asyncio
import math
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

import structlog
from msgspec import Struct
from msgspec.structs import replace

from controller.breaker import Ask
from controller.domain.assess import Inputs, assess_and_decide, poll_seconds
from controller.domain.binding import Guardrail, bind_all
from controller.domain.catalogue import Claim, Transition
from controller.domain.consequences import (
    audit_entry,
    basis,
    carried,
    comment_of,
    observations_after,
    share_of_run,
    stage_name,
    state_after,
)
from controller.domain.decide import Decision, Evidence
from controller.domain.explain import run_status
from controller.domain.flag import FlagChange, FlagState, TurnOn, Unknown
from controller.domain.freezes import OrganisationFreeze
from controller.domain.plan import RolloutPlan
from controller.domain.quarantine import quarantined
from controller.domain.rollout import FREEZABLE, RAISING, Observations, Run, Seen
from controller.domain.selection import Raised
from controller.errors import (
    Conflict,
    KillInForce,
    NotAsked,
    ProviderUnavailable,
    RaisesBlocked,
    Refused,
    SourceUnavailable,
    StoreUnavailable,
)
from controller.faultpoints import reach
from controller.freezebook import FreezeBook
from controller.killbook import KillBook
from controller.killer import Killer
from controller.lookout import Looked, Lookout, in_turns
from controller.ports import Clock, FlagProvider, MetricSource, Store
from controller.raised import RaisedBook
from controller.recent import Recent
from controller.settings import EngineSettings
from controller.telemetry import Metrics, without_secrets

log = structlog.get_logger()
T = TypeVar("T")

SETTLING_POLL_SECONDS = 0.5
MOST_BINDINGS = 5000
MISSED_POLLS = 3
STALE_POLLS = 2
"""Evidence older than this many polls at its commit authorises nothing (promise I1)."""


Save = tuple[Claim, Observations, float]
"""What a tick leaves behind, and the seconds until the next one."""


class Memory(Struct, kw_only=True):
    """What this replica remembers of a run it holds: monotonic times mean nothing to anybody else.

    `decision` is the audit entry that its latest write of the flag followed from.
    """

    lease_epoch: int
    ticked: float | None = None
    confirmed: bool = False
    applied: float | None = None
    decision: str = ""


def _rises(run: Run) -> bool:
    """Whether its latest step, not confirmed yet, exposes more than what was confirmed before it."""
    return run.exposure > (run.confirmed_exposure or 0) or (run.audience and not run.confirmed_audience)


def _as_raised(after: Run, action: str, now: datetime) -> Raised:
    return Raised(flag=after.flag, plan=after.plan, run=after.id, action=action, at=now, exposure=after.exposure)


class Reconciler:
    """Holds no truth: everything it knows of a run was claimed from the store a moment ago."""

    def __init__(
        self,
        *,
        owner: str,
        store: Store,
        sources: Mapping[str, MetricSource],
        providers: Mapping[str, FlagProvider],
        killbook: KillBook,
        killer: Killer,
        clock: Clock,
        metrics: Metrics,
        recent: Recent,
        settings: EngineSettings,
        obstacles: Callable[[], tuple[str, ...]],
        acknowledge: Callable[[str], None],
        freezebook: FreezeBook,
        raised: RaisedBook,
        chance: Callable[[], float],
    ) -> None:
        """`obstacles` say why the database lets nothing rise just now; `acknowledge` is told what it recorded."""
        self._owner = owner
        self.store = store
        self.providers = providers
        self.killbook = killbook
        self.killer = killer
        self.clock = clock
        self._metrics = metrics
        self._recent = recent
        self._settings = settings
        self._obstacles = obstacles
        self._acknowledge = acknowledge
        self._freezebook = freezebook
        self._raised = raised
        self.lookout = Lookout(
            sources=sources, providers=providers, clock=clock, metrics=metrics, settings=settings, chance=chance
        )
        self._memory: dict[str, Memory] = {}
        self._last_held: dict[str, Claim] = {}
        self._in_hand: set[str] = set()
        self._claimed: dict[str, tuple[int, float]] = {}
        self._put_off: dict[str, float] = {}
        self._bindings: dict[tuple[object, ...], tuple[Guardrail, ...]] = {}

    # — ticks —

    async def claim(self) -> list[list[Claim]]:
        """Due runs of this replica, in groups that share sources and provider. Raises StoreUnavailable."""
        claimed = self.killbook.mark(), self.clock.monotonic()
        claims = await self.store.claim_due(
            self._owner, limit=self._settings.batch, lease_seconds=self._settings.lease_seconds
        )
        groups: defaultdict[tuple[frozenset[str], str], list[Claim]] = defaultdict(list)
        for claim in claims:
            if claim.run.id not in self._in_hand:
                self._in_hand.add(claim.run.id)
                self._claimed[claim.run.id] = claimed
                sources = frozenset(policy.spec.source for policy in claim.policies)
                groups[sources, claim.run.flag.provider].append(claim)
        return list(groups.values())

    async def renew(self) -> None:
        await self.store.renew(self._owner, lease_seconds=self._settings.lease_seconds)

    async def tick(self, claims: Sequence[Claim]) -> None:
        """One tick of one group. What is wrong with one run is that run's problem (promise I16)."""
        try:
            bound, put_off = await self._bind_each(claims)
            looked = await self.lookout.look([(claim.run, claim.plan, guardrails) for claim, guardrails in bound])
            ticks = [
                asyncio.create_task(self._tick_one(claim, guardrails, looked[claim.run.id]))
                async for claim, guardrails in in_turns(bound)
            ]
            saves = await asyncio.gather(*ticks)
            batch = put_off + [save for save in saves if save is not None]
            if batch:
                await self.store.save_observations(self._owner, batch)
        except StoreUnavailable as error:
            log.warning("tick_not_recorded", runs=len(claims), error=str(error))
        finally:
            self._in_hand.difference_update(claim.run.id for claim in claims)

    async def _bind_each(
        self, claims: Iterable[Claim]
    ) -> tuple[list[tuple[Claim, tuple[Guardrail, ...]]], list[Save]]:
        """Those whose rules could be bound, and what is to be saved of the others."""
        bound, put_off = [], []
        async for claim in in_turns(claims):
            try:
                bound.append((claim, self._bound(claim)))
            except Exception as error:  # noqa: BLE001 - one poisonous plan must not stop the others
                put_off.append(self._quarantine(claim, error))
        return bound, put_off

    def _bound(self, claim: Claim) -> tuple[Guardrail, ...]:
        run = claim.run
        revisions = (run.plan, run.plan_revision, *sorted(run.policy_revisions.items()))
        if revisions in self._bindings:
            return self._bindings[revisions]  # revisions never change
        if len(self._bindings) >= MOST_BINDINGS:
            self._bindings.clear()
        policies = {policy.metadata.name: policy for policy in claim.policies}
        return self._bindings.setdefault(revisions, bind_all(claim.plan, policies))

    # — quarantine —

    def _quarantine(self, claim: Claim, error: Exception, looked: Looked | None = None) -> Save:
        """Nothing of the run is judged until a tick succeeds; everybody is shown so, and it is tried ever less."""
        run, why = claim.run, without_secrets(f"{type(error).__name__}: {error}")
        log.error("tick_failed", run=run.id, error=why, exc_info=error)
        every = min((policy.spec.every_seconds for policy in claim.policies), default=SETTLING_POLL_SECONDS)
        flag = looked.observed if looked and isinstance(looked.observed, FlagState) else None
        observations, put_off = quarantined(
            run, claim.observations, why, now=self.clock.now(), every_seconds=every, flag=flag
        )
        self._put_off[run.id] = self.clock.monotonic() + put_off
        self._last_held[run.id] = replace(claim, observations=observations)
        self._metrics.tick_failed(run.plan)
        self._metrics.quarantined(run.id, run.plan, run.flag.environment)
        return claim, observations, put_off

    def _release(self, run: Run) -> None:
        if self._put_off.pop(run.id, None) is not None:
            log.info("quarantine_ended", run=run.id)
            self._metrics.released(run.id)

    async def _tick_one(self, claim: Claim, guardrails: tuple[Guardrail, ...], looked: Looked) -> Save | None:
        self._last_held[claim.run.id] = claim
        if self.killbook.holds(claim.run.flag):
            return None  # its end is recorded with the kill
        try:
            saved = await self._decide_and_act(claim, guardrails, looked)
        except (Conflict, StoreUnavailable) as error:
            # Nothing was applied. Whoever was first has the word; the next tick starts from what is stored.
            log.info("tick_given_up", run=claim.run.id, error=str(error))
            return None
        except Exception as error:  # noqa: BLE001 - one poisonous run must not stop the others
            return self._quarantine(claim, error, looked)
        self._release(claim.run)
        return saved

    async def _decide_and_act(
        self, claim: Claim, guardrails: tuple[Guardrail, ...], looked: Looked
    ) -> Save | None:
        run, plan = claim.run, claim.plan
        inputs = self._inputs(claim, looked)
        evidence, decision = assess_and_decide(run, plan, guardrails, inputs)
        observations = replace(
            evidence.observations, seen=self._seen(looked, evidence, decision, inputs.now), quarantine=None
        )
        every = poll_seconds(guardrails)
        if decision.action == "hold" or (decision.action in RAISING and self._too_old(looked, every)):
            self._show(run, plan, guardrails, observations)
            await self._apply_again(claim, evidence)
            waiting = evidence.convergence.difference in ("settling", "apply_again", "turn_on")
            return claim, observations, self._check_in(every, looked, waiting=waiting)
        if decision.action == "kill":
            await self._kill(run, plan, decision, basis(run, inputs, evidence))
            return None
        extra = carried(uuid.uuid4().hex, run, plan, guardrails, inputs, decision)
        after = await self.commit_and_apply(
            run,
            plan,
            decision,
            observations,
            actor="rampart",
            lease_epoch=claim.lease_epoch,
            newest_freeze=inputs.newest_freeze,
            extra=extra,
            details=basis(run, inputs, evidence),
        )
        if after.active:
            self._last_held[run.id] = replace(claim, run=after, observations=observations)
        self._show(after, plan, guardrails, observations)
        return None

    def _show(
        self, run: Run, plan: RolloutPlan, guardrails: tuple[Guardrail, ...], observations: Observations
    ) -> None:
        status = run_status(run, plan, guardrails, observations, [])
        self._recent.seen(status, self.clock.now())
        if run.active:
            self._metrics.run_seen(status)
        else:
            self._metrics.run_ended(run.id)

    def _inputs(self, claim: Claim, looked: Looked, *, bake_waived: bool = False) -> Inputs:
        if looked.fault:
            raise looked.fault
        run = claim.run
        memory = self._memory.get(run.id)
        if memory is None or memory.lease_epoch != claim.lease_epoch:
            memory = self._memory[run.id] = Memory(lease_epoch=claim.lease_epoch)
        elapsed = looked.asked_at - memory.ticked if memory.ticked is not None else 0.0
        if run.confirmed and not memory.confirmed:
            elapsed = 0.0  # when it was committed is not known here, and no time before that may count
        memory.ticked, memory.confirmed = looked.asked_at, run.confirmed
        if memory.applied is None:
            memory.applied = looked.asked_at  # a new holder gives the provider its whole settling time again
        return Inputs(
            now=self.clock.now(),
            readings=looked.readings,
            observed=looked.observed,
            observations=claim.observations,
            elapsed=elapsed,
            since_apply=looked.asked_at - memory.applied,
            settle_seconds=self.providers[run.flag.provider].limits.settle_seconds,
            automatic_kills=self.killbook.automatic_kills(self._settings.automatic_kills_window_seconds),
            max_automatic_kills=self._settings.max_automatic_kills,
            obstacles=self._obstacles(),
            freezes=self._freezes(run, claim.plan),
            newest_freeze=self._freezebook.newest,
            bake_waived=bake_waived,
        )

    def _freezes(self, run: Run, plan: RolloutPlan) -> tuple[OrganisationFreeze, ...]:
        """By the labels of the plan as the run follows it, and as it stands now."""
        newest = [known.labels for known in self.killbook.plans_of(run.flag)]
        return self._freezebook.covering(run.flag.environment, plan.metadata.labels, *newest, now=self.clock.now())

    def _too_old(self, looked: Looked, every: float) -> bool:
        return self.clock.monotonic() - looked.asked_at > STALE_POLLS * every

    def _until_next(self, every: float) -> float:
        """Runs of one interval are due at the same instants, so that their questions are asked together."""
        return every - self.clock.now().timestamp() % every

    def _check_in(self, every: float, looked: Looked, *, waiting: bool) -> float:
        """Seconds until the next tick. Who was not asked is not kept waiting for the next poll on top of it."""
        soon = min(every, SETTLING_POLL_SECONDS) if waiting else self._until_next(every)
        return soon if looked.again_in is None else min(soon, max(looked.again_in, SETTLING_POLL_SECONDS))

    def _seen(self, looked: Looked, evidence: Evidence, decision: Decision, now: datetime) -> Seen:
        observed = looked.observed
        return Seen(
            at=now,
            flag=observed if isinstance(observed, FlagState) else None,
            flag_unknown=observed.why if isinstance(observed, Unknown) else "",
            verdicts=evidence.verdicts,
            blocks=decision.blocks,
        )

    # — the tail that ticks and commands share —

    async def commit_and_apply(
        self,
        run: Run,
        plan: RolloutPlan,
        decision: Decision,
        observations: Observations,
        *,
        actor: str,
        lease_epoch: int | None,
        newest_freeze: int = 0,
        extra: Mapping[str, Any] | None = None,
        details: Mapping[str, Any] | None = None,
        entry_id: str = "",
    ) -> Run:
        """Commit the decision; then, and only if that is certain, apply it. Raises what the commit raises.

        `newest_freeze` is of what it was decided with; freezes stand against starts and advances alone.
        """
        now, mark, began = self.clock.now(), self.killbook.mark(), self.clock.monotonic()
        after = state_after(run, decision, now, extra or {})
        moved = (after.exposure, after.audience) != (run.exposure, run.audience)
        changed = moved or decision.action == "lower"  # what rose behind our back is written down again
        anew = changed or (run.confirmed and not after.confirmed)
        entry = audit_entry(entry_id or uuid.uuid4().hex, run, after, decision, actor, now, details or {})
        move = Transition(
            before=run,
            after=after,
            entry=entry,
            raises=decision.action in RAISING,
            newest_freeze=newest_freeze if decision.action in FREEZABLE else None,
            lease_epoch=lease_epoch,
            lease_owner=self._owner if lease_epoch is not None else None,
            observations=observations_after(decision, observations, changed=anew, version=after.version),
        )
        await self._commit(move)
        if move.raises:
            self._raised.note(_as_raised(after, decision.action, now))
        self._acknowledge(entry.id)
        log.info("decided", run=run.id, action=decision.action, cause=decision.cause, reason=decision.text)
        self._metrics.decision(run.plan, run.flag.environment, decision.action, decision.cause)
        memory = self._memory.get(run.id)
        if memory is not None and decision.action == "confirm" and lease_epoch is not None:
            memory.ticked, memory.confirmed = self.clock.monotonic(), True  # the bake begins here
        if changed and plan.spec.mode == "enforce" and decision.action != "take_over":
            if memory is not None:
                memory.decision = entry.id
            change = share_of_run(after, plan, decision.text, decision=entry.id)
            await self._apply(after, change, mark=mark, began=began)
        if not after.active:
            self._forget(run.id)
        return after

    async def _commit(self, move: Transition) -> None:
        """A commit whose answer was lost is looked up, never assumed (promise I8)."""
        reach("commit.before")
        try:
            await self.store.commit(move)
        except StoreUnavailable:
            if await self.store.committed(move.entry.id) is None:
                raise
        reach("commit.after")

    async def _apply(self, run: Run, change: FlagChange, *, mark: int, began: float) -> None:
        """One write, unless a kill came after `mark`. Only the next observation says what the flag is then.

        `began` is when it was decided. What lowers waits for no circuit: it is sent also to a provider that
        does not answer.
        """
        provider, within = run.flag.provider, self._settings.provider_timeout_seconds
        lowers = run.phase == "paused"  # which never rises
        circuit = self.lookout.circuit("provider", provider)
        reach("apply.before")
        try:
            async with (
                circuit.asking([run.flag], within=within, every=within, insist=lowers) as ask,
                self.killer.writing(run.flag, since=mark),
            ):
                if self._decided_too_long_ago(run, began):
                    return
                if memory := self._memory.get(run.id):
                    memory.applied = self.clock.monotonic()
                await self._send(change, ask)
            reach("apply.after")
        except NotAsked as error:
            self._metrics.provider_request(provider, "apply", "not_asked")
            log.warning("not_applied", run=run.id, error=str(error))
        except (ProviderUnavailable, TimeoutError) as error:
            self._metrics.provider_request(provider, "apply", "unknown")
            log.warning("apply_outcome_unknown", run=run.id, error=str(error) or "timed out")
        except (Refused, KillInForce) as error:
            self._metrics.provider_request(provider, "apply", "refused")
            log.warning("apply_refused", run=run.id, error=str(error))
        else:
            self._metrics.provider_request(provider, "apply", "ok")

    def _decided_too_long_ago(self, run: Run, began: float) -> bool:
        """A process that slept since then may no longer hold the run, and whoever does went the other way."""
        ago = self.clock.monotonic() - began
        if ago <= self._settings.lease_seconds / 2:
            return False
        log.warning("apply_too_late", run=run.id, decided_seconds_ago=ago)
        return True

    async def _send(self, change: FlagChange, ask: Ask) -> None:
        try:
            async with asyncio.timeout(self._settings.provider_timeout_seconds):
                await self.providers[change.flag.provider].apply(change)
        except (ProviderUnavailable, TimeoutError) as error:
            ask.heard([], str(error) or "timed out")
            raise
        except Refused:
            ask.heard([change.flag])
            raise
        ask.heard([change.flag])

    async def _apply_again(self, claim: Claim, evidence: Evidence) -> None:
        """May raise, and commits nothing: so the database is asked what its commit would have said."""
        run, plan = claim.run, claim.plan
        mark, claimed_at = self._claimed.get(run.id, (0, -math.inf))
        began = self.clock.monotonic()
        decision = memory.decision if (memory := self._memory.get(run.id)) else ""
        match evidence.convergence.difference:
            case "apply_again":
                change: FlagChange = share_of_run(run, plan, "applied again, it was not seen", decision=decision)
            case "turn_on":
                comment = comment_of(run, plan, "turned on by its start", decision=decision)
                change = TurnOn(flag=run.flag, comment=comment)
            case _:
                return
        if _rises(run):
            try:
                await self.store.check_raise(run, claim.lease_epoch, self._owner)
            except RaisesBlocked as error:
                log.warning("apply_blocked", run=run.id, error=str(error))
                return
        elif began - claimed_at > self._settings.lease_seconds / 2:
            await self._require_present(run)
        await self._apply(run, change, mark=mark, began=began)

    async def _require_present(self, run: Run) -> None:
        """The lease may have gone to another replica, which lowered further. Raises Conflict, StoreUnavailable."""
        found = await self.store.run(run.id)
        if found is None or found[0].version != run.version:
            raise Conflict(f"{run.id} was changed since it was claimed; look again")

    async def _kill(self, run: Run, plan: RolloutPlan, decision: Decision, details: Mapping[str, Any]) -> None:
        await self.killer.kill_flag(
            run.flag,
            actor="rampart",
            reason=decision.text,
            cause="policy",
            run=run.id,
            details={"rule": decision.rule, "stage": stage_name(run, plan), **details},
        )
        self._metrics.decision(run.plan, run.flag.environment, "kill", decision.cause)
        self._forget(run.id)

    def forget_ended(self) -> None:
        """While the database answers: runs that no longer fall due to us leave no series and no memory."""
        now = self.clock.monotonic()
        for run_id, claim in list(self._last_held.items()):
            every = min(policy.spec.every_seconds for policy in claim.policies)
            if self.killbook.holds(claim.run.flag):
                self._metrics.run_ended(run_id)  # what is shown of it is from before the kill
            memory = self._memory.get(run_id)
            put_off_until = self._put_off.get(run_id, 0.0) + self._settings.lease_seconds
            if now < put_off_until and not self.killbook.holds(claim.run.flag):
                continue
            patience = MISSED_POLLS * every + self._settings.lease_seconds
            if memory is None or memory.ticked is None or now - memory.ticked > patience:
                self._forget(run_id)

    def _forget(self, run_id: str) -> None:
        self._memory.pop(run_id, None)
        self._last_held.pop(run_id, None)
        self._claimed.pop(run_id, None)
        self._put_off.pop(run_id, None)
        self._metrics.run_ended(run_id)
        self._metrics.released(run_id)

    # — while the database is away —

    async def tick_blind(self) -> None:
        """Keep judging the kill rules of the runs last held; nothing else may happen (promise I4)."""
        now = self.clock.monotonic()
        claims = [
            claim
            for claim in self._last_held.values()
            if not self.killbook.holds(claim.run.flag) and self._put_off.get(claim.run.id, now) <= now
        ]
        bound, _ = await self._bind_each(claims)
        bound = [(claim, guardrails) for claim, guardrails in bound if self._poll_due(claim.run, guardrails)]
        if not bound:
            return
        looked = await self.lookout.look([(claim.run, claim.plan, guardrails) for claim, guardrails in bound])
        ticks = [
            asyncio.create_task(self._tick_one_blind(claim, guardrails, looked[claim.run.id]))
            async for claim, guardrails in in_turns(bound)
        ]
        await asyncio.gather(*ticks)

    async def _tick_one_blind(self, claim: Claim, guardrails: tuple[Guardrail, ...], looked: Looked) -> None:
        if self.killbook.holds(claim.run.flag):
            return  # killed since we began
        try:
            inputs = self._inputs(claim, looked)
            evidence, decision = assess_and_decide(claim.run, claim.plan, guardrails, inputs)
            observations = replace(evidence.observations, quarantine=None)
            self._last_held[claim.run.id] = replace(claim, observations=observations)
            self._release(claim.run)
            shown = replace(observations, seen=self._seen(looked, evidence, decision, inputs.now))
            self._recent.seen(run_status(claim.run, claim.plan, guardrails, shown, []), inputs.now)
            if decision.action == "kill":
                await self._kill(claim.run, claim.plan, decision, basis(claim.run, inputs, evidence))
        except Exception as error:  # noqa: BLE001 - one poisonous run must not stop the others
            self._quarantine(claim, error, looked)

    def _poll_due(self, run: Run, guardrails: tuple[Guardrail, ...]) -> bool:
        memory = self._memory.get(run.id)
        ticked = memory.ticked if memory else None
        return ticked is None or self.clock.monotonic() - ticked >= poll_seconds(guardrails)

    async def look_at(
        self, run: Run, plan: RolloutPlan, guardrails: tuple[Guardrail, ...], observations: Observations
    ) -> Inputs:
        """One look for a person's command: it adds no time to any accumulator."""
        looked = (await self.lookout.look([(run, plan, guardrails)], insist=True))[run.id]
        if self._too_old(looked, poll_seconds(guardrails)):
            raise SourceUnavailable("what was measured was too old when it came; try again")
        return Inputs(
            now=self.clock.now(),
            readings=looked.readings,
            observed=looked.observed,
            observations=observations,
            elapsed=0.0,
            since_apply=0.0,
            settle_seconds=self.providers[run.flag.provider].limits.settle_seconds,
            automatic_kills=self.killbook.automatic_kills(self._settings.automatic_kills_window_seconds),
            max_automatic_kills=self._settings.max_automatic_kills,
            obstacles=self._obstacles(),
            freezes=self._freezes(run, plan),
            newest_freeze=self._freezebook.newest,
            bake_waived=True,
        )
