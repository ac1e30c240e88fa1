"""Addresses that kill one flag: for a bookmark on a phone, a chat command, or somebody else's alerting."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import click
from msgspec import Struct

from controller.cli.connection import Connection
from controller.cli.exits import Exit
from controller.cli.options import ListByDefault, output_option, server_option
from controller.cli.screens import day_and_clock
from controller.cli.terminal import present, say, show_json, table
from controller.domain.plan import FlagRef

SHOWN_ONCE = (
    "whoever knows this address can kill {flag}, and nothing else. It is shown once and stored nowhere.\n"
    "open it for a button, or: curl -X POST -d reason=INC-1234 ADDRESS\n"
    "it works until: rampart trigger revoke {name}"
)
NO_PUBLIC_URL = "it begins with the --url given here; server.public_url in the settings says what others reach"


class TriggerView(Struct, frozen=True, kw_only=True):
    name: str
    flag: FlagRef
    created_at: datetime
    created_by: str


class NewTrigger(TriggerView, frozen=True):
    path: str
    url: str


@click.group(cls=ListByDefault)
def trigger() -> None:
    """Addresses that kill one flag, and nothing else.

    A GET shows a button, so that previews of links press nothing; a POST kills. They work without a token, and
    while the database is down.

    \b
    Example:
      rampart trigger create checkout-v2 --environment production
    """


@trigger.command("create")
@click.argument("flag")
@click.option("--environment", metavar="NAME", required=True, help="Where it kills.")
@click.option("--provider", metavar="NAME", help="Of the flag; needed when no plan names the flag.")
@click.option("--name", metavar="NAME", help="As whom the audit log shows it. Default: FLAG-ENVIRONMENT.")
@server_option
@output_option
def trigger_create(
    flag: str, environment: str, provider: str | None, name: str | None, server: Connection, output: str
) -> int:
    """Create an address that kills FLAG, a flag's key or a plan. It needs the scope admin.

    The address is printed once, on stdout. Its kills are by trigger:NAME in the audit log.

    \b
    Example:
      rampart trigger create checkout-v2 --environment production --name checkout-pager
    """
    given = {"provider": provider, "name": name}
    body: dict[str, Any] = {"flag": flag, "environment": environment}
    body |= {key: value for key, value in given.items() if value}
    answer = server.post("triggers", body=body)
    made = present(answer, output, NewTrigger, lambda one: [one.url or f"{server.url}{one.path}"])
    say(SHOWN_ONCE.format(flag=made.flag, name=made.name))
    if not made.url:
        say(NO_PUBLIC_URL)
    return Exit.OK


@trigger.command("list")
@server_option
@output_option
def trigger_list(server: Connection, output: str) -> int:
    """List the triggers, without their addresses.

    \b
    Example:
      rampart trigger list
    """
    present(server.get("triggers"), output, list[TriggerView], _trigger_table)
    return Exit.OK


def _trigger_table(triggers: Sequence[TriggerView]) -> list[str]:
    rows = [[one.name, str(one.flag), f"{day_and_clock(one.created_at)} by {one.created_by}"] for one in triggers]
    return table(("TRIGGER", "KILLS", "CREATED"), rows)


@trigger.command("revoke")
@click.argument("name")
@server_option
@output_option
def trigger_revoke(name: str, server: Connection, output: str) -> int:
    """Revoke a trigger. Its address kills nothing any more; what it killed stays killed.

    \b
    Example:
      rampart trigger revoke checkout-pager
    """
    answer = server.delete("triggers", name)
    if output == "json":
        show_json(answer.body or b"null")
    else:
        say(f"revoked {name}")
    return Exit.OK
