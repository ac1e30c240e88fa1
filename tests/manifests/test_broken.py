"""Broken files as data: each states at its end what is wrong with it, and where, and what to write instead."""

import re
from datetime import date
from pathlib import Path

import msgspec
import pytest

from controller.manifests.lint import lint
from controller.manifests.problem import Problem, render
from controller.manifests.rulebook import RULES
from tests.manifests.surroundings import SURROUNDINGS

FOLDER = Path(__file__).parent / "broken"
FILES = sorted(FOLDER.glob("*.yaml"))
ROOT = Path(__file__).parents[2]
TODAY = date(2026, 11, 21)


def expected(text: str) -> list[str]:
    return [line.removeprefix("# expect: ") for line in text.splitlines() if line.startswith("# expect: ")]


def stated(problem: Problem) -> str:
    place = f"{problem.line}:{problem.column} {problem.length}"
    return f"{place} {problem.code} {problem.severity} | {problem.message} | {problem.help}".rstrip(" |")


def found(path: Path) -> list[Problem]:
    """What lint finds beside a server; at the author's desk, with or without notes, if the first line says so."""
    text = path.read_bytes()
    if not text.startswith((b"# offline", b"# with notes")):
        return lint([(path.name, text)], SURROUNDINGS)
    notes = text.startswith(b"# with notes")
    problems = lint([(path.name, text)], today=TODAY)
    return [problem for problem in problems if notes or problem.severity != "note"]


@pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
def test_a_broken_file_gets_exactly_the_findings_it_states(path: Path) -> None:
    assert [stated(problem) for problem in found(path)] == expected(path.read_text())


@pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
def test_the_caret_stands_under_what_is_wrong(path: Path) -> None:
    lines = path.read_text().splitlines()
    for problem in found(path):
        printed = render(problem).splitlines()
        source, carets = printed[2], printed[3]
        assert source.split("|", 1)[1] == lines[problem.line - 1].rstrip()
        assert carets.index("^") == source.index("|") + problem.column
        assert carets.count("^") <= problem.length


def test_every_code_has_a_rule_and_is_shown_by_a_broken_file() -> None:
    shown = {problem.code for path in FILES for problem in found(path)}
    used = {
        code
        for module in (ROOT / "controller" / "manifests").glob("*.py")
        for code in re.findall(r'"(R\d{3})"', module.read_text())
    }
    assert shown == used == set(RULES)


def test_a_finding_is_printed_as_documented() -> None:
    problem = Problem(
        file="bad.policy.yaml",
        line=27,
        column=31,
        length=9,
        code="R010",
        message='metric "eror_rate" is not defined in this policy. defined: error_rate, latency_p95',
        help='did you mean "error_rate"?',
        source_line="    - { id: errors-high,  if: eror_rate > 1,            for: 5m, then: pause }",
    )
    assert render(problem) == (
        'bad.policy.yaml:27:31: R010 metric "eror_rate" is not defined in this policy. '
        "defined: error_rate, latency_p95\n"
        "   |\n"
        " 27|    - { id: errors-high,  if: eror_rate > 1,            for: 5m, then: pause }\n"
        "   |                              ^^^^^^^^^\n"
        '   = help: did you mean "error_rate"?'
    )


def test_a_warning_says_that_it_is_one() -> None:
    problem = found(FOLDER / "short-bake.rollout.yaml")[0]
    assert render(problem).startswith("short-bake.rollout.yaml:8:44: R022 warning: ")


def test_a_finding_can_be_sent_as_json() -> None:
    problems = found(FOLDER / "many-at-once.policy.yaml")
    assert msgspec.json.decode(msgspec.json.encode(problems), type=list[Problem]) == problems
