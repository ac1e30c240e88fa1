"""Accumulators, not stopwatches: bake, `for`, silence and approval waits, from one tick to the next.

Every step adds `elapsed`: monotonic seconds since the previous tick of the same holder, never more than twice
the polling interval and zero for a new holder. So neither a suspended process nor a clock jump adds a second.
"""

from collections.abc import Collection, Sequence

from msgspec.structs import replace

from controller.domain.binding import Guardrail
from controller.domain.evidence import Outcome, Verdict
from controller.domain.rollout import Observations, Run, Timer

CLEARING: frozenset[Outcome] = frozenset({"pass", "not_applicable"})


def countable(elapsed: float, every: float) -> float:
    """What a tick may add, in seconds: min(elapsed, 2 × every), and nothing for a clock that went back."""
    return min(max(elapsed, 0.0), 2 * every)


def settling_seconds(guardrails: Sequence[Guardrail]) -> float:
    """The longest window: until it has passed since the confirmation, some window reaches behind the change."""
    return max(guardrail.window_seconds for guardrail in guardrails)


def required(verdicts: Sequence[Verdict]) -> list[Verdict]:
    return [verdict for verdict in verdicts if verdict.enforced]


def all_pass(verdicts: Sequence[Verdict]) -> bool:
    """At least one real pass, and nothing but passes: unknowns never add up to one."""
    outcomes = {verdict.outcome for verdict in required(verdicts)}
    return "pass" in outcomes and outcomes <= CLEARING


def accumulate(
    before: Observations,
    *,
    run: Run,
    guardrails: Sequence[Guardrail],
    verdicts: Sequence[Verdict],
    elapsed: float,
    schedule_open: bool,
) -> Observations:
    """The accumulators after one tick with these verdicts. `elapsed` has been through `countable`."""
    windows = {guardrail.policy: guardrail.window_seconds for guardrail in guardrails}
    settled = run.confirmed and before.since_confirmed >= settling_seconds(guardrails)
    baking = settled and run.phase == "progressing" and all_pass(verdicts)
    asking = run.approval is not None and run.approval.granted_at is None and schedule_open
    return replace(
        before,
        run_version=run.version,
        since_confirmed=before.since_confirmed + (elapsed if run.confirmed else 0.0),
        bake=before.bake + (elapsed if baking else 0.0),
        requests=before.requests + (elapsed * request_rate(guardrails, verdicts) if settled else 0.0),
        approval_wait=before.approval_wait + (elapsed if asking else 0.0),
        breached=_breach_timers(before, run, verdicts, windows, elapsed),
        silent=_unknown_timers(before.silent, guardrails, verdicts, {"no_data"}, elapsed),
        failing=_unknown_timers(before.failing, guardrails, verdicts, {"error"}, elapsed),
    )


def request_rate(guardrails: Sequence[Guardrail], verdicts: Sequence[Verdict]) -> float:
    """Treated requests per second: the smallest that any required rule saw, so that it never flatters."""
    windows = {guardrail.policy: guardrail.window_seconds for guardrail in guardrails}
    rates = [v.sample / windows[v.policy] for v in required(verdicts) if v.sample is not None]
    return min(rates, default=0.0)


def _breach_timers(
    before: Observations, run: Run, verdicts: Sequence[Verdict], windows: dict[str, float], elapsed: float
) -> dict[str, Timer]:
    timers: dict[str, Timer] = {}
    for verdict in verdicts:
        # After a change of exposure the window still shows the time before it; only kills may act on that.
        behind = not run.confirmed or before.since_confirmed < windows[verdict.policy]
        if verdict.then != "kill" and behind:
            continue
        timer = _step(before.breached.get(verdict.id), verdict.outcome, {"breach"}, elapsed)
        if timer is not None:
            timers[verdict.id] = timer
    return timers


def _unknown_timers(
    before: dict[str, Timer],
    guardrails: Sequence[Guardrail],
    verdicts: Sequence[Verdict],
    counted: Collection[Outcome],
    elapsed: float,
) -> dict[str, Timer]:
    timers: dict[str, Timer] = {}
    for guardrail in guardrails:
        outcomes = [v.outcome for v in required(verdicts) if v.policy == guardrail.policy]
        worst = next((outcome for outcome in outcomes if outcome in counted), None)
        unclear: Outcome = next((outcome for outcome in outcomes if outcome in ("error", "no_data")), "pass")
        timer = _step(before.get(guardrail.policy), worst or unclear, counted, elapsed)
        if timer is not None:
            timers[guardrail.policy] = timer
    return timers


def _step(timer: Timer | None, outcome: Outcome, counted: Collection[Outcome], elapsed: float) -> Timer | None:
    """A counted outcome adds the time since the last tick if that counted too; a pass clears; else suspended."""
    if outcome in counted:
        running = timer is not None and timer.running
        return Timer((timer.seconds if timer else 0.0) + (elapsed if running else 0.0), running=True)
    if outcome in CLEARING or timer is None:
        return None
    return Timer(timer.seconds, running=False)


def after_exposure_change(before: Observations) -> Observations:
    """Bake and requests start anew; kill timers go on, the others restart once a window has passed."""
    return Observations(breached=before.breached, seen=before.seen)


def after_confirmation(before: Observations) -> Observations:
    """Time since the confirmation starts now. Unknown timers restart: the change has its own grace."""
    return replace(before, since_confirmed=0.0, bake=0.0, requests=0.0, silent={}, failing={})
