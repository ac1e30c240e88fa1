"""Text on a terminal: data on stdout, talk on stderr, tables, and a screen that is drawn in place."""

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import click
import msgspec

from controller.cli.connection import Answer
from controller.cli.exits import Exit, Failure

T = TypeVar("T")

_STYLE = re.compile(r"(\x1b\[[0-9;]*m)")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def colour_wanted() -> bool | None:
    """False when the user declined; None leaves it to whether the stream is a terminal."""
    return False if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else None


def say(text: str) -> None:
    click.echo(printable(text), err=True, color=colour_wanted())


def show(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(printable(line), color=colour_wanted())


def printable(text: str) -> str:
    """Styles and line breaks stay; what a server or a file says must not steer the terminal that shows it."""
    parts = _STYLE.split(text)
    return "".join(
        part if _STYLE.fullmatch(part) else _CONTROL.sub("\N{REPLACEMENT CHARACTER}", part) for part in parts
    )


def present(answer: Answer, output: str, wanted: type[T], lines: Callable[[T], Iterable[str]]) -> T:
    """The answer as JSON exactly as it came (indented), or as lines made of its value. Returns the value."""
    value = answer.decode(wanted)
    if output == "json":
        show_json(answer.body)
    else:
        show(lines(value))
    return value


def show_json(document: bytes) -> None:
    click.echo(msgspec.json.format(document, indent=2).decode())


def document(value: object) -> bytes:
    """A value as JSON that people read."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2)


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Left-aligned columns, two spaces apart. Cells may be styled."""
    plain = [[click.unstyle(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[column]) for row in plain) for column in range(len(head))]
    lines = []
    for row, bare in zip([head, *rows], plain, strict=True):
        cells = [cell + " " * (width - len(text)) for cell, text, width in zip(row, bare, widths, strict=True)]
        lines.append("  ".join(cells).rstrip())
    return [click.style(lines[0], dim=True), *lines[1:]]


def on_terminal() -> bool:
    """Whether a question can be asked: somebody types, and somebody sees the question."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def require_terminal_or(given: bool, missing: str) -> None:
    if not given and not on_terminal():
        raise Failure(f"without a terminal {missing}", Exit.USAGE)


def confirmed(question: str) -> bool:
    """Ask once on stderr. Nothing but yes is yes."""
    return click.confirm(question, default=False, err=True)


def asked(question: str) -> str:
    """One line of text from the user; empty when there was none."""
    answer: str = click.prompt(question, default="", show_default=False, err=True)
    return answer.strip()


def clipped(line: str, width: int) -> str:
    """At most `width` visible characters; styles count nothing and are all kept."""
    parts, left = [], width
    for part in _STYLE.split(line):
        if part.startswith("\x1b"):
            parts.append(part)
        else:
            parts.append(part[:left])
            left -= len(parts[-1])
    return "".join(parts)


class Screen:
    """The terminal's second screen, so that what was there before comes back afterwards."""

    def draw(self, lines: Sequence[str]) -> None:
        width, height = shutil.get_terminal_size()
        visible = [clipped(printable(line), width) for line in lines[: height - 1]]
        if colour_wanted() is False:
            visible = [click.unstyle(line) for line in visible]
        sys.stdout.write("\x1b[H" + "".join(f"{line}\x1b[K\r\n" for line in visible) + "\x1b[J")
        sys.stdout.flush()


@contextmanager
def screen() -> Iterator[Screen]:
    sys.stdout.write("\x1b[?1049h\x1b[?25l")
    try:
        yield Screen()
    finally:
        sys.stdout.write("\x1b[?25h\x1b[?1049l")
        sys.stdout.flush()
