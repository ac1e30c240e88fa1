"""Findings for machines: GitHub annotations, SARIF and JUnit."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePath
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import escape, quoteattr

from controller.manifests.problem import Problem, render
from controller.manifests.rulebook import RULES, Rule
from controller.manifests.rulebook.rule import Severity

SARIF_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
ANNOTATIONS: dict[Severity, str] = {"error": "error", "warning": "warning", "note": "notice"}


def concise(problem: Problem) -> str:
    severity = "" if problem.severity == "error" else f" {problem.severity}:"
    return f"{problem.file}:{problem.line}:{problem.column}: {problem.code}{severity} {problem.message}"


def github(problem: Problem) -> str:
    """A workflow command: GitHub shows it beside the line of the change."""
    place = {
        "file": problem.file,
        "line": problem.line,
        "col": problem.column,
        "endColumn": problem.column + problem.length,
        "title": f"{problem.code} {RULES[problem.code].name}",
    }
    properties = ",".join(f"{key}={_property(str(value))}" for key, value in place.items())
    return f"::{ANNOTATIONS[problem.severity]} {properties}::{_data(_sentence(problem))}"


def _sentence(problem: Problem) -> str:
    return f"{problem.message} ({problem.help})" if problem.help else problem.message


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def sarif(problems: Sequence[Problem], version: str) -> dict[str, Any]:
    """One run in the Static Analysis Results Interchange Format, 2.1.0."""
    rules = list(RULES.values())
    driver = {"name": "rampart lint", "version": version, "rules": [_sarif_rule(rule) for rule in rules]}
    indices = {rule.code: index for index, rule in enumerate(rules)}
    return {
        "$schema": SARIF_SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": driver},
                "columnKind": "unicodeCodePoints",
                "results": [_sarif_result(problem, indices[problem.code]) for problem in problems],
            }
        ],
    }


def _sarif_rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.code,
        "name": rule.name,
        "shortDescription": {"text": rule.what},
        "fullDescription": {"text": f"{rule.what} {rule.why}"},
        "help": {"text": f"Bad:\n{rule.bad}\nGood:\n{rule.good}"},
        "defaultConfiguration": {"level": rule.severity},
    }


def _sarif_result(problem: Problem, index: int) -> dict[str, Any]:
    region: dict[str, Any] = {
        "startLine": problem.line,
        "startColumn": problem.column,
        "endColumn": problem.column + problem.length,
    }
    if problem.source_line:
        region["snippet"] = {"text": problem.source_line}
    place = {"artifactLocation": {"uri": _uri(problem.file)}, "region": region}
    result: dict[str, Any] = {
        "ruleId": problem.code,
        "ruleIndex": index,
        "level": problem.severity,
        "message": {"text": _sentence(problem)},
        "locations": [{"physicalLocation": place}],
    }
    if problem.fix is not None:
        span = problem.fix.span
        replaced = {
            "startLine": span.line,
            "startColumn": span.column,
            "endLine": span.line,
            "endColumn": span.column + span.length,
        }
        change = {"deletedRegion": replaced, "insertedContent": {"text": problem.fix.text}}
        artifact = {"artifactLocation": place["artifactLocation"], "replacements": [change]}
        result["fixes"] = [{"description": {"text": f"write {problem.fix.text}"}, "artifactChanges": [artifact]}]
    return result


def _uri(file: str) -> str:
    path = PurePath(file)
    return path.as_uri() if path.is_absolute() else quote(path.as_posix())


def junit(problems: Sequence[Problem], files: Iterable[str]) -> str:
    """A case for every file; its errors are a failure, what is milder goes to its output."""
    cases = [list(_case(file, [one for one in problems if one.file == file])) for file in files]
    failures = sum("    <failure" in line for case in cases for line in case)
    counts = f'tests="{len(cases)}" failures="{failures}" errors="0"'
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<testsuites name="rampart lint" {counts}>',
        f'<testsuite name="rampart lint" {counts} skipped="0">',
        *(line for case in cases for line in case),
        "</testsuite>",
        "</testsuites>",
    ]
    return "\n".join(lines)


def _case(file: str, problems: Sequence[Problem]) -> Iterator[str]:
    errors = [problem for problem in problems if problem.severity == "error"]
    milder = [problem for problem in problems if problem.severity != "error"]
    yield f"  <testcase classname={quoteattr('rampart.lint')} name={quoteattr(_printable(file))}>"
    if errors:
        first = quoteattr(_printable(f"{errors[0].code} {errors[0].message}"))
        yield f'    <failure type="error" message={first}>{_text(errors)}</failure>'
    if milder:
        yield f"    <system-out>{_text(milder)}</system-out>"
    yield "  </testcase>"


def _text(problems: Iterable[Problem]) -> str:
    return escape(_printable("\n".join(render(problem) for problem in problems)))


def _printable(text: str) -> str:
    """XML has no way to write most control characters."""
    return "".join(char if char in "\t\n" or char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
