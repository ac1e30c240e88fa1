"""Options that several commands share, spelled and explained once."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from controller.cli.connection import DEFAULT_URL, Connection
from controller.domain.quantities import seconds
from controller.domain.selector import selector

Command = TypeVar("Command", bound=Callable[..., Any])


def _connected(_context: click.Context, _parameter: click.Parameter, url: str) -> Connection:
    return Connection(url)


def server_option(command: Command) -> Command:
    """Gives the command a `server: Connection`, which connects at its first request."""
    return click.option(
        "--url",
        "server",
        metavar="URL",
        envvar="RAMPART_URL",
        default=DEFAULT_URL,
        show_default=True,
        callback=_connected,
        help="Where the server is; also RAMPART_URL.",
    )(command)


def output_option(command: Command) -> Command:
    return output_choice("text", "json")(command)


def output_choice(*formats: str) -> Callable[[Command], Command]:
    return click.option(
        "-o",
        "--output",
        type=click.Choice(formats),
        default=formats[0],
        show_default=True,
        help="text is for people, json for programs.",
    )


def note_option(command: Command) -> Command:
    return click.option(
        "-m", "--message", "note", metavar="TEXT", default="", help="Why; it goes into the audit log."
    )(command)


def config_option(command: Command) -> Command:
    return click.option(
        "--config",
        metavar="FILE",
        envvar="RAMPART_CONFIG",
        help="The settings file; also RAMPART_CONFIG. Default: the first rampart.toml found.",
    )(command)


class DurationType(click.ParamType[float]):
    """`30s`, `10m`, `1h30m` → seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        try:
            return seconds(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class SelectorType(click.ParamType[dict[str, str]]):
    """`tier=1,team=checkout` → labels."""

    name = "selector"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, str]:
        if isinstance(value, dict):
            return value
        try:
            return selector(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class ListByDefault(click.Group):
    """A group whose `list` runs when no subcommand is named, options or not."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        asks_for_help = any(arg in ("-h", "--help") for arg in args[:1])
        if not args or (args[0].startswith("-") and not asks_for_help):
            args = ["list", *args]
        return super().parse_args(ctx, args)
