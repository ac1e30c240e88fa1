"""Follow one run: drawn in place, as a line for each change, or until a goal is reached.

The first answer must have come; a server that is lost later is waited for.
"""

import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from time import monotonic, sleep

import click
from msgspec import Struct

from controller.cli.connection import Answer, ServerRefusal, Unreachable
from controller.cli.exits import Exit, Failure
from controller.cli.screens import FINAL, age, clock, status_screen
from controller.cli.terminal import say, screen, show
from controller.domain.quantities import duration_text, exposure_text
from controller.domain.rollout import Phase
from controller.domain.status import RunStatus

INTERVAL_SECONDS = 1.0

Fetch = Callable[[], Answer]


class Goal(Struct, frozen=True):
    """A phase, or a stage by name."""

    phase: Phase | None = None
    stage: str = ""

    def reached(self, run: RunStatus) -> bool:
        if self.phase is not None:
            return run.phase == self.phase
        at = next(index for index, stage in enumerate(run.stages) if stage.name == self.stage)
        return run.phase == "completed" or run.stage > at or (run.stage == at and run.confirmed)

    def settled(self, run: RunStatus) -> bool:
        """Reached, or out of reach without a person."""
        return self.reached(run) or run.phase in FINAL or (run.phase == "paused")

    def check_stage(self, run: RunStatus) -> None:
        names = [stage.name for stage in run.stages]
        if self.stage and self.stage not in names:
            raise Failure(f'{run.plan} has no stage "{self.stage}"; it has {", ".join(names)}', Exit.USAGE)


def parse_goal(text: str) -> Goal:
    match text.partition("="):
        case ("completed" | "paused" | "killed") as phase, "", "":
            return Goal(phase=phase)
        case "stage", "=", name if name:
            return Goal(stage=name)
    raise click.BadParameter(f'"{text}" is not completed, paused, killed or stage=NAME', param_hint="--for")


class Sight(Struct):
    """What is known now: the latest answer, when it came, and why there is no newer one."""

    answer: Answer
    at: datetime
    lost: str = ""


def follow(first: Answer, fetch: Fetch) -> Iterator[Sight]:
    """One sight a second, for as long as the caller looks."""
    sight = Sight(first, datetime.now(UTC))
    while True:
        yield sight
        sleep(INTERVAL_SECONDS)
        try:
            sight = Sight(fetch(), datetime.now(UTC))
        except ServerRefusal as refusal:
            if refusal.code is not Exit.UNREACHABLE:
                raise
            sight = Sight(sight.answer, sight.at, str(refusal))
        except Unreachable as failure:
            sight = Sight(sight.answer, sight.at, str(failure))


def watch_screen(first: Answer, fetch: Fetch) -> Phase:
    """Draw the status in place; returns the final phase, and leaves its screen on the terminal."""
    with screen() as drawn:
        for sight in follow(first, fetch):
            run, now = sight.answer.decode(RunStatus), datetime.now(UTC)
            drawn.draw([_bar(sight, now), "", *status_screen(run, now)])
            if run.phase in FINAL:
                break
    show(status_screen(run, datetime.now(UTC)))
    return run.phase


def _bar(sight: Sight, now: datetime) -> str:
    if sight.lost:
        what = f"unreachable, retrying — shown is what was known {age(sight.at, now)} ({sight.lost})"
        return click.style(what, fg="red", bold=True)
    return click.style(f"rampart   {clock(now)}   Ctrl-C leaves; the rollout goes on", dim=True)


def watch_lines(first: Answer, fetch: Fetch) -> Phase:
    """For logs: one line for each change, no drawing."""
    shown = ""
    for sight, run in _noting_losses(follow(first, fetch)):
        line = f"{run.id}  {run.phase}  {exposure_text(run.desired_exposure)}  {run.reason}"
        if line != shown:
            show([f"{clock(sight.at)}  {line}"])
            sys.stdout.flush()
            shown = line
        if run.phase in FINAL:
            return run.phase
    raise AssertionError("follow never ends by itself")


def watch_json(first: Answer, fetch: Fetch) -> Phase:
    """The server's answers, one a line, whenever one differs from the one before."""
    shown = b""
    for sight, run in _noting_losses(follow(first, fetch)):
        if sight.answer.body != shown:
            click.echo(sight.answer.body)
            sys.stdout.flush()
            shown = sight.answer.body
        if run.phase in FINAL:
            return run.phase
    raise AssertionError("follow never ends by itself")


def _noting_losses(sights: Iterator[Sight]) -> Iterator[tuple[Sight, RunStatus]]:
    lost = ""
    for sight in sights:
        if sight.lost and not lost:
            say(f"unreachable, retrying: {sight.lost}")
        elif lost and not sight.lost:
            say("reachable again")
        lost = sight.lost
        yield sight, sight.answer.decode(RunStatus)


def follow_until(goal: Goal, first: Answer, fetch: Fetch, timeout: float | None) -> Answer:
    """The answer that settles `goal`. Raises Failure (3) when `timeout` seconds were not enough."""
    deadline = None if timeout is None else monotonic() + timeout
    for sight, run in _noting_losses(follow(first, fetch)):
        if not sight.lost and goal.settled(run):
            return sight.answer
        if deadline is not None and monotonic() + INTERVAL_SECONDS > deadline:
            state = f"{run.id} is {run.phase} at {exposure_text(run.desired_exposure)}: {run.reason}"
            raise Failure(f"not reached within {duration_text(timeout or 0)}; {state}", Exit.UNREACHABLE)
    raise AssertionError("follow never ends by itself")
