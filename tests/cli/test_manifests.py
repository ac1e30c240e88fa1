"""Manifests: compared with the server, handed over."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from controller.domain.status import ApplyResult, Change
from tests.cli.conftest import Rampart
from tests.cli.stub_server import StubServer, problem
from tests.cli.terminal import Terminal

BROKEN = """\
apiVersion: rampart/v1
kind: Flag
metadata: { name: checkout-v2 }
spec: { enviroment: production, key: checkout-v2 }
"""
CHANGES = [
    Change(kind="RolloutPlan", name="checkout-v2", path="spec.stages[1].bake", before="2h", after="1h"),
    Change(
        kind="RolloutPlan",
        name="checkout-v2",
        path="spec.guardrails[1]",
        before={"policy": "payments"},
        after=None,
        note="removes a kill rule",
    ),
    Change(kind="GuardrailPolicy", name="web-service", path="", before=None, after={"spec": {}}),
]
CHANGED = ApplyResult(
    applied=True,
    changes=CHANGES,
    revisions={"RolloutPlan/checkout-v2": 5},
    pinned_runs=["checkout-v2#3"],
    warnings=["no kill rule"],
)
SAME = ApplyResult(applied=True, changes=[], revisions={})


@pytest.fixture
def flag_file(tmp_path: Path) -> Path:
    path = tmp_path / "checkout-v2.flag.yaml"
    path.write_text(BROKEN.replace("enviroment", "environment"))
    return path


def test_diff_shows_each_change_and_exits_with_one(rampart: Rampart, server: StubServer, flag_file: Path) -> None:
    server.answers("POST", "manifests", CHANGED)
    told = rampart("diff", str(flag_file))
    assert told.returncode == 1
    assert told.stdout.splitlines() == [
        "RolloutPlan checkout-v2",
        "  ~ spec.stages[1].bake   2h → 1h",
        '  - spec.guardrails[1]   {"policy":"payments"}   ! removes a kill rule',
        "GuardrailPolicy web-service",
        "  + (the whole document)",
    ]
    [sent] = server.bodies("manifests")
    assert sent == {"files": [{"name": str(flag_file), "text": flag_file.read_text()}], "dry_run": True}


def test_no_difference_exits_with_zero(rampart: Rampart, server: StubServer, flag_file: Path) -> None:
    server.answers("POST", "manifests", SAME)
    told = rampart("diff", str(flag_file))
    assert (told.returncode, told.stdout) == (0, "")


def test_apply_says_what_was_applied_and_which_runs_stay_pinned(
    rampart: Rampart, server: StubServer, flag_file: Path
) -> None:
    server.answers("POST", "manifests", CHANGED)
    told = rampart("apply", str(flag_file), "-m", "shorter bake")
    assert told.returncode == 0
    assert "applied: RolloutPlan/checkout-v2 revision 5" in told.stderr
    assert "checkout-v2#3; move with --adopt" in told.stderr
    assert "warning: no kill rule" in told.stderr
    [sent] = server.bodies("manifests")
    assert (sent["dry_run"], sent["adopt"], sent["note"]) == (False, False, "shorter bake")


def test_apply_passes_adopt_and_dry_run_on(rampart: Rampart, server: StubServer, flag_file: Path) -> None:
    server.answers("POST", "manifests", CHANGED)
    told = rampart("apply", str(flag_file), "--adopt", "--dry-run", "-o", "json")
    [sent] = server.bodies("manifests")
    assert (sent["dry_run"], sent["adopt"]) == (True, True)
    assert json.loads(told.stdout)["pinned_runs"] == ["checkout-v2#3"]


def test_the_servers_findings_are_shown_as_lint_shows_them(
    rampart: Rampart, server: StubServer, tmp_path: Path
) -> None:
    (tmp_path / "bad.flag.yaml").write_text(BROKEN)
    finding: dict[str, Any] = {
        "file": "bad.flag.yaml",
        "line": 4,
        "column": 9,
        "length": 10,
        "code": "R002",
        "message": 'unknown key "enviroment"',
        "help": 'did you mean "environment"?',
    }
    refusal = problem("invalid", 422, "the manifests have 1 problem", problems=[finding])
    server.answers("POST", "manifests", refusal)
    told = rampart("apply", "bad.flag.yaml")
    assert told.returncode == 1
    lines = told.stderr.splitlines()
    assert lines[0] == 'bad.flag.yaml:4:9: R002 unknown key "enviroment"'
    assert lines[2].endswith("spec: { enviroment: production, key: checkout-v2 }")
    assert lines[3].index("^^^^^^^^^^") == lines[2].index("enviroment")
    assert lines[-1] == "error: the manifests have 1 problem"


def test_a_provider_that_cannot_represent_a_plan_refuses_it(
    rampart: Rampart, server: StubServer, flag_file: Path
) -> None:
    server.answers(
        "POST", "manifests", problem("refused", 422, "ld cannot represent it", blocks=["whole percents only"])
    )
    told = rampart("apply", str(flag_file))
    assert told.returncode == 4
    assert "  - whole percents only" in told.stderr


@pytest.mark.parametrize("content", [b"a: \xff\n", b"x" * 300_000])
def test_a_file_that_cannot_be_sent_is_refused_here(
    rampart: Rampart, server: StubServer, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "odd.flag.yaml").write_bytes(content)
    told = rampart("apply", "odd.flag.yaml")
    assert told.returncode == 1
    assert "odd.flag.yaml" in told.stderr
    assert server.asked == []


def test_flag_create_applies_a_sound_manifest(rampart: Rampart, server: StubServer, tmp_path: Path) -> None:
    server.answers("POST", "manifests", SAME)
    created = rampart(
        *["flag", "create", "Checkout.V2", "--environment", "production"],
        *["--variation", "blue=#00f", "--variation", "limit=12", "--variation", 'none={"a": [1]}'],
    )
    assert created.returncode == 0
    [sent] = server.bodies("manifests")
    text = sent["files"][0]["text"]
    spec = json.loads(text)["spec"]
    assert spec["variations"] == {"blue": "#00f", "limit": 12, "none": {"a": [1]}}
    assert spec["off"] == "none"
    (tmp_path / "made.flag.yaml").write_text(text)
    assert rampart("lint", "made.flag.yaml").returncode == 0


def test_a_flag_is_boolean_unless_told_otherwise(rampart: Rampart, server: StubServer) -> None:
    server.answers("POST", "manifests", SAME)
    rampart("flag", "create", "checkout-v2", "--environment", "production")
    spec = json.loads(server.bodies("manifests")[0]["files"][0]["text"])["spec"]
    assert spec == {"environment": "production", "key": "checkout-v2"}


def test_flag_list_shows_the_variations(rampart: Rampart, server: StubServer) -> None:
    flag = {
        "environment": "production",
        "key": "a",
        "version": 1,
        "variations": {"on": True, "off": False},
        "data": {},
    }
    server.answers("GET", "flags", [flag])
    assert rampart("flag").stdout.splitlines()[1].split() == ["production", "a", "on=true,", "off=false"]


def test_changes_are_coloured_on_a_terminal(
    terminal: Callable[..., Terminal], server: StubServer, flag_file: Path
) -> None:
    server.answers("POST", "manifests", CHANGED)
    screen = terminal("diff", str(flag_file))
    assert screen.exit_code() == 1
    assert "\x1b[33m  ~ spec.stages[1].bake" in screen.shown
