"""What people read: the notes after an installation, the values, and the archive."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.conftest import CHART, Document, Helm, values_of
from tests.chart.test_objects import understood
from tests.support.repository import blocks

VALUES = (CHART / "values.yaml").read_text()


def notes(helm: Helm, values: Document, **release: str) -> str:
    return helm.render(values, **release)["NOTES.txt"]


def leaves(tree: Document, path: str = "") -> set[str]:
    """Dotted paths of values; free maps and lists are one."""
    found: set[str] = set()
    for key, value in tree.items():
        deeper = isinstance(value, dict) and value and "/" not in next(iter(value))
        found |= leaves(value, f"{path}{key}.") if deeper else {f"{path}{key}"}
    return found


def get(tree: Any, path: str) -> Any:
    for key in path.split("."):
        tree = tree[key]
    return tree


def test_the_notes_say_how_to_kill_and_the_program_understands_it(helm: Helm, values: Document) -> None:
    said = notes(helm, values)
    assert "HOW TO KILL" in said
    commands = re.findall(r"(?:^| |-- )(rampart (?:kill|doctor|list|token|trigger)[^\n(]*)", said)
    assert len(commands) >= 7
    for command in commands:
        understood(shlex.split(command)[1:])


def test_the_notes_name_the_objects_of_this_release(helm: Helm) -> None:
    said = notes(helm, values_of("everything"), namespace="flags")
    names = {one["metadata"]["name"] for one in helm.documents(values_of("everything"), namespace="flags")}
    named = re.findall(r"(?:statefulset|service)/(\S+)", said)
    assert named
    assert set(named) <= names
    assert "-n flags exec flags-of-all-0 --" in said
    assert "http://flags-of-all.flags:80" in said
    assert "https://flags.example/r/PLAN" in said


def test_the_notes_say_that_a_trial_is_one(helm: Helm) -> None:
    trial, live = notes(helm, values_of("trial")), notes(helm, values_of("production"))
    assert "THIS IS A TRIAL" in trial
    assert "admin.token" in trial
    assert "TRIAL" not in live
    assert "admin.token" not in live
    assert "get secret rampart-admin -o go-template='{{ index .data \"token\" | base64decode }}'" in live
    assert "rampart-1" in live
    assert "rampart-1" not in trial


@pytest.mark.parametrize(
    ("more", "warning"),
    [
        ({"ingress": {"enabled": True, "hosts": ["a.example"]}}, "/metrics to everybody"),
        ({"service": {"publishNotReadyAddresses": False}}, "leads nowhere"),
        ({"prometheusRule": {"enabled": True}}, "runbookBase is empty"),
        ({}, "priorityClassName is empty"),
    ],
)
def test_the_notes_warn_of_what_is_allowed_but_unwise(helm: Helm, more: Document, warning: str) -> None:
    assert warning in notes(helm, values_of("trial") | more)
    assert warning not in notes(helm, values_of("production"))


def test_every_value_has_words_of_its_own() -> None:
    bare, lines = [], ["", *VALUES.splitlines(), ""]
    for above, line, below in zip(lines, lines[1:], lines[2:], strict=False):
        key = re.match(r" *(\w+):", line)
        if key and not above.lstrip().startswith("#") and not below.lstrip().startswith("#"):
            bare.append(key[1])
    # What one sentence above says of several, and parts of what Kubernetes calls so.
    assert set(bare) == {
        "requests", "limits", "cpu", "memory", "periodSeconds", "timeoutSeconds", "failureThreshold", "port",
        "livenessProbe", "readinessProbe", "extraVolumeMounts", "podAnnotations", "nodeSelector", "tolerations",
        "affinity", "runAsNonRoot", "runAsUser", "runAsGroup", "seccompProfile", "type",
        "containerSecurityContext", "allowPrivilegeEscalation", "readOnlyRootFilesystem", "capabilities", "drop",
    }  # fmt: skip


def test_the_largest_example_sets_every_value() -> None:
    everything = values_of("everything")
    default = yaml.safe_load(VALUES)
    exceptions = {"database.embedded", "manifests.existingConfigMap"}  # they exclude what is set there
    exceptions |= {
        path for path in leaves(default) if path.split(".")[0].endswith(("Probe", "resources", "SecurityContext"))
    }
    for path in leaves(default) - exceptions:
        assert get(everything, path) not in ("", [], {}), path


def test_the_schema_knows_the_values_and_no_others(helm: Helm) -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    default = yaml.safe_load(VALUES)
    assert set(schema["properties"]) == {*default, "global"}
    for name, section in default.items():
        known = schema["properties"][name].get("properties")
        if known and not name.endswith("Probe") and name != "resources":
            assert set(known) == set(section), name


def test_the_archive_holds_alerts_and_dashboard_and_no_examples(helm: Helm, tmp_path: Path) -> None:
    held = helm.package(tmp_path)
    assert {"files/alerts.yaml", "files/dashboard.json", "README.md"} <= set(held["files"])
    assert not [name for name in held["files"] if name.startswith("ci/")]
    assert "templates/statefulset.yaml" in held["templates"]


@pytest.mark.parametrize("page", ["helm/rampart/README.md", "docs/kubernetes.md"])
def test_the_values_that_a_page_shows_are_taken(helm: Helm, page: str) -> None:
    shown = [yaml.safe_load(text) for text in blocks(CHART.parents[1] / page, "yaml")]
    shown = [one for one in shown if isinstance(one, dict) and "apiVersion" not in one]
    assert shown
    for values in shown:
        whole = values if "database" in values else values | {"database": {"existingSecret": "rampart-database"}}
        assert helm.documents(whole)
