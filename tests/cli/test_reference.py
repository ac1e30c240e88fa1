"""Help is part of the product."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from controller.cli import root
from controller.cli.exits import Exit
from controller.cli.reference import markdown
from tests.cli.conftest import Rampart

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


def commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield f"{path} {name}", child
            yield from commands(child, f"{path} {name}")


ALL = dict(commands(root, "rampart"))


@pytest.mark.parametrize("path", ALL)
def test_every_command_has_one_line_and_an_example_of_itself(path: str) -> None:
    text = ALL[path].help or ""
    assert text.splitlines()[0].endswith(".")
    _, _, examples = re.split(r"(Examples?:)\n", text, maxsplit=1)
    assert f"  {path}" in examples


def test_every_short_help_fits_its_line(rampart: Rampart) -> None:
    assert "..." not in rampart("--help").stdout.partition("\n")[2]


def test_the_reference_page_is_not_stale() -> None:
    assert PAGE.read_text() == markdown(root), "write it anew: rampart help markdown > docs/cli.md"


def test_help_of_a_subcommand_is_that_subcommands_help(rampart: Rampart) -> None:
    told = rampart("help", "audit", "verify")
    assert told.returncode == 0
    assert told.stdout.startswith("Usage: rampart audit verify")


def test_the_table_of_exit_codes_names_them_all(rampart: Rampart) -> None:
    shown = rampart("help", "exit-codes").stdout
    assert [line.split()[0] for line in shown.splitlines()[1:]] == [str(int(code)) for code in Exit]


def test_a_mistyped_command_gets_a_suggestion(rampart: Rampart) -> None:
    told = rampart("stauts", "checkout-v2")
    assert told.returncode == 2
    assert 'did you mean "status"?' in told.stderr


def test_an_unknown_topic_is_a_usage_error(rampart: Rampart) -> None:
    told = rampart("help", "nonsense")
    assert told.returncode == 2
    assert "exit-codes" in told.stderr
