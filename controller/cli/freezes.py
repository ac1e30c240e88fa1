"""Freezes of the organisation: times in which nothing starts or advances, whoever asks."""

from collections.abc import Sequence
from typing import Any
from zoneinfo import ZoneInfo

import click

from controller.cli.connection import Connection
from controller.cli.exits import Exit, Failure
from controller.cli.options import DurationType, ListByDefault, SelectorType, output_option, server_option
from controller.cli.screens import day_and_clock
from controller.cli.terminal import confirmed, counted, on_terminal, present, say, table
from controller.domain.freezes import FreezeStatus
from controller.domain.selector import selector_text

STATES = {"holds": "holds", "to_come": "to come", "over": "over", "lifted": "lifted"}


@click.group(cls=ListByDefault)
def freeze() -> None:
    """Times in which nothing starts or advances.

    They cover all plans, or those in some environments or with some labels. Nobody advances over a freeze.
    Pausing, stepping back and killing work all the same, and rules keep judging.

    \b
    Example:
      rampart freeze add black-friday --from 2026-11-26T00:00 --to 2026-12-01T08:00 -m "the shop is full"
    """


@freeze.command("add")
@click.argument("name")
@click.option("--from", "begins", metavar="TIME", help="When it begins, as in 2026-11-26T00:00. Default: now.")
@click.option("--to", "ends", metavar="TIME", help="When it ends, as in 2026-12-01T08:00.")
@click.option("--for", "lasts", metavar="DURATION", help="How long it lasts, as in 4h, instead of --to.")
@click.option("--timezone", metavar="ZONE", default="UTC", show_default=True, help="Of these times.")
@click.option(
    "--environment",
    "environments",
    metavar="NAME",
    multiple=True,
    help="Where; may be repeated. Default: everywhere.",
)
@click.option(
    "--selector",
    "labels",
    metavar="LABEL=VALUE,…",
    type=SelectorType(),
    help="Only plans with all of these labels. Default: all plans.",
)
@click.option("-m", "--message", "reason", metavar="REASON", required=True, help="Why; everybody will read it.")
@server_option
@output_option
def freeze_add(
    name: str,
    begins: str | None,
    ends: str | None,
    lasts: str | None,
    timezone: str,
    environments: tuple[str, ...],
    labels: dict[str, str] | None,
    reason: str,
    server: Connection,
    output: str,
) -> int:
    """Freeze raises for a time.

    Every run that it covers shows it, with its end, as what it waits for. It is known to all replicas at once, and
    to the database: what was decided before is refused there. The name can be used again when it is over.

    \b
    Example:
      rampart freeze add black-friday --from 2026-11-26T00:00 --to 2026-12-01T08:00 --timezone Europe/Berlin \\
        --environment production -m "the shop is full"
      rampart freeze add incident-4821 --for 2h --selector tier=1 -m "payments are down"
    """
    if lasts is not None:
        DurationType().convert(lasts, None, None)
    given = {"from": begins, "to": ends, "for": lasts}
    body: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    body |= {"name": name, "reason": reason, "timezone": timezone, "environments": environments}
    answer = server.post("freezes", body={**body, "labels": labels or {}})
    present(answer, output, FreezeStatus, freeze_lines)
    if output == "text":
        say(f'it ends by itself; before its time: rampart freeze lift {name} -m "why"')
    return Exit.OK


def freeze_lines(one: FreezeStatus) -> list[str]:
    word = "frozen" if one.state == "holds" else "will be frozen" if one.state == "to_come" else one.state
    when = f"from {day_and_clock(one.starts_at)} to {_until(one)}"
    told = f"{one.name}: {_where(one)} {'is' if one.state == 'holds' else ''} {word} {when}".replace("  ", " ")
    covered = f"covers {counted(len(one.plans), 'plan')} now" + (f": {', '.join(one.plans)}" if one.plans else "")
    return [told, covered]


def _until(one: FreezeStatus) -> str:
    """In the zone that it was written in, too."""
    end = day_and_clock(one.ends_at)
    if one.timezone == "UTC":
        return end
    return f"{end} ({one.ends_at.astimezone(ZoneInfo(one.timezone)):%Y-%m-%d %H:%M} {one.timezone})"


def _where(one: FreezeStatus) -> str:
    plans = f"what has {selector_text(one.labels)}" if one.labels else "everything"
    return f"{plans} in {', '.join(one.environments)}" if one.environments else plans


@freeze.command("list")
@click.option("--all", "everything", is_flag=True, help="Also those that are over or were lifted.")
@server_option
@output_option
def freeze_list(everything: bool, server: Connection, output: str) -> int:
    """List the freezes that hold or are to come.

    \b
    Example:
      rampart freeze list
      rampart freeze list --all
    """
    answer = server.get("freezes", all="true" if everything else None)
    present(answer, output, list[FreezeStatus], _freeze_table)
    return Exit.OK


def _freeze_table(freezes: Sequence[FreezeStatus]) -> list[str]:
    if not freezes:
        return ["no freeze holds or is to come"]
    rows = [
        [
            one.name,
            f"lifted by {one.lifted_by}" if one.state == "lifted" else STATES[one.state],
            day_and_clock(one.starts_at),
            day_and_clock(one.ends_at),
            _where(one),
            str(len(one.plans)),
            f"{one.reason} ({one.added_by})",
        ]
        for one in freezes
    ]
    return table(("FREEZE", "STATE", "FROM", "TO", "COVERS", "PLANS", "WHY"), rows)


@freeze.command("lift")
@click.argument("name")
@click.option("-m", "--message", "note", metavar="REASON", required=True, help="Why; it goes into the audit log.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@server_option
@output_option
def freeze_lift(name: str, note: str, yes: bool, server: Connection, output: str) -> int:
    """End a freeze before its time. What it covers may rise again at once.

    Shows what it covers and, on a terminal, asks once.

    \b
    Example:
      rampart freeze lift black-friday -m "sales are over, agreed with kim"
    """
    if on_terminal() and not yes:
        _ask(name, server)
    answer = server.post("freezes", name, "lift", body={"note": note})
    present(answer, output, FreezeStatus, lambda lifted: [_lifted(lifted)])
    return Exit.OK


def _ask(name: str, server: Connection) -> None:
    for one in server.get("freezes").decode(list[FreezeStatus]):
        if one.name == name:
            for line in freeze_lines(one):
                say(line)
            if not confirmed("Let it rise again?"):
                raise Failure("nothing was lifted", Exit.FINDING)


def _lifted(one: FreezeStatus) -> str:
    plans = counted(len(one.plans), "plan")
    return f"lifted {one.name}; {plans} may rise again, as far as nothing else is in the way"
