"""Tokens for callers of the API, keys for SDKs. A secret is printed once, on stdout, and is never an argument."""

from collections.abc import Sequence
from datetime import datetime

import click
from msgspec import Struct

from controller.cli.connection import Connection
from controller.cli.exits import Exit
from controller.cli.options import DurationType, ListByDefault, output_option, server_option
from controller.cli.screens import day_and_clock
from controller.cli.terminal import present, say, show_json, table
from controller.domain.catalogue import SCOPES, Scope, SdkKeyKind

SHOWN_ONCE = "this secret is shown once and stored nowhere; put it into a file only you can read"


HOW_TO_USE: dict[SdkKeyKind, str] = {
    "server": f"{SHOWN_ONCE}.\nuse it as the SDK key of a LaunchDarkly server-side SDK that points at {{url}}, "
    "or as the bearer token of OFREP",
    "mobile": f"{SHOWN_ONCE}.\nuse it as the mobile key of a LaunchDarkly mobile SDK that points at {{url}}; it "
    "opens only flags with clientSide: true",
    "client": "this client-side ID is public, and `rampart sdk-key list` shows it again.\nuse it in web pages, "
    "with LaunchDarkly's browser SDKs that point at {url}; it opens only flags with clientSide: true",
}


class TokenView(Struct, frozen=True, kw_only=True):
    name: str
    scopes: list[Scope]
    environments: list[str]
    created_at: datetime
    created_by: str
    expires_at: datetime | None


class SdkKeyView(Struct, frozen=True, kw_only=True):
    name: str
    kind: SdkKeyKind
    environment: str
    client_side_id: str | None
    created_at: datetime
    created_by: str


class Secret(Struct, frozen=True, kw_only=True):
    secret: str


def _deleted(server: Connection, collection: str, name: str, output: str) -> int:
    answer = server.delete(collection, name)
    if output == "json":
        show_json(answer.body or b"null")
    else:
        say(f"revoked {name}")
    return Exit.OK


@click.group(cls=ListByDefault)
def token() -> None:
    """Tokens of the API's callers: people, CI, dashboards.

    \b
    Example:
      rampart token create ci --scope read --scope operate
    """


@token.command("create")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(SCOPES),
    multiple=True,
    required=True,
    help="What it may do; may be repeated. admin includes all others.",
)
@click.option(
    "--environment",
    "environments",
    metavar="NAME",
    multiple=True,
    help="Where; may be repeated. Default: everywhere.",
)
@click.option("--expires", metavar="DURATION", help="How long it works, as in 30d. Default: until revoked.")
@server_option
@output_option
def token_create(
    name: str,
    scopes: tuple[Scope, ...],
    environments: tuple[str, ...],
    expires: str | None,
    server: Connection,
    output: str,
) -> int:
    """Create a token. NAME is the actor that the audit log shows.

    \b
    Example:
      rampart token create on-call --scope read --scope kill --environment production --expires 30d
    """
    if expires is not None:
        DurationType().convert(expires, None, None)
    body = {"name": name, "scopes": scopes, "environments": environments, "expires_in": expires}
    present(server.post("tokens", body=body), output, Secret, lambda created: [created.secret])
    say(f"{SHOWN_ONCE}.\nuse it: RAMPART_TOKEN, or RAMPART_TOKEN_FILE with its path")
    return Exit.OK


@token.command("list")
@server_option
@output_option
def token_list(server: Connection, output: str) -> int:
    """List the tokens, without their secrets.

    \b
    Example:
      rampart token list
    """
    present(server.get("tokens"), output, list[TokenView], _token_table)
    return Exit.OK


def _token_table(tokens: Sequence[TokenView]) -> list[str]:
    rows = [
        [
            one.name,
            ", ".join(one.scopes),
            ", ".join(one.environments) or "all",
            day_and_clock(one.expires_at) if one.expires_at else "never",
            f"{day_and_clock(one.created_at)} by {one.created_by}",
        ]
        for one in tokens
    ]
    return table(("TOKEN", "SCOPES", "ENVIRONMENTS", "EXPIRES", "CREATED"), rows)


@token.command("revoke")
@click.argument("name")
@server_option
@output_option
def token_revoke(name: str, server: Connection, output: str) -> int:
    """Revoke a token. It stops working at once.

    \b
    Example:
      rampart token revoke ci
    """
    return _deleted(server, "tokens", name, output)


@click.group("sdk-key", cls=ListByDefault)
def sdk_key() -> None:
    """Keys with which applications' SDKs connect.

    \b
    Example:
      rampart sdk-key create shop --environment production
    """


@sdk_key.command("create")
@click.argument("name")
@click.option("--environment", metavar="NAME", required=True, help="The environment whose flags it opens.")
@click.option(
    "--kind",
    type=click.Choice(["server", "mobile", "client"]),
    default="server",
    help="For servers (all flags, a secret), for apps, or a public client-side ID for web pages; the latter two "
    "open the flags with clientSide: true. Default: server.",
)
@server_option
@output_option
def sdk_key_create(name: str, environment: str, kind: SdkKeyKind, server: Connection, output: str) -> int:
    """Create an SDK key for one environment.

    \b
    Example:
      rampart sdk-key create shop --environment production > shop.sdk-key
      rampart sdk-key create shop-web --environment production --kind client
    """
    answer = server.post("sdk-keys", body={"name": name, "environment": environment, "kind": kind})
    present(answer, output, Secret, lambda created: [created.secret])
    say(HOW_TO_USE[kind].format(url=server.url))
    return Exit.OK


@sdk_key.command("list")
@server_option
@output_option
def sdk_key_list(server: Connection, output: str) -> int:
    """List the SDK keys, without their secrets. A client-side ID is none.

    \b
    Example:
      rampart sdk-key list
    """
    present(server.get("sdk-keys"), output, list[SdkKeyView], _sdk_key_table)
    return Exit.OK


def _sdk_key_table(keys: Sequence[SdkKeyView]) -> list[str]:
    rows = [
        [
            one.name,
            one.kind,
            one.environment,
            one.client_side_id or "secret",
            f"{day_and_clock(one.created_at)} by {one.created_by}",
        ]
        for one in keys
    ]
    return table(("SDK KEY", "KIND", "ENVIRONMENT", "CLIENT-SIDE ID", "CREATED"), rows)


@sdk_key.command("revoke")
@click.argument("name")
@server_option
@output_option
def sdk_key_revoke(name: str, server: Connection, output: str) -> int:
    """Revoke an SDK key. No SDK can connect with it any more.

    \b
    Example:
      rampart sdk-key revoke shop
    """
    return _deleted(server, "sdk-keys", name, output)
