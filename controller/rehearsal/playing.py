"""One run from its start to its end, on virtual time: measure, judge, decide, and what follows, tick by tick.

The ticks come when the engine's would: aligned to `every`, and at once after whatever was committed. What a tick
decides is the domain's; here is only what surrounds it, a flag that does as it is told, and people on cue.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from controller.domain.assess import Inputs, judge_all, questions, weigh
from controller.domain.consequences import carried, observations_after, state_after
from controller.domain.convergence import Difference
from controller.domain.decide import Decision, Evidence, decide
from controller.domain.evidence import Question, Reading, Verdict
from controller.domain.flag import FlagState, Observation, ProviderLimits, Unknown
from controller.domain.rollout import NOT_STARTED, Action, Cause, Observations, Phase, Run, ended_by_kill
from controller.domain.sentences import Sentence
from controller.errors import Invalid, RampartError
from controller.rehearsal import people
from controller.rehearsal.script import Script
from controller.rehearsal.world import World

SETTLING_POLL_SECONDS = 0.5
"""How soon the engine looks again after a commit, and while a step is not read back."""


MOST_REASONS = 2


class Happening(Struct, frozen=True, kw_only=True):
    """Something that was decided or ordered. `at` in seconds from the start; the rest is as it was after it.

    `asked` is the stage for which an approval was asked.
    """

    at: float
    action: Action
    cause: Cause
    text: str
    rule: str = ""
    asked: str = ""
    phase: Phase
    stage: str
    exposure: int


class Holding(Struct, frozen=True, kw_only=True):
    """From `at` on the run was kept where it was for these reasons, in the words of `at`; without any it moved."""

    at: float
    codes: frozenset[str] = frozenset()
    texts: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The most urgent reasons; the other ones are but counted."""
        more = len(self.texts) - MOST_REASONS
        return "; ".join(self.texts[:MOST_REASONS]) + (f"; and {more} more" if more > 0 else "")


class Played(Struct, frozen=True, kw_only=True):
    """What came of a case. `ended_at` in seconds; `refused` are the events that could not be carried out."""

    happened: tuple[Happening, ...]
    held: tuple[Holding, ...]
    run: Run
    stage: str
    ended_at: float
    ticks: int
    refused: tuple[tuple[Sentence, str], ...]


class Player:
    def __init__(self, script: Script) -> None:
        self._script = script
        self._plan, self._guardrails = script.plan, script.guardrails
        self._world = World(script)
        self._off = script.plan.spec.serve.fallback
        self._flag = FlagState(enabled=False, exposure=0, off_serves=self._off)
        self._run = Run(
            id=f"{script.plan.metadata.name}#1",
            plan=script.plan.metadata.name,
            number=1,
            plan_revision=1,
            policy_revisions={},
            flag=script.plan.spec.flag,
            author="author",
            started_by="author",
            created_at=script.starts_at,
            status="waiting for a healthy baseline",
        )
        self._observations = Observations()
        self._ticked: float | None = None
        self._applied = 0.0
        self._ticks = 0
        self._happened: list[Happening] = []
        self._held: list[Holding] = []
        self._refused: list[tuple[Sentence, str]] = []
        self._asked: tuple[Run, list[Question]] | None = None
        self._judged: tuple[Run, list[tuple[Question, Reading]], tuple[Verdict, ...]] | None = None

    def play(self) -> Played:
        now = next_tick = 0.0
        cues = sorted((one.at, index) for index, one in enumerate(self._script.events) if one.at is not None)
        while self._run.active:
            on_cue = bool(cues) and cues[0][0] <= next_tick
            now = cues[0][0] if on_cue else next_tick
            if now > self._script.until:
                break
            if on_cue:
                done = self._order(self._script.events[cues.pop(0)[1]], now)
                next_tick = min(next_tick, now) if done else next_tick
            else:
                next_tick = now + self._tick(now)
        for _, index in cues:
            self._refused.append(
                (self._script.events[index], f"the run had ended by then: it is {self._run.phase}")
            )
        return Played(
            happened=tuple(self._happened),
            held=tuple(self._held),
            run=self._run,
            stage=self._stage_name(self._run),
            ended_at=self._script.until if self._run.active else now,
            ticks=self._ticks,
            refused=tuple(self._refused),
        )

    def wall(self, now: float) -> datetime:
        return self._script.starts_at + timedelta(seconds=now)

    # — ticks —

    def _tick(self, now: float) -> float:
        """Judge and decide once. Returns the seconds until the next tick."""
        self._ticks += 1
        elapsed = now - self._ticked if self._ticked is not None else 0.0
        self._ticked = now
        inputs = self._look(now, elapsed)
        evidence, decision = self._decide(inputs)
        if decision.action == "hold":
            self._observations = evidence.observations
            self._note_hold(now, decision)
            waiting = self._apply_again(evidence.convergence.difference, now)
            return min(self._script.poll, SETTLING_POLL_SECONDS) if waiting else self._until_poll(now)
        self._carry_out(now, decision, inputs, evidence)
        return SETTLING_POLL_SECONDS

    def _look(self, now: float, elapsed: float, *, bake_waived: bool = False) -> Inputs:
        if self._asked is None or self._asked[0] is not self._run:
            by_source = questions(self._run, self._plan, self._guardrails)
            self._asked = self._run, [one for several in by_source.values() for one in several]
        return Inputs(
            now=self.wall(now),
            readings=self._world.measure(self._asked[1], now),
            observed=self._observed(now),
            observations=self._observations,
            elapsed=elapsed,
            since_apply=now - self._applied,
            settle_seconds=ProviderLimits().settle_seconds,
            bake_waived=bake_waived,
        )

    def _decide(self, inputs: Inputs) -> tuple[Evidence, Decision]:
        """As `assess_and_decide`; only what cannot come out differently is not judged again."""
        run = self._run
        if self._judged is None or self._judged[0] is not run or not _same(self._judged[1], inputs.readings):
            verdicts = judge_all(run, self._plan, self._guardrails, inputs.readings)
            self._judged = run, inputs.readings, verdicts
        evidence = weigh(run, self._plan, self._guardrails, inputs, self._judged[2])
        return evidence, decide(run, self._plan, self._guardrails, evidence, inputs.now)

    def _observed(self, now: float) -> Observation:
        for one in self._script.events:
            if one.verb == "provider fails" and one.start <= now < (one.until or 0.0):
                return Unknown("it does not answer (as the test says)")
        return self._flag

    def _until_poll(self, now: float) -> float:
        every = self._script.poll
        return every - self.wall(now).timestamp() % every

    # — what follows —

    def _carry_out(self, now: float, decision: Decision, inputs: Inputs, evidence: Evidence) -> None:
        before = self._run
        if decision.action == "kill":
            self._kill(now, decision)
            return
        after = state_after(before, decision, inputs.now, self._extras(decision, inputs))
        self._commit(now, decision, after, evidence.observations)

    def _commit(self, now: float, decision: Decision, after: Run, observations: Observations) -> None:
        before = self._run
        moved = (after.exposure, after.audience) != (before.exposure, before.audience)
        changed = moved or decision.action == "lower"
        self._observations = observations_after(decision, observations, changed=changed, version=after.version)
        self._run = after
        self._note(now, decision.action, decision.cause, decision.text, decision.rule or "")
        if changed:
            self._apply(now)

    def _kill(self, now: float, decision: Decision) -> None:
        ended = ended_by_kill(self._run, "kill", at=self.wall(now), why=decision.text)
        if ended is not None:
            self._run = ended
        self._flag = FlagState(enabled=False, exposure=0, off_serves=self._off)
        self._note(now, "kill", decision.cause, decision.text, decision.rule or "")

    def _extras(self, decision: Decision, inputs: Inputs) -> dict[str, Any]:
        return carried("approval", self._run, self._plan, self._guardrails, inputs, decision)

    def _apply(self, now: float) -> None:
        """Weights and rules; on and off are left alone, as with any provider."""
        self._applied = now
        if self._plan.spec.mode == "enforce":
            audience = tuple(rule.name for rule in self._plan.spec.audience.always) if self._run.audience else ()
            self._flag = replace(self._flag, exposure=self._run.exposure, audience=audience)
            self._show(now)

    def _apply_again(self, difference: Difference, now: float) -> bool:
        if difference == "turn_on":
            self._applied = now
            self._flag = replace(self._flag, enabled=True)
            self._show(now)
        elif difference == "apply_again":
            self._apply(now)
        return difference in ("settling", "apply_again", "turn_on")

    def _show(self, now: float) -> None:
        self._world.expose(self._flag.effective_exposure, now)

    # — people —

    def _order(self, cue: Sentence, now: float) -> bool:
        """Carry out what a person orders; False when it was refused."""
        try:
            decision, extra = self._ordered(cue, now)
        except RampartError as error:
            self._refused.append((cue, str(error)))
            return False
        if decision.action == "kill":
            self._kill(now, decision)
        else:
            after = state_after(self._run, decision, self.wall(now), extra)
            self._commit(now, decision, after, self._observations)
        return True

    def _ordered(self, cue: Sentence, now: float) -> tuple[Decision, dict[str, Any]]:
        if cue.verb != "advance":
            return people.ordered(cue, self._run, self._plan, self._flag, self.wall(now))
        inputs = self._look(now, 0.0, bake_waived=True)
        _, decision = self._decide(inputs)
        if decision.action not in ("advance", "request_approval"):
            raise Invalid(f"cannot advance now: {decision.text}")
        text = f"{decision.text} by {cue.by or 'a person'}"
        return replace(decision, cause="user", text=text), self._extras(decision, inputs)

    # — what is told —

    def _note(self, now: float, action: Action, cause: Cause, text: str, rule: str) -> None:
        run = self._run
        self._held.append(Holding(at=now))
        self._happened.append(
            Happening(
                at=now,
                action=action,
                cause=cause,
                text=text,
                rule=rule,
                asked=self._plan.spec.stages[run.approval.stage].name if run.approval else "",
                phase=run.phase,
                stage=self._stage_name(run),
                exposure=run.exposure,
            )
        )

    def _note_hold(self, now: float, decision: Decision) -> None:
        codes = frozenset(block.code for block in decision.blocks)
        if not self._held or self._held[-1].codes != codes:
            texts = tuple(block.text for block in decision.blocks) or (decision.text,)
            self._held.append(Holding(at=now, codes=codes, texts=texts))

    def _stage_name(self, run: Run) -> str:
        return self._plan.spec.stages[run.stage].name if run.stage != NOT_STARTED else ""


def _same(before: Sequence[tuple[Question, Reading]], now: Sequence[tuple[Question, Reading]]) -> bool:
    """Whether the very same readings were given for the same questions."""
    return len(before) == len(now) and all(
        one[1] is other[1] and one[0] == other[0] for one, other in zip(before, now, strict=True)
    )


def play(script: Script) -> Played:
    """Rehearse one case. Raises Invalid for what only shows when it is played."""
    return Player(script).play()
