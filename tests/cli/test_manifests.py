"""Manifests: compared with the server, handed over."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from controller.domain.plan import FlagRef
from controller.domain.status import ApplyResult, Change, FlagOutlook, RunOutlook, StoredDocument
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
STORED = StoredDocument(
    kind="RolloutPlan",
    name="checkout-v2",
    revision=4,
    author="dana",
    applied_at=datetime(2026, 11, 20, 15, 2, tzinfo=timezone(timedelta(hours=1))),
)
RUN = RunOutlook(
    run="checkout-v2#3",
    plan="checkout-v2",
    environment="production",
    phase="progressing",
    stage="early",
    exposure=10_000,
    plan_revision=4,
    policy_revisions={"web-service": 7},
    changes=CHANGES[:1],
    consequences=["the bake of early starts anew: 41m of 2h are lost"],
)
FLAG = FlagOutlook(
    plan="checkout-v2",
    flag=FlagRef(provider="main", environment="production", key="checkout-v2"),
    enabled=True,
    exposure=5_000,
    audience=["staff"],
    foreign=["rule eu-only"],
    run="checkout-v2#3",
    committed=10_000,
    findings=["it is not as checkout-v2#3 left it"],
)
SAME = ApplyResult(applied=True, changes=[], revisions={})


@pytest.fixture
def flag_file(tmp_path: Path) -> Path:
    path = tmp_path / "checkout-v2.flag.yaml"
    path.write_text(BROKEN.replace("enviroment", "environment"))
    return path


def test_diff_shows_each_change_and_exits_with_one(rampart: Rampart, server: StubServer, flag_file: Path) -> None:
    server.answers("POST", "manifests/compare", CHANGED)
    told = rampart("diff", str(flag_file))
    assert told.returncode == 1
    assert told.stdout.splitlines() == [
        "RolloutPlan checkout-v2",
        "  ~ spec.stages[1].bake   2h → 1h",
        '  - spec.guardrails[1]   {"policy":"payments"}   ! removes a kill rule',
        "GuardrailPolicy web-service",
        "  + (the whole document)",
    ]
    [sent] = server.bodies("manifests/compare")
    assert sent == {"files": [{"name": str(flag_file), "text": flag_file.read_text()}]}


def diffed(rampart: Rampart, server: StubServer, flag_file: Path, **fields: Any) -> list[str]:
    server.answers("POST", "manifests/compare", replace(CHANGED, changes=CHANGES[:1], **fields))
    return rampart("diff", str(flag_file)).stdout.splitlines()


def test_diff_shows_what_the_server_has_and_what_the_change_means_to_a_run(
    rampart: Rampart, server: StubServer, flag_file: Path
) -> None:
    assert diffed(rampart, server, flag_file, stored=[STORED], runs=[RUN]) == [
        "RolloutPlan checkout-v2   the server has revision 4, by dana, 2026-11-20 14:02 UTC",
        "  ~ spec.stages[1].bake   2h → 1h",
        "",
        "checkout-v2#3 is progressing at 10 % (early) and follows plan revision 4, web-service revision 7",
        "  It stays so; only a new run takes this up.",
        "  apply --adopt moves it to this:",
        "    - the bake of early starts anew: 41m of 2h are lost",
    ]


def test_diff_shows_what_a_run_has_missed_since_its_own_revisions(
    rampart: Rampart, server: StubServer, flag_file: Path
) -> None:
    lines = diffed(rampart, server, flag_file, runs=[replace(RUN, changes=CHANGES)])
    assert lines[4] == "  It stays so. A new run would take up, beside what it follows:"
    assert lines[6] == "    ~ spec.stages[1].bake   2h → 1h"
    assert "    - spec.guardrails[1]" in lines[7]


def test_diff_says_who_must_adopt_and_when_nobody_can(
    rampart: Rampart, server: StubServer, flag_file: Path
) -> None:
    two = replace(RUN, second_person=["removes the kill rule web/errors-jump"], authors=["dana"])
    lines = diffed(rampart, server, flag_file, runs=[two])
    assert "somebody with the scope approve who is not the author (dana), because it" in lines[-2]
    assert lines[-1] == "        removes the kill rule web/errors-jump"
    stuck = replace(RUN, obstacles=["10 %, where checkout-v2#3 is now, is no stage of the plan (5 %, 100 %)"])
    assert diffed(rampart, server, flag_file, runs=[stuck])[-2:] == [
        "  apply --adopt cannot move it to this:",
        "    - 10 %, where checkout-v2#3 is now, is no stage of the plan (5 %, 100 %)",
    ]


def test_diff_shows_what_the_provider_shows(rampart: Rampart, server: StubServer, flag_file: Path) -> None:
    assert diffed(rampart, server, flag_file, flags=[FLAG])[3:] == [
        "main/production/checkout-v2 at the provider: on, 5 % exposed, and always staff",
        "  checkout-v2#3 wants 10 %",
        "  not ours, and a kill switches it off, too: rule eu-only",
        "  ! it is not as checkout-v2#3 left it",
    ]
    silent = FlagOutlook(plan="checkout-v2", flag=FLAG.flag, unread="503 from the provider")
    assert diffed(rampart, server, flag_file, flags=[silent])[3:] == [
        "main/production/checkout-v2 at the provider: 503 from the provider"
    ]
    off = replace(FLAG, enabled=False, audience=[], foreign=[], run=None, committed=None, findings=[])
    assert diffed(rampart, server, flag_file, flags=[off])[3:] == [
        "main/production/checkout-v2 at the provider: off (5 % once it is on)"
    ]
    assert diffed(rampart, server, flag_file, flags=[replace(off, exposure=0)])[3].endswith("provider: off")


def test_apply_says_which_runs_were_moved(rampart: Rampart, server: StubServer, flag_file: Path) -> None:
    moved = replace(CHANGED, pinned_runs=[], adopted_runs=["checkout-v2#3"], runs=[RUN], warnings=[])
    server.answers("POST", "manifests", moved)
    told = rampart("apply", str(flag_file), "--adopt")
    assert "was moved from plan revision 4, web-service revision 7 to this:" in told.stdout
    assert "moved to it: checkout-v2#3; the bake starts anew" in told.stderr
    assert "still on earlier revisions" not in told.stderr


def test_no_difference_exits_with_zero(rampart: Rampart, server: StubServer, flag_file: Path) -> None:
    server.answers("POST", "manifests/compare", SAME)
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
    server.answers("POST", "manifests/compare", CHANGED)
    screen = terminal("diff", str(flag_file))
    assert screen.exit_code() == 1
    assert "\x1b[33m  ~ spec.stages[1].bake" in screen.shown
