"""Each promise names tests, and the tests that are named exist."""

import re

from tests.support.repository import ROOT

PAGE = (ROOT / "docs" / "promises.md").read_text()
ROWS = dict(re.findall(r"^\| \*\*(I\d+) (.*)$", PAGE, re.MULTILINE))


def named(text: str) -> set[str]:
    return set(re.findall(r"`(test_\w+)`", text))


def existing() -> set[str]:
    files = (ROOT / "tests").rglob("*.py")
    return {
        name
        for file in files
        for name in re.findall(r"^ *(?:async )?def (test_\w+)", file.read_text(), re.MULTILINE)
    }


def test_every_test_that_a_promise_names_exists() -> None:
    assert named(PAGE)
    assert named(PAGE) - existing() == set()


def test_every_promise_names_a_test_and_what_was_broken() -> None:
    assert list(ROWS) == [f"I{number}" for number in range(1, 22)]
    for promise, row in ROWS.items():
        *_, tests, broken, end = row.split("|")
        assert named(tests), promise
        assert broken.strip(), promise
        assert not end.strip(), promise
