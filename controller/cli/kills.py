"""The red button and its way back."""

from collections.abc import Sequence
from typing import Any

import click
from msgspec import Struct

from controller.cli.connection import Answer, Connection, Unreachable
from controller.cli.exits import Exit, Failure
from controller.cli.options import DurationType, SelectorType, output_option, server_option
from controller.cli.screens import day_and_clock, kill_lines, kill_text, receipt_lines
from controller.cli.terminal import (
    asked,
    confirmed,
    counted,
    on_terminal,
    present,
    require_terminal_or,
    say,
    show,
    table,
)
from controller.domain.quantities import exposure_text
from controller.domain.selection import KillPreview, KillTarget
from controller.domain.status import KilledAndNot, KillReceipt, KillStatus, RunStatus

PREVIEW_SECONDS = 1.0
SENT = "the kill was sent, but it is not known whether it was accepted: send it again, twice does no harm"
NOT_SENT = "NOTHING WAS KILLED. Try another replica (--url), or turn the flag off at its provider"


class KillAnswer(Struct, frozen=True, kw_only=True):
    kills: list[KillReceipt]


def _flag_path(name: str, environment: str | None, verb: str) -> list[str]:
    return [*(["environments", environment] if environment else []), "flags", name, verb]


@click.command()
@click.argument("name", required=False)
@click.option(
    "--selector",
    "labels",
    metavar="LABEL=VALUE,…",
    type=SelectorType(),
    help="Instead of NAME: the flags of all plans with all of these labels.",
)
@click.option(
    "--raised-within",
    metavar="DURATION",
    help="Instead of NAME: what was raised in that time, as in 30m, up to 24h. With --selector: what fits both.",
)
@click.option("--environment", metavar="NAME", help="Only there. Default: wherever the flag is known.")
@click.option("--provider", metavar="NAME", help="Only at this provider. Default: at all of them.")
@click.option("-m", "--message", "reason", metavar="REASON", default="", help="Why; everybody will read it.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask, given a REASON.")
@click.option("--dry-run", is_flag=True, help="Show what it would do, and kill nothing.")
@server_option
@output_option
def kill(
    name: str | None,
    labels: dict[str, str] | None,
    raised_within: str | None,
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

    Instead of NAME, --selector and --raised-within kill several flags at once. What is hit is shown first, with
    its exposure and its owner. Exits with 4 when some were refused; the others are killed all the same.

    \b
    Example:
      rampart kill checkout-v2 -m "INC-4821 5xx at checkout"
      rampart kill --raised-within 30m --environment production --dry-run
      rampart kill --selector tier=1,team=checkout --yes -m "INC-4821 payments are down"
    """
    if labels or raised_within:
        if name:
            raise Failure("name one flag, or select several: not both", Exit.USAGE)
        selection = _selection(labels, raised_within, environment, provider)
        return _kill_several(selection, reason, yes=yes, dry_run=dry_run, server=server, output=output)
    if not name:
        raise Failure("name a flag or a plan, or select several: --selector or --raised-within", Exit.USAGE)
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


def _selection(
    labels: dict[str, str] | None, raised_within: str | None, environment: str | None, provider: str | None
) -> dict[str, Any]:
    if raised_within is not None:
        DurationType().convert(raised_within, None, None)
    given = {"labels": labels, "raised_within": raised_within, "environment": environment, "provider": provider}
    return {key: value for key, value in given.items() if value is not None}


def _kill_several(
    selection: dict[str, Any], reason: str, *, yes: bool, dry_run: bool, server: Connection, output: str
) -> int:
    require_terminal_or(dry_run or bool(reason), 'a kill needs its reason: rampart kill … -m "why"')
    found = _selected(server, selection)
    (show if dry_run else _say_all)(selected_lines(found))
    if dry_run:
        return Exit.OK
    if not found.targets:
        raise Failure("nothing was killed: no flag fits that is not killed already", Exit.FINDING)
    if not (reason and (yes or not on_terminal())):
        reason = _reason_for(reason)
    body = {"reason": reason, "flags": [one.flag for one in found.targets]}
    answer = _posted(server, ["kills"], body)
    done = present(answer, output, KilledAndNot, _several_lines)
    if output == "text":
        say(f"{counted(len(done.kills), 'flag')} killed, and off until: rampart reset NAME")
    return Exit.REFUSED if done.refused else Exit.OK


def _say_all(lines: Sequence[str]) -> None:
    for line in lines:
        say(line)


def _selected(server: Connection, selection: dict[str, Any]) -> KillPreview:
    try:
        return server.post("kills", "preview", body=selection).decode(KillPreview)
    except Unreachable as failure:
        failure.hint = NOT_SENT
        raise


def selected_lines(found: KillPreview) -> list[str]:
    rows = [
        [
            str(one.flag),
            _exposure(one),
            one.phase or "–",
            one.owner or "–",
            day_and_clock(one.raised_at) if one.raised_at else "–",
            "" if one.allowed else "this token may not kill it",
        ]
        for one in found.targets
    ]
    lines = table(("WOULD BE KILLED", "EXPOSURE", "RUN", "OWNER", "RAISED", ""), rows) if rows else []
    if not rows:
        lines.append("no flag fits that is not killed already")
    if found.killed:
        lines.append(f"killed already: {', '.join(str(one.flag) for one in found.killed)}")
    return [*lines, *(f"careful: {doubt}" for doubt in found.doubts)]


def _exposure(one: KillTarget) -> str:
    if one.exposure is not None:
        return exposure_text(one.exposure)
    return "unknown" if one.run else "never raised by Rampart"


def _several_lines(done: KilledAndNot) -> list[str]:
    return [*receipt_lines(done.kills), *(f"NOT KILLED {one.flag}: {one.why}" for one in done.refused)]


def _unconfirmed_plans(receipts: Sequence[KillReceipt]) -> list[str]:
    return sorted({_plan_of(one.run) for one in receipts if one.run and one.confirmed_at is None})


def _plan_of(run: str) -> str:
    return run.partition("#")[0]


def _sent(server: Connection, name: str, environment: str | None, body: dict[str, Any]) -> Answer:
    return _posted(server, _flag_path(name, environment, "kill"), body)


def _posted(server: Connection, path: Sequence[str], body: dict[str, Any]) -> Answer:
    try:
        return server.post(*path, body=body)
    except Unreachable as failure:
        failure.hint = SENT if failure.sent else NOT_SENT
        raise


def _asked_reason(server: Connection, name: str, environment: str | None, reason: str) -> str:
    say(_preview(server, name, environment))
    return _reason_for(reason)


def _reason_for(reason: str) -> str:
    """Exactly one question: yes or no when the reason is known, otherwise the reason itself."""
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
