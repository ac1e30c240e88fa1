"""Findings for machines have the form that those machines ask for."""

import json
import xml.etree.ElementTree as ET
from typing import Any

import jsonschema_rs
import msgspec
import pytest

from controller.manifests.lint import lint
from controller.manifests.problem import Problem
from controller.manifests.report import concise, github, junit, sarif
from controller.manifests.rulebook import RULES
from tests.manifests.test_broken import FILES

TEXT = {"type": "object", "required": ["text"], "properties": {"text": {"type": "string", "minLength": 1}}}
PLACE = {"type": "integer", "minimum": 1}
URI = {"type": "object", "required": ["uri"], "properties": {"uri": {"type": "string", "format": "uri-reference"}}}
REGION = {
    "type": "object",
    "required": ["startLine", "startColumn"],
    "additionalProperties": False,
    "properties": {**dict.fromkeys(("startLine", "startColumn", "endLine", "endColumn"), PLACE), "snippet": TEXT},
}
LEVEL = {"enum": ["none", "note", "warning", "error"]}
RULE = {
    "type": "object",
    "required": ["id"],
    "additionalProperties": False,
    "properties": {
        "id": {"type": "string"},
        "name": {"type": "string"},
        **dict.fromkeys(("shortDescription", "fullDescription", "help"), TEXT),
        "defaultConfiguration": {"type": "object", "properties": {"level": LEVEL}},
    },
}
FIX = {
    "type": "object",
    "required": ["artifactChanges"],
    "properties": {
        "description": TEXT,
        "artifactChanges": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["artifactLocation", "replacements"],
                "properties": {
                    "artifactLocation": URI,
                    "replacements": {
                        "type": "array",
                        "minItems": 1,
                        "items": {
                            "type": "object",
                            "required": ["deletedRegion"],
                            "properties": {"deletedRegion": REGION, "insertedContent": TEXT},
                        },
                    },
                },
            },
        },
    },
}
RESULT = {
    "type": "object",
    "required": ["message"],
    "additionalProperties": False,
    "properties": {
        "ruleId": {"type": "string"},
        "ruleIndex": {"type": "integer", "minimum": 0},
        "level": LEVEL,
        "message": TEXT,
        "locations": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "physicalLocation": {
                        "type": "object",
                        "required": ["artifactLocation"],
                        "properties": {"artifactLocation": URI, "region": REGION},
                    }
                },
            },
        },
        "fixes": {"type": "array", "items": FIX},
    },
}
SARIF = {
    "type": "object",
    "required": ["version", "runs"],
    "additionalProperties": False,
    "properties": {
        "$schema": {"type": "string", "format": "uri"},
        "version": {"const": "2.1.0"},
        "runs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["tool"],
                "additionalProperties": False,
                "properties": {
                    "tool": {
                        "type": "object",
                        "required": ["driver"],
                        "properties": {
                            "driver": {
                                "type": "object",
                                "required": ["name"],
                                "properties": {"rules": {"type": "array", "uniqueItems": True, "items": RULE}},
                            }
                        },
                    },
                    "columnKind": {"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
                    "results": {"type": "array", "items": RESULT},
                },
            },
        },
    },
}
"""The parts of the Static Analysis Results Interchange Format 2.1.0 that a report of ours has."""


def problem(**changes: Any) -> Problem:
    fields: dict[str, Any] = {"file": "a/b.policy.yaml", "line": 3, "column": 5, "length": 2, "code": "R022"}
    return Problem(**{**fields, "message": "too short", "severity": "warning", **changes})


ALL = [found for path in FILES for found in lint([(path.name, path.read_bytes())])]


def test_sarif_has_the_structure_of_the_standard() -> None:
    document = json.loads(msgspec.json.encode(sarif(ALL, "1.2.3")))
    jsonschema_rs.validator_for(SARIF, validate_formats=True).validate(document)
    run = document["runs"][0]
    assert len(run["results"]) == len(ALL)
    assert any("fixes" in result for result in run["results"])
    rules = run["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == list(RULES)
    assert all(rules[result["ruleIndex"]]["id"] == result["ruleId"] for result in run["results"])


def test_sarif_places_a_finding_where_text_does() -> None:
    [result] = sarif([problem(file="a folder/ä.policy.yaml", help="bake longer")], "1")["runs"][0]["results"]
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "a%20folder/%C3%A4.policy.yaml"
    assert place["region"] == {"startLine": 3, "startColumn": 5, "endColumn": 7}
    assert result["message"]["text"] == "too short (bake longer)"
    assert result["level"] == "warning"


def test_github_shows_a_finding_beside_its_line() -> None:
    told = github(problem(help="bake longer"))
    place = "file=a/b.policy.yaml,line=3,col=5,endColumn=7,title=R022 short-bake"
    assert told == f"::warning {place}::too short (bake longer)"


@pytest.mark.parametrize(("severity", "command"), [("error", "error"), ("warning", "warning"), ("note", "notice")])
def test_github_knows_three_severities(severity: Any, command: str) -> None:
    assert github(problem(severity=severity)).startswith(f"::{command} ")


def test_nothing_in_a_finding_can_end_a_workflow_command_or_begin_another() -> None:
    told = github(problem(file="a,b:c\n::set-output x", message="100%\r\n::stop-commands::x"))
    assert "\n" not in told
    assert "\r" not in told
    assert "file=a%2Cb%3Ac%0A%3A%3Aset-output x," in told
    assert told.endswith("::100%25%0D%0A::stop-commands::x")


def test_junit_counts_files_and_fails_those_with_errors() -> None:
    bad = problem(severity="error", message='a < b & "c"\x00', file="bad.yaml")
    mild = problem(file="mild.yaml")
    suites = ET.fromstring(junit([bad, mild], ["bad.yaml", "mild.yaml", "good.yaml"]))
    suite = suites[0]
    assert (suite.get("tests"), suite.get("failures")) == ("3", "1")
    cases = {case.get("name"): case for case in suite}
    failure = cases["bad.yaml"].find("failure")
    assert failure is not None
    assert 'a < b & "c"' in str(failure.get("message"))
    assert cases["mild.yaml"].find("failure") is None
    assert "R022" in str(cases["mild.yaml"].findtext("system-out"))
    assert len(cases["good.yaml"]) == 0


def test_concise_is_one_line_that_editors_can_jump_to() -> None:
    assert concise(problem()) == "a/b.policy.yaml:3:5: R022 warning: too short"
