"""Messages to channels that wait, and dead letters: what they say, why they are dead, and what to do with them."""

from collections.abc import Iterable, Sequence

import click

from controller.cli.connection import Connection
from controller.cli.exits import Exit, Failure
from controller.cli.options import ListByDefault, note_option, output_option, server_option
from controller.cli.screens import day_and_clock
from controller.cli.terminal import (
    confirmed,
    counted,
    document,
    on_terminal,
    present,
    require_terminal_or,
    say,
    show,
    table,
)
from controller.domain.notification import Backlog, DeadLetter, LettersChanged
from controller.domain.quantities import duration_text

PAGE = 1000
LATE_SECONDS = 60


@click.group(cls=ListByDefault)
def notifications() -> None:
    """Messages to channels: what waits, and the dead letters.

    A message that a channel refuses for good, or does not take for a day, is a dead letter. It stays until
    somebody sends it again or discards it.

    \b
    Example:
      rampart notifications
    """


@notifications.command("list")
@click.option("--channel", metavar="NAME", help="Only of this channel.")
@server_option
@output_option
def notifications_list(channel: str | None, server: Connection, output: str) -> int:
    """Show what each channel was not told yet, and the dead letters with why. Exits with 1 when there are any.

    \b
    Example:
      rampart notifications list --channel oncall
    """
    backlog = [one for one in server.get("notifications").decode(list[Backlog]) if channel in (None, one.channel)]
    if channel and not backlog:
        raise Failure(f'no channel is called "{channel}", and nothing waits for one', Exit.USAGE)
    dead = _dead(server, channel)
    if output == "json":
        click.echo(document({"channels": backlog, "dead": dead}).decode())
    else:
        show(_channels(backlog))
        show(_letters(dead))
    if dead and output == "text":
        say("try again: rampart notifications redeliver ID …; forget: rampart notifications discard ID …")
    return Exit.FINDING if dead else Exit.OK


def _dead(server: Connection, channel: str | None) -> list[DeadLetter]:
    found: list[DeadLetter] = []
    while True:
        query: dict[str, object] = {"limit": PAGE, "after": found[-1].id if found else 0}
        if channel:
            query["channel"] = channel
        letters = server.get("notifications", "dead", **query).decode(list[DeadLetter])
        found += letters
        if len(letters) < PAGE:
            return found


def _channels(backlog: Sequence[Backlog]) -> Iterable[str]:
    if not backlog:
        yield "no channels: nobody is told of anything"
        return
    rows = [[one.channel, str(one.dead) if one.dead else "none", _waiting(one)] for one in backlog]
    yield from table(["CHANNEL", "DEAD LETTERS", "WAITING"], rows)


def _waiting(one: Backlog) -> str:
    if not one.waiting:
        return "none"
    text = f"{one.waiting}, the oldest for {duration_text(round(one.oldest_waiting_seconds))}"
    text += f": {one.why}" if one.why else ""
    return click.style(text, fg="yellow") if one.oldest_waiting_seconds > LATE_SECONDS else text


def _letters(dead: Sequence[DeadLetter]) -> Iterable[str]:
    for one in dead:
        yield ""
        told = one.message
        if told is None:
            yield f"{one.id}  to {one.channel}: a message that cannot be read"
        else:
            what = f"{told.rollout or told.flag} {told.event} in {told.environment}"
            yield f"{one.id}  to {one.channel}: {what}, {day_and_clock(told.at)}"
            yield f"   {told.reason}"
        tries = f" after {counted(one.attempts, 'attempt')}" if one.attempts else ""
        yield click.style(f"   given up{tries}: {one.why}", fg="red")


@notifications.command("redeliver")
@click.argument("ids", metavar="[ID]...", type=click.IntRange(min=1), nargs=-1)
@click.option("--channel", metavar="NAME", help="All dead letters of this channel.")
@click.option("--all", "everything", is_flag=True, help="All dead letters.")
@note_option
@server_option
@output_option
def redeliver(
    ids: tuple[int, ...], channel: str | None, everything: bool, note: str, server: Connection, output: str
) -> int:
    """Try dead letters again, by id, of a channel, or all of them.

    They take the place in the queue that they had. What came after them may have been told already: the end of
    something before its beginning. Each message carries the time of what it tells.

    \b
    Example:
      rampart notifications redeliver --channel oncall
    """
    body = _body(ids, channel, everything, note)
    answer = server.post("notifications", "dead", "redeliver", body=body)
    present(answer, output, LettersChanged, lambda changed: [f"{_letters_text(changed)} will be tried again"])
    return Exit.OK


@notifications.command("discard")
@click.argument("ids", metavar="[ID]...", type=click.IntRange(min=1), nargs=-1)
@click.option("--channel", metavar="NAME", help="All dead letters of this channel.")
@click.option("--all", "everything", is_flag=True, help="All dead letters.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@note_option
@server_option
@output_option
def discard(
    ids: tuple[int, ...],
    channel: str | None,
    everything: bool,
    yes: bool,
    note: str,
    server: Connection,
    output: str,
) -> int:
    """Forget dead letters that nobody needs any more. What they told stays in the audit log.

    On a terminal it asks once; without one it needs --yes or a message.

    \b
    Example:
      rampart notifications discard 17 18 -m "the receiver was switched off"
    """
    body = _body(ids, channel, everything, note)
    require_terminal_or(
        yes or bool(note), 'this needs --yes or its reason: rampart notifications discard … -m "why"'
    )
    if on_terminal() and not yes and not confirmed("Forget these dead letters?"):
        raise Failure("nothing was discarded", Exit.FINDING)
    answer = server.post("notifications", "dead", "discard", body=body)
    present(answer, output, LettersChanged, lambda changed: [f"discarded {_letters_text(changed)}"])
    return Exit.OK


def _body(ids: tuple[int, ...], channel: str | None, everything: bool, note: str) -> dict[str, object]:
    if not ids and not channel and not everything:
        raise click.UsageError("name the ids of dead letters, or --channel, or --all")
    if everything and (ids or channel):
        raise click.UsageError("--all is every dead letter; leave it away, or ids and --channel")
    return {"ids": [str(one) for one in ids], "channel": channel, "everything": everything, "note": note}


def _letters_text(changed: LettersChanged) -> str:
    return counted(len(changed.ids), "dead letter") if changed.ids else "no dead letter"
