"""Desired against observed: is the flag as committed, still settling, or was it changed behind our back?

The lower of the two wins until a person decides. A re-apply may raise only while a committed raise is
unconfirmed and the provider shows exactly the state that was confirmed before it. Unknown never raises.
"""

from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from controller.domain.flag import FlagState, Observation, Unknown
from controller.domain.plan import RolloutPlan
from controller.domain.quantities import exposure_text
from controller.domain.rollout import Run

Difference = Literal["none", "unread", "settling", "apply_again", "turn_on", "too_high", "too_low", "awaited"]
"""`awaited`: the flag is only observed, and people serve less than Rampart would have by now."""


class Convergence(Struct, frozen=True, kw_only=True):
    """`exposure` and `audience` are what is to be desired from now on when the difference is too_high/too_low.

    `altered` says what of the flag that is not ours nobody accepted, and is empty when there is nothing. It may
    come with any difference. We cannot take it away, so it only pauses.
    """

    difference: Difference
    text: str
    exposure: int = 0
    audience: bool = False
    altered: str = ""


def converge(
    run: Run, plan: RolloutPlan, observed: Observation, *, seconds_since_apply: float, settle_seconds: float
) -> Convergence:
    """`seconds_since_apply` is monotonic, since this holder last wrote (0 right after taking the run over)."""
    if isinstance(observed, Unknown):
        return Convergence(difference="unread", text=f"the provider could not be read: {observed.why}")
    if plan.spec.mode == "observe":
        return _watched(run, observed)
    found = _difference(run, plan, observed, seconds_since_apply >= settle_seconds)
    return replace(found, altered=_altered(run, plan, observed))


def _watched(run: Run, observed: FlagState) -> Convergence:
    shown = observed.effective_exposure
    text = f"people serve it to {exposure_text(shown)}"
    return Convergence(difference="none" if shown >= run.exposure else "awaited", text=text)


def _difference(run: Run, plan: RolloutPlan, observed: FlagState, waited: bool) -> Convergence:
    if _as_desired(run, plan, observed):
        return Convergence(difference="none", text="the provider shows what was committed")
    if not run.confirmed and run.phase != "pending":  # before its start a run has nothing that could settle
        unconfirmed = _unconfirmed(run, plan, observed, waited=waited)
        if unconfirmed is not None:
            return unconfirmed
    return _drifted(run, plan, observed)


def _audience(plan: RolloutPlan) -> frozenset[str]:
    return frozenset(rule.name for rule in plan.spec.audience.always)


def _wanted(run: Run, plan: RolloutPlan) -> frozenset[str]:
    return _audience(plan) if run.audience else frozenset()


def _as_desired(run: Run, plan: RolloutPlan, observed: FlagState) -> bool:
    if run.exposure == 0 and not run.audience:
        return not observed.enabled or (observed.exposure == 0 and not observed.audience)
    return observed.enabled and _configured(run, plan, observed)


def _configured(run: Run, plan: RolloutPlan, observed: FlagState) -> bool:
    return observed.exposure == run.exposure and frozenset(observed.audience) == _wanted(run, plan)


def _unconfirmed(run: Run, plan: RolloutPlan, observed: FlagState, *, waited: bool) -> Convergence | None:
    """A committed step that was not read back yet. None: it is neither the old state nor the new one."""
    may_rise = run.phase == "progressing"
    if may_rise and not run.turned_on and _configured(run, plan, observed):
        return Convergence(difference="turn_on", text="weights and rules were read back; the flag is still off")
    if _as_confirmed_before(run, plan, observed):
        if not waited:
            return Convergence(difference="settling", text="waiting for the provider to show the change")
        rises = run.exposure > observed.effective_exposure or (run.audience and not run.confirmed_audience)
        if rises and not may_rise:
            return None
        return Convergence(difference="apply_again", text="the provider still shows the state before the change")
    if not waited and observed.effective_exposure <= max(run.exposure, run.confirmed_exposure or 0):
        return Convergence(difference="settling", text="waiting for the provider to show the change")
    return None


def _as_confirmed_before(run: Run, plan: RolloutPlan, observed: FlagState) -> bool:
    if not run.turned_on:
        # Before the first turn-on nobody may have the rollout variation: off, or on at 0 % without our rules.
        return not observed.enabled or (observed.exposure == 0 and not observed.audience)
    audience = _audience(plan) if run.confirmed_audience else frozenset()
    before = run.confirmed_exposure or 0
    return observed.enabled and observed.exposure == before and frozenset(observed.audience) == audience


def _drifted(run: Run, plan: RolloutPlan, observed: FlagState) -> Convergence:
    shows = exposure_text(observed.exposure) if observed.enabled else "off"
    extra = frozenset(observed.audience) - _wanted(run, plan)
    difference: Difference = "too_low"
    if observed.effective_exposure > run.exposure or (observed.enabled and extra):
        difference = "too_high"
    audience = run.audience and observed.enabled and frozenset(observed.audience) >= _wanted(run, plan)
    return Convergence(
        difference=difference,
        text=f"the provider shows {shows}{_rules(observed)}; committed is {exposure_text(run.exposure)}"
        + latest_change(observed),
        exposure=min(run.exposure, observed.effective_exposure),
        audience=audience,
    )


def _rules(observed: FlagState) -> str:
    return f" with the audience rules {', '.join(observed.audience)}" if observed.audience else ""


def _altered(run: Run, plan: RolloutPlan, observed: FlagState) -> str:
    """What decides beside the share who is served, and was not accepted. Unread is not changed."""
    accepted = run.accepted
    if accepted is None:
        return ""
    found = [f"{one} appeared" for one in observed.foreign if one not in accepted.foreign]
    if run.confirmed:  # until then it may be our own write that replaced it
        found += [f"{one} is gone" for one in accepted.foreign if one not in observed.foreign]
    if observed.off_serves != accepted.off_serves and observed.off_serves not in (None, plan.spec.serve.fallback):
        found.append(f'when off it serves "{observed.off_serves}" now')
    if accepted.bucketing and observed.bucketing and accepted.bucketing != observed.bucketing:
        found.append(
            "it is decided otherwise now who is in the share (order of variations, salt, seed or attribute)"
        )
    return "; ".join(found) + latest_change(observed) if found else ""


def latest_change(observed: FlagState) -> str:
    """`, last changed by dana at 2026-11-18 12:03:07 UTC`, as far as the provider tells."""
    by = f" by {observed.changed_by}" if observed.changed_by else ""
    at = f" at {observed.changed_at:%Y-%m-%d %H:%M:%S} UTC" if observed.changed_at else ""
    return f", last changed{by}{at}" if by or at else ""
