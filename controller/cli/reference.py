"""The command tree as people find it: sections of the help, `rampart help`, and docs/cli.md."""

import difflib
from collections.abc import Iterator, Mapping, Sequence

import click

from controller.cli.connection import DEFAULT_URL
from controller.cli.exits import MEANINGS, Exit
from controller.cli.terminal import show, table

ENVIRONMENT = {
    "RAMPART_URL": f"where the server is; default {DEFAULT_URL}",
    "RAMPART_TOKEN": "the token",
    "RAMPART_TOKEN_FILE": "a file with the token",
    "RAMPART_CONFIG": "the settings file",
    "NO_COLOR": "any value: no colours",
}
CREDENTIALS = (
    "Without RAMPART_TOKEN and RAMPART_TOKEN_FILE, a command that talks to this machine takes the admin token "
    "from the server's data directory. A token is never an option: every user of the machine sees options."
)
TOPICS = ("exit-codes", "environment", "markdown")


class Sections(click.Group):
    """A group whose help is in sections, and that knows what a mistyped command was meant to be."""

    def __init__(self, *, sections: Mapping[str, Sequence[click.Command]], **more: object) -> None:
        commands = [command for section in sections.values() for command in section]
        super().__init__(commands=commands, **more)  # type: ignore[arg-type]
        self.sections = sections

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        longest = max(len(name) for name in self.commands)
        for title, commands in self.sections.items():
            with formatter.section(title):
                limit = formatter.width - longest - 6
                formatter.write_dl([(one.name or "", one.get_short_help_str(limit)) for one in commands])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], self.commands, n=1)
            hint = f'; did you mean "{close[0]}"?' if close else ""
            raise click.UsageError(f'there is no command "{args[0]}"{hint}', ctx)
        return super().resolve_command(ctx, args)


@click.command("help")
@click.argument("topic", nargs=-1)
@click.pass_context
def help_(ctx: click.Context, topic: tuple[str, ...]) -> int:
    """Explain a command, or a topic: exit-codes, environment.

    \b
    Example:
      rampart help exit-codes
    """
    root = ctx.find_root()
    match topic:
        case ("exit-codes",):
            show(table(("CODE", "MEANING"), [[str(int(code)), text] for code, text in MEANINGS.items()]))
        case ("environment",):
            show([*table(("VARIABLE", "MEANING"), [list(item) for item in ENVIRONMENT.items()]), "", CREDENTIALS])
        case ("markdown",):
            click.echo(markdown(root.command), nl=False)
        case _:
            show([_found(root, topic)])
    return Exit.OK


def _found(root: click.Context, names: Sequence[str]) -> str:
    context = root
    for name in names:
        group = context.command
        command = group.get_command(context, name) if isinstance(group, click.Group) else None
        if command is None:
            raise click.UsageError(
                f'there is no command or topic "{" ".join(names)}"; topics: {", ".join(TOPICS)}'
            )
        context = click.Context(command, info_name=name, parent=context)
    return context.get_help()


def markdown(root: click.Command) -> str:
    """The whole reference as one page."""
    lines = [
        "# The command line",
        "",
        "<!-- Generated: rampart help markdown > docs/cli.md -->",
        "",
        "Data goes to stdout, talk to stderr. `-o json` prints exactly what the API answers, whether or not a "
        "terminal is there. Nothing is asked without a terminal.",
        "",
        "## Environment",
        "",
        "| variable | meaning |",
        "|---|---|",
        *(f"| `{name}` | {meaning} |" for name, meaning in ENVIRONMENT.items()),
        "",
        CREDENTIALS,
        "",
        "## Exit codes",
        "",
        "| code | meaning |",
        "|---|---|",
        *(f"| {int(code)} | {meaning} |" for code, meaning in MEANINGS.items()),
    ]
    context = click.Context(root, info_name="rampart")
    assert isinstance(root, Sections)  # noqa: S101 - the only root there is
    for title, commands in root.sections.items():
        lines += ["", f"## {title}"]
        for command in commands:
            lines += _documented(click.Context(command, info_name=command.name, parent=context))
    return "\n".join(lines) + "\n"


def _documented(context: click.Context) -> Iterator[str]:
    command = context.command
    prose, _, example = (command.help or "").partition("\b")
    yield from ("", f"### `{context.command_path}`", "")
    yield "\n\n".join(" ".join(paragraph.split()) for paragraph in prose.strip().split("\n\n"))
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield from ("", "```sh", usage, "", *(line.strip() for line in example.strip().splitlines()[1:]), "```")
    records = [param.get_help_record(context) for param in command.params if isinstance(param, click.Option)]
    shown = [record for record in records if record is not None]
    if shown:
        yield from ("", "| option | |", "|---|---|")
        yield from (f"| `{name.replace('|', '/')}` | {text.replace('|', '/')} |" for name, text in shown)
    if isinstance(command, click.Group):
        for child in command.commands.values():
            yield from _documented(click.Context(child, info_name=child.name, parent=context))
