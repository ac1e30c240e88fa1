"""The red button and its way back."""

from collections.abc import Sequence
from typing import Any

import click
from msgspec import Struct

from controller.cli.connection import Answer, Connection, Unreachable
from controller.cli.exits import Exit, Failure
from controller.cli.options import output_option, server_option
from controller.cli.screens import kill_lines, kill_text, receipt_lines
from controller.cli.terminal import asked, confirmed, on_terminal, present, require_terminal_or, say, show
from controller.domain.quantities import exposure_text
from controller.domain.status import KillReceipt, KillStatus, RunStatus

PREVIEW_SECONDS = 1.0
SENT = "the kill was sent, but it is not known whether it was accepted: send it again, twice does no harm"
NOT_SENT = "NOTHING WAS KILLED. Try another replica (--url), or turn the flag off at its provider"


class KillAnswer(Struct, frozen=True, kw_only=True):
    kills: list[KillReceipt]


def _flag_path(name: str, environment: str | None, verb: str) -> list[str]:
    return [*(["environments", environment] if environment else []), "flags", name, verb]


@click.command()
@click.argument("name")
@click.option("--environment", metavar="NAME", help="Only there. Default: wherever the flag is known.")
@click.option("--provider", metavar="NAME", help="Only at this provider. Default: at all of them.")
@click.option("-m", "--message", "reason", metavar="REASON", default="", help="Why; everybody will read it.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask, given a REASON.")
@click.option("--dry-run", is_flag=True, help="Show what it would do, and kill nothing.")
@server_option
@output_option
def kill(
    name: str,
    environment: str | None,
    provider: str | None,
    reason: str,
    yes: bool,
    dry_run: bool,
    server: Connection,
    output: str,
) -> int:
    """Serve the fallback to everyone, now.

    NAME is a flag's key or a plan. Nothing raises the flag again until a person resets it. The kill is accepted
    even while the flag's provider is down: then it is shown as unconfirmed and retried without end. Exits with 0
    once it is accepted. On a terminal it asks once; without one it needs a REASON.

    \b
    Example:
      rampart kill checkout-v2 -m "INC-4821 5xx at checkout"
    """
    if dry_run:
        show([_preview(server, name, environment)])
        return Exit.OK
    require_terminal_or(bool(reason), f'a kill needs its reason: rampart kill {name} -m "why"')
    if not (reason and (yes or not on_terminal())):
        reason = _asked_reason(server, name, environment, reason)
    body: dict[str, Any] = {"reason": reason}
    if provider:
        body["provider"] = provider
    answer = _sent(server, name, environment, body)
    receipts = present(answer, output, KillAnswer, lambda killed: receipt_lines(killed.kills)).kills
    if output == "text":
        say(f"stays off until: rampart reset {name}")
        for plan in _unconfirmed_plans(receipts):
            say(f"watch it being confirmed: rampart status {plan} --watch")
    return Exit.OK


def _unconfirmed_plans(receipts: Sequence[KillReceipt]) -> list[str]:
    return sorted({_plan_of(one.run) for one in receipts if one.run and one.confirmed_at is None})


def _plan_of(run: str) -> str:
    return run.partition("#")[0]


def _sent(server: Connection, name: str, environment: str | None, body: dict[str, Any]) -> Answer:
    try:
        return server.post(*_flag_path(name, environment, "kill"), body=body)
    except Unreachable as failure:
        failure.hint = SENT if failure.sent else NOT_SENT
        raise


def _asked_reason(server: Connection, name: str, environment: str | None, reason: str) -> str:
    """Exactly one question: yes or no when the reason is known, otherwise the reason itself."""
    say(_preview(server, name, environment))
    if reason:
        if not confirmed("Continue?"):
            raise Failure("nothing was killed", Exit.FINDING)
        return reason
    reason = asked("Why? (empty: do not kill)")
    if not reason:
        raise Failure("nothing was killed", Exit.FINDING)
    return reason


def _preview(server: Connection, name: str, environment: str | None) -> str:
    where = f" in {environment}" if environment else ""
    try:
        run = server.within(PREVIEW_SECONDS).get("plans", name, "status").decode(RunStatus)
    except Failure as failure:
        # The preview needs the database, the kill does not: whatever is wrong here must not stand in its way.
        return f"kill {name}{where}: everybody gets the fallback (what is exposed now is unknown: {failure})"
    spared = " but whom these serve" if run.foreign and run.on_kill == "fallthrough" else ""
    told = (
        f"kill {name} in {environment or run.flag.environment}: now {run.phase} at "
        f"{exposure_text(run.desired_exposure)}; everybody{spared} gets the fallback, the `always` audience "
        "included"
    )
    return "\n".join([told, *(f"  not ours, and {kill_text(run.on_kill)}: {text}" for text in run.foreign)])


@click.command()
@click.argument("name")
@click.option("--environment", metavar="NAME", help="Only there. Default: wherever a kill is in force.")
@click.option("--provider", metavar="NAME", help="Only at this provider.")
@click.option("--kill-id", "kill_ids", metavar="ID", multiple=True, help="Only this kill; may be repeated.")
@click.option("-m", "--message", "note", metavar="TEXT", default="", help="Why; it goes into the audit log.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@server_option
@output_option
def reset(
    name: str,
    environment: str | None,
    provider: str | None,
    kill_ids: tuple[str, ...],
    note: str,
    yes: bool,
    server: Connection,
    output: str,
) -> int:
    """Release a killed flag. It stays off; a new start is a new run.

    NAME is a flag's key or a plan. The kills in force are shown, and exactly those are released: one that arrives
    meanwhile stays in force. On a terminal it asks once; without one it needs --yes or a message.

    \b
    Example:
      rampart reset checkout-v2 -m "INC-4821 fixed in 2.14.1"
    """
    require_terminal_or(yes or bool(note), f'a reset needs --yes or its reason: rampart reset {name} -m "why"')
    covered = _covered(server, name, environment, provider, kill_ids)
    if not covered:
        say(f"nothing to reset: no kill is in force for {name}")
        if output == "json":
            show(["[]"])
        return Exit.OK
    for line in [line for kill in covered for line in kill_lines(kill)]:
        say(line)
    if on_terminal() and not yes and not confirmed("Release them? The flag stays off."):
        raise Failure("nothing was reset", Exit.FINDING)
    body: dict[str, Any] = {"kill_ids": [kill.kill_id for kill in covered], "note": note}
    if provider:
        body["provider"] = provider
    answer = server.post(*_flag_path(name, environment, "reset"), body=body)
    present(
        answer, output, list[KillStatus], lambda kills: [f"released {kill.kill_id}  {kill.flag}" for kill in kills]
    )
    if output == "text":
        say(f"the flag is still off; raise it again: rampart start {name}")
    return Exit.OK


def _covered(
    server: Connection, name: str, environment: str | None, provider: str | None, kill_ids: Sequence[str]
) -> list[KillStatus]:
    in_force = [
        kill
        for kill in server.get("kills").decode(list[KillStatus])
        if environment in (None, kill.flag.environment) and provider in (None, kill.flag.provider)
    ]
    if kill_ids:
        unknown = set(kill_ids) - {kill.kill_id for kill in in_force}
        if unknown:
            raise Failure(f"no such kill is in force: {', '.join(sorted(unknown))}", Exit.CONFLICT)
        return [kill for kill in in_force if kill.kill_id in kill_ids]
    return [kill for kill in in_force if _named(kill, name)] or _of_plan(server, name, in_force)


def _named(kill: KillStatus, name: str) -> bool:
    return kill.flag.key == name or (kill.run is not None and _plan_of(kill.run) == name)


def _of_plan(server: Connection, name: str, in_force: Sequence[KillStatus]) -> list[KillStatus]:
    """A kill by flag key knows no plan; the plan knows its flag. Nothing in force: no need to ask."""
    if not in_force:
        return []
    flag = server.get("plans", name, "status").decode(RunStatus).flag
    return [kill for kill in in_force if kill.flag == flag]
