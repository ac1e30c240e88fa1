"""Whether exposure may rise at all, and a person's word that it may although a replica is missing."""

from collections.abc import Iterable

import click

from controller.cli.connection import Connection
from controller.cli.exits import Exit, Failure
from controller.cli.options import ListByDefault, note_option, output_option, server_option
from controller.cli.screens import raises_lines
from controller.cli.terminal import confirmed, on_terminal, present, require_terminal_or, say, show_json
from controller.domain.status import Raises, Released

RISK = (
    "a replica that is only cut off may hold kills that nobody else knows: until it is back, what they stopped "
    "can rise"
)


@click.group(cls=ListByDefault)
def raises() -> None:
    """Whether any exposure may rise, and which replicas are up.

    Nothing rises while a registered replica is missing, or when the database lost history. Kills and everything
    that lowers work all the same.

    \b
    Example:
      rampart raises
    """


@raises.command("list")
@server_option
@output_option
def raises_list(server: Connection, output: str) -> int:
    """Show what keeps exposure from rising, and the replicas. Exits with 1 while something does.

    \b
    Example:
      rampart raises list
    """
    answer = present(server.get("raises"), output, Raises, raises_lines)
    if answer.allowed:
        return Exit.OK
    if output == "text":
        for line in _what_to_do(answer):
            say(line)
    return Exit.FINDING


def _what_to_do(raises: Raises) -> Iterable[str]:
    if not raises.database_answers:
        yield "it may rise again when the database answers; kills need none. What is wrong: rampart doctor"
        return
    if any(one.state == "absent" for one in raises.replicas):
        yield "start what is absent again on its data directory, or mend its way to the database"
    yield 'gone for good, or you have looked: rampart raises release -m "why"'


@raises.command("release")
@note_option
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@server_option
@output_option
def raises_release(note: str, yes: bool, server: Connection, output: str) -> int:
    """Let exposure rise although a replica is missing.

    Absent replicas are forgotten until they check in again, and the barriers of lost history are lowered. Needs a
    token for all environments; it goes into the audit log. On a terminal it asks once; without one it needs --yes
    or a message.

    \b
    Example:
      rampart raises release -m "web-3 was scaled away"
    """
    require_terminal_or(yes or bool(note), 'a release needs --yes or its reason: rampart raises release -m "why"')
    now = server.get("raises")
    shown = now.decode(Raises)
    if shown.allowed:
        say("nothing to release: exposure may rise")
        if output == "json":
            show_json(b'{"released":[],"raises":' + now.body + b"}")
        return Exit.OK
    for line in raises_lines(shown):
        say(line)
    if on_terminal() and not yes:
        say(RISK)
        if not confirmed("Let exposure rise without them?"):
            raise Failure("nothing was released", Exit.FINDING)
    answer = server.post("raises", "release", body={"note": note})
    released = present(answer, output, Released, _released_lines)
    return Exit.OK if released.raises.allowed else Exit.FINDING


def _released_lines(released: Released) -> Iterable[str]:
    yield from (f"released {name}" for name in released.released)
    if released.raises.allowed:
        yield "exposure may rise"
    else:
        yield from raises_lines(released.raises)
