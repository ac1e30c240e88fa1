"""Look at rollouts and drive them: list, status, explain, wait, start … abandon."""

import sys
from collections.abc import Callable
from datetime import UTC, datetime

import click

from controller.cli.connection import Answer, Connection, Unreachable
from controller.cli.exits import Exit, Failure
from controller.cli.options import DurationType, note_option, output_option, server_option
from controller.cli.screens import (
    explanation_lines,
    plan_table,
    report_lines,
    status_screen,
)
from controller.cli.terminal import present, say
from controller.cli.watch import Goal, follow_until, parse_goal, watch_json, watch_lines, watch_screen
from controller.domain.rollout import Phase
from controller.domain.status import Explanation, PlanSummary, RunReport, RunStatus

POLL_SECONDS = 3.0
PHASE_EXITS: dict[Phase, Exit] = {
    "completed": Exit.OK,
    "paused": Exit.PAUSED,
    "killed": Exit.KILLED,
    "abandoned": Exit.FINDING,
}


def run_query(name: str) -> tuple[str, int | None]:
    """`checkout-v2#3` → plan and run number; without a number the latest run is meant."""
    plan, mark, number = name.partition("#")
    if not mark:
        return plan, None
    if not number.isdecimal() or int(number) < 1:
        raise Failure(f'"{name}" names no run', Exit.USAGE, hint=f"write {plan} or {plan}#3")
    return plan, int(number)


def fetch_status(server: Connection, name: str) -> Answer:
    plan, number = run_query(name)
    return server.get("plans", plan, "status", run=number)


@click.command("list")
@server_option
@output_option
def list_(server: Connection, output: str) -> int:
    """Show all plans, each with its latest run.

    \b
    Example:
      rampart list
    """
    plans = present(server.get("plans"), output, list[PlanSummary], plan_table)
    if not plans and output == "text":
        say("no plan yet; apply one: rampart apply checkout-v2.rollout.yaml")
    return Exit.OK


@click.command()
@click.argument("name")
@click.option("-w", "--watch", is_flag=True, help="Keep the screen up to date until the run ends.")
@server_option
@output_option
def status(name: str, watch: bool, server: Connection, output: str) -> int:
    """Show where a run is: stage, exposure, rules, kills.

    NAME is a plan, or one of its runs as in checkout-v2#3. With --watch the command ends when the run does, with
    0 for completed, 11 for killed, 1 for abandoned; a pause is watched on.

    \b
    Example:
      rampart status checkout-v2 --watch
    """
    if not watch:
        present(fetch_status(server, name), output, RunStatus, lambda run: status_screen(run, datetime.now(UTC)))
        return Exit.OK
    first = fetch_status(server, name)
    impatient = server.within(POLL_SECONDS)
    show = watch_json if output == "json" else watch_screen if sys.stdout.isatty() else watch_lines
    return PHASE_EXITS[show(first, lambda: fetch_status(impatient, _run_of(first)))]


def _run_of(answer: Answer) -> str:
    return answer.decode(RunStatus).id


@click.command()
@click.argument("name")
@server_option
@output_option
def explain(name: str, server: Connection, output: str) -> int:
    """Say why a run is where it is, and when that can change.

    \b
    Example:
      rampart explain checkout-v2
    """
    present(server.get("plans", name, "explain"), output, Explanation, explanation_lines)
    return Exit.OK


@click.command()
@click.argument("name")
@server_option
@output_option
def report(name: str, server: Connection, output: str) -> int:
    """Show what Rampart did, or would have, and people did.

    NAME is a plan, or one of its runs as in checkout-v2#3. Made for plans with `mode: observe`: there RAMPART is
    what it would have served, and PEOPLE what they did serve.

    \b
    Example:
      rampart report checkout-v2
    """
    plan, number = run_query(name)
    present(server.get("plans", plan, "report", run=number), output, RunReport, report_lines)
    return Exit.OK


@click.command()
@click.argument("name")
@click.option("--environment", metavar="NAME", help="Only there, if flags of several environments have that key.")
@note_option
@server_option
@output_option
def adopt(name: str, environment: str | None, note: str, server: Connection, output: str) -> int:
    """Begin a run where people have brought a flag.

    NAME is a flag's key or a plan. The share that the flag shows is taken over as it is, with rules and targets of
    other people; it counts as the lowest stage that allows it. Nothing is written to the flag by that, and before
    anything rises that stage bakes in full. To move a run under way to newer revisions instead: rampart apply
    --adopt.

    \b
    Example:
      rampart adopt checkout-v2 -m "was raised by hand until now"
    """
    body = {"note": note} | ({"environment": environment} if environment else {})
    run = _commanded(lambda: server.post("flags", name, "adopt", body=body), name, output)
    if output == "text":
        say(f"taken over; follow it: rampart status {run.plan} --watch")
    return Exit.OK


@click.command()
@click.argument("name")
@click.option(
    "--for",
    "goal",
    metavar="GOAL",
    required=True,
    help="completed, paused, killed, or stage=NAME: that stage's exposure was read back.",
)
@click.option("--timeout", type=DurationType(), metavar="DURATION", help="Give up after this long, as in 10m.")
@server_option
@output_option
def wait(name: str, goal: str, timeout: float | None, server: Connection, output: str) -> int:
    """Wait until a run has come to a point; made for CI.

    Exits with 0 when it has. Otherwise with 10 when the run is paused, 11 when it was killed, 1 when it ended in
    another way, 3 when the time is over. Without --timeout it waits as long as it takes.

    \b
    Example:
      rampart wait checkout-v2 --for stage=half --timeout 2h
    """
    wanted = parse_goal(goal)
    first = fetch_status(server, name)
    wanted.check_stage(first.decode(RunStatus))
    impatient = server.within(POLL_SECONDS)
    answer = follow_until(wanted, first, lambda: fetch_status(impatient, _run_of(first)), timeout)
    run = answer.decode(RunStatus)
    present(answer, output, RunStatus, lambda run: [f"{run.id} is {run.phase}: {run.reason}"])
    return _verdict(wanted, run)


def _verdict(wanted: Goal, run: RunStatus) -> Exit:
    if wanted.reached(run):
        return Exit.OK
    # Waiting for a kill and seeing the run complete is a finding, not a success.
    return Exit.FINDING if run.phase == "completed" else PHASE_EXITS[run.phase]


def _command(verb: str, summary: str, example: str, told: str) -> click.Command:
    @click.command(verb, help=f"{summary}\n\n\b\nExample:\n  {example}")
    @click.argument("name")
    @note_option
    @server_option
    @output_option
    def command_run(name: str, note: str, server: Connection, output: str) -> int:
        run = _commanded(lambda: server.post("plans", name, verb, body={"note": note}), name, output)
        if output == "text":
            say(told.format(name=run.plan))
        return Exit.OK

    return command_run


def _commanded(send: Callable[[], Answer], name: str, output: str) -> RunStatus:
    try:
        answer = send()
    except Unreachable as failure:
        if failure.sent:
            failure.hint = f"whether it was carried out is unknown; look first: rampart status {name}"
        raise
    return present(answer, output, RunStatus, lambda run: status_screen(run, datetime.now(UTC)))


COMMANDS = [
    _command(
        "start",
        "Start a new run of an applied plan. The first tick with a healthy baseline raises the flag.",
        'rampart start checkout-v2 -m "release 2.14"',
        "started; follow it: rampart status {name} --watch",
    ),
    _command(
        "advance",
        "Go to the next stage now. Waives the remaining bake, and nothing else.",
        'rampart advance checkout-v2 -m "looked at the traces myself"',
        "advanced; a tick reads the flag back next",
    ),
    _command(
        "pause",
        "Hold the exposure where it is. Rules that kill or step back still act.",
        'rampart pause checkout-v2 -m "waiting for the hotfix"',
        "paused; go on: rampart resume {name}",
    ),
    _command(
        "resume",
        "Go on with a paused run. The bake of its stage starts anew.",
        "rampart resume checkout-v2",
        "resumed",
    ),
    _command(
        "step-back",
        "Lower the exposure to the stage before, and pause there.",
        'rampart step-back checkout-v2 -m "p95 creeps up"',
        "stepped back and paused; go on: rampart resume {name}",
    ),
    _command(
        "approve",
        "Let a run enter the stage that waits for approval. Takes a second person.",
        'rampart approve checkout-v2 -m "CHG-2201"',
        "approved",
    ),
    _command(
        "abandon",
        "End a run and leave its flag exactly as it is. Nothing is watched any more.",
        'rampart abandon checkout-v2 -m "replaced by checkout-v3"',
        "abandoned; the flag stays as it is and nobody watches it",
    ),
]
