"""The `rampart` command. It talks HTTP and never imports the server, so that a kill starts at once."""

import os
import sys
from collections.abc import Sequence

import click

from controller import __version__
from controller.cli import (
    audit,
    credentials,
    fmt,
    freezes,
    init,
    kills,
    lint,
    manifests,
    notifications,
    raises,
    reference,
    rehearse,
    runs,
    server,
    triggers,
)
from controller.cli.exits import Exit, Failure
from controller.cli.terminal import say
from controller.errors import SettingsError

COMMANDS = {command.name: command for command in runs.COMMANDS}
SECTIONS = {
    "Stop": [kills.kill, COMMANDS["pause"], COMMANDS["step-back"], kills.reset, freezes.freeze],
    "Look": [
        runs.list_,
        runs.status,
        runs.explain,
        runs.report,
        runs.wait,
        notifications.notifications,
        audit.audit,
        audit.verify,
    ],
    "Drive": [
        COMMANDS["start"],
        runs.adopt,
        *(COMMANDS[verb] for verb in ("advance", "resume", "approve", "abandon")),
        raises.raises,
    ],
    "Write": [
        init.init,
        lint.lint,
        fmt.fmt,
        rehearse.test,
        lint.schema,
        manifests.diff,
        manifests.apply,
        manifests.flag,
    ],
    "Access": [credentials.token, credentials.sdk_key, triggers.trigger],
    "Server": [
        server.demo,
        server.serve,
        server.migrate,
        server.doctor,
        server.healthz,
        server.version,
        reference.help_,
    ],
}


@click.group(
    cls=reference.Sections,
    sections=SECTIONS,
    epilog="More: rampart help exit-codes, rampart help environment. First time here: rampart demo",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, message="rampart %(version)s")
def root() -> None:
    """Raise a feature flag step by step, watch what it does, and stop it in time."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code. A user's or a network's fault is a sentence, never a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # An old locale must not turn a tick mark into a crash.
            stream.reconfigure(errors="replace")
    try:
        result = root.main(args=arguments, prog_name="rampart", standalone_mode=False)
        sys.stdout.flush()
    except Failure as failure:
        return _told(failure)
    except SettingsError as error:
        return _told(Failure(f"settings: {error}", Exit.USAGE))
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return Exit.USAGE
    except click.ClickException as error:
        return _told(_misused(error))
    except (click.Abort, KeyboardInterrupt):
        say("interrupted")
        return Exit.INTERRUPTED
    except BrokenPipeError:
        return _reader_gone()
    return result if isinstance(result, int) else Exit.OK


def _told(failure: Failure) -> int:
    say(f"{click.style('error:', fg='red', bold=True)} {failure}")
    for point in failure.points:
        say(f"  - {point}")
    if failure.hint:
        say(f"  = help: {failure.hint}")
    return failure.code


def _misused(error: click.ClickException) -> Failure:
    context = error.ctx if isinstance(error, click.UsageError) else None
    hint = f"{context.command_path} --help shows how" if context else ""
    return Failure(error.format_message(), Exit.USAGE, hint=hint)


def _reader_gone() -> int:
    """As `rampart list | head` does. What is still buffered goes nowhere, so that the exit is quiet."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + 13


__all__ = ["main", "root"]
