"""Manifests on their own, without a server."""

import json
from pathlib import Path

import msgspec
import pytest

from controller.manifests.loader import KINDS
from controller.manifests.rulebook import RULES
from controller.manifests.rulebook.handbook import page
from controller.manifests.schema import schema_for
from tests.cli.conftest import Rampart

POLICIES = Path(__file__).parents[2] / "policies"
BROKEN = """\
apiVersion: rampart/v1
kind: Flag
metadata: { name: checkout-v2 }
spec: { enviroment: production, key: checkout-v2 }
"""
SOUND = BROKEN.replace("enviroment", "environment")
ON_WHEN_OFF = SOUND.replace("spec: {", 'spec:\n  off: "on"\n  environment: production\n  key: checkout-v2\n#')
UNTIDY = """\
kind:   Flag
apiVersion: rampart/v1
spec: {key: checkout-v2,environment:   production}   # here
metadata: {name: checkout-v2}
"""


def test_the_shipped_policies_are_clean_offline(rampart: Rampart) -> None:
    told = rampart("lint", str(POLICIES), "--strict", "-o", "concise", RAMPART_URL="http://127.0.0.1:1")
    # Their freeze will be over one day.
    assert [line for line in told.stdout.splitlines() if ": R210 note:" not in line] == []
    assert told.returncode == 0
    assert told.stderr.startswith("0 errors, 0 warnings")


def test_lint_points_at_the_place_and_says_what_to_write(rampart: Rampart, tmp_path: Path) -> None:
    (tmp_path / "bad.flag.yaml").write_text(BROKEN)
    told = rampart("lint", "bad.flag.yaml")
    assert told.returncode == 1
    assert "bad.flag.yaml:4:9: R002" in told.stdout
    assert "^^^^^^^^^^" in told.stdout
    assert 'did you mean "environment"?' in told.stdout


def test_lint_speaks_json_and_concise(rampart: Rampart, tmp_path: Path) -> None:
    (tmp_path / "bad.flag.yaml").write_text(BROKEN)
    found = json.loads(rampart("lint", "bad.flag.yaml", "-o", "json").stdout)
    assert (found[0]["file"], found[0]["line"], found[0]["column"]) == ("bad.flag.yaml", 4, 9)
    lines = rampart("lint", ".", "-o", "concise").stdout.splitlines()
    assert len(lines) == len(found)
    assert lines[0].startswith("bad.flag.yaml:4:9: R002 ")


def test_lint_reads_stdin(rampart: Rampart) -> None:
    told = rampart("lint", "-", stdin=BROKEN)
    assert told.returncode == 1
    assert "stdin:4:9: R002" in told.stdout


@pytest.mark.parametrize("content", [b"[" * 100_000, b"a: \xff\xfe\n", b"x" * 10_000_000, b"\0\0"])
def test_a_hostile_file_is_a_finding_and_no_traceback(rampart: Rampart, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "hostile.rollout.yaml").write_bytes(content)
    told = rampart("lint", "hostile.rollout.yaml")
    assert told.returncode == 1
    assert "Traceback" not in told.stderr
    assert "hostile.rollout.yaml:1:" in told.stdout


@pytest.mark.parametrize("path", ["nowhere.flag.yaml", "empty"])
def test_a_path_without_a_manifest_is_a_usage_error(rampart: Rampart, tmp_path: Path, path: str) -> None:
    (tmp_path / "empty").mkdir()
    told = rampart("lint", path)
    assert told.returncode == 2
    assert path in told.stderr


def test_warnings_fail_only_when_asked_to(rampart: Rampart, tmp_path: Path) -> None:
    (tmp_path / "checkout-v2.flag.yaml").write_text(ON_WHEN_OFF)
    told = rampart("lint", "checkout-v2.flag.yaml")
    assert (told.returncode, told.stderr) == (
        0,
        "0 errors, 1 warning in 1 file\n",
    )
    assert "checkout-v2.flag.yaml:5:8: R302 warning: " in told.stdout
    assert rampart("lint", "--strict", "checkout-v2.flag.yaml").returncode == 1


def test_a_note_fails_nothing(rampart: Rampart, tmp_path: Path) -> None:
    (tmp_path / "other.flag.yaml").write_text(SOUND)
    told = rampart("lint", "--strict", "other.flag.yaml")
    assert (told.returncode, told.stderr) == (
        0,
        "0 errors, 0 warnings, 1 note in 1 file\n",
    )


def test_fix_mends_the_file_and_says_what_is_left(rampart: Rampart, tmp_path: Path) -> None:
    path = tmp_path / "checkout-v2.flag.yaml"
    path.write_text("# mine\n" + BROKEN)
    path.chmod(0o640)
    assert rampart("lint", path.name).stderr == "1 error, 0 warnings in 1 file; --fix mends 1 of them\n"
    told = rampart("lint", "--fix", path.name)
    assert (told.returncode, told.stdout) == (0, "")
    assert told.stderr == "fixed 1 problem; 0 errors, 0 warnings in 1 file\n"
    assert path.read_text() == "# mine\n" + SOUND
    assert path.stat().st_mode & 0o777 == 0o640
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_fix_can_be_looked_at_first(rampart: Rampart, tmp_path: Path) -> None:
    (tmp_path / "checkout-v2.flag.yaml").write_text(BROKEN)
    told = rampart("lint", "--fix", "--diff", "checkout-v2.flag.yaml")
    assert told.returncode == 1
    assert "-spec: { enviroment: production, key: checkout-v2 }" in told.stdout
    assert "+spec: { environment: production, key: checkout-v2 }" in told.stdout
    assert told.stderr == "1 problem would be fixed in 1 file\n"
    assert (tmp_path / "checkout-v2.flag.yaml").read_text() == BROKEN


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name files or folders"),
        (["--diff", "."], "give both"),
        (["--fix", "-"], "add --diff"),
        (["-o", "markdown", "."], "--rules"),
        (["--explain", "R9"], "there is no rule R9"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(rampart: Rampart, arguments: list[str], said: str) -> None:
    told = rampart("lint", *arguments)
    assert told.returncode == 2
    assert said in told.stderr


@pytest.mark.parametrize("name", ["R022", "r022", "short-bake"])
def test_a_rule_is_explained_by_code_or_name(rampart: Rampart, name: str) -> None:
    told = rampart("lint", "--explain", name)
    assert told.returncode == 0
    assert told.stdout.startswith("R022 short-bake (warning)\n")
    assert "Bad:\n  stages:" in told.stdout


def test_all_rules_are_listed_for_people_programs_and_the_page(rampart: Rampart) -> None:
    assert len(rampart("lint", "--rules").stdout.splitlines()) == len(RULES) + 1
    assert [one["code"] for one in json.loads(rampart("lint", "--rules", "-o", "json").stdout)] == list(RULES)
    assert rampart("lint", "--rules", "-o", "markdown").stdout == page()


@pytest.mark.parametrize(
    ("form", "begins"),
    [("github", "::error file="), ("sarif", "{"), ("junit", "<?xml"), ("concise", "bad.flag.yaml:")],
)
def test_every_form_of_output_is_data_on_stdout(rampart: Rampart, tmp_path: Path, form: str, begins: str) -> None:
    (tmp_path / "bad.flag.yaml").write_text(BROKEN)
    told = rampart("lint", "bad.flag.yaml", "-o", form)
    assert told.returncode == 1
    assert told.stdout.startswith(begins)
    assert "R002" in told.stdout


def test_fmt_lays_files_out_and_is_then_content(rampart: Rampart, tmp_path: Path) -> None:
    path = tmp_path / "checkout-v2.flag.yaml"
    path.write_text(UNTIDY)
    told = rampart("fmt", "--check", ".")
    assert (told.returncode, told.stdout) == (1, "checkout-v2.flag.yaml\n")
    assert path.read_text() == UNTIDY
    told = rampart("fmt", "--diff", ".")
    assert told.returncode == 1
    assert "+spec: { environment: production, key: checkout-v2 }  # here" in told.stdout
    assert path.read_text() == UNTIDY
    assert rampart("fmt", ".").stderr == "1 file changed, 0 left as they were\n"
    assert path.read_text() == SOUND.rstrip() + "  # here\n"
    assert rampart("fmt", "--check", ".").returncode == 0


def test_fmt_reads_stdin_and_writes_stdout(rampart: Rampart) -> None:
    told = rampart("fmt", "-", stdin=UNTIDY)
    assert told.returncode == 0
    assert told.stdout == SOUND.rstrip() + "  # here\n"


def test_fmt_leaves_what_it_cannot_read_and_says_why(rampart: Rampart, tmp_path: Path) -> None:
    path = tmp_path / "bad.flag.yaml"
    path.write_text("a: [\n")
    (tmp_path / "worse.flag.yaml").write_bytes(b"a: \xff\n")
    told = rampart("fmt", ".")
    assert told.returncode == 1
    assert "bad.flag.yaml: left as it is: 2:1: R000 not YAML" in told.stderr
    assert "worse.flag.yaml: left as it is: it is not UTF-8 text" in told.stderr
    assert path.read_text() == "a: [\n"


def test_a_link_stays_a_link_to_what_was_mended(rampart: Rampart, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    path = folder / "checkout-v2.flag.yaml"
    path.write_text(BROKEN)
    link = tmp_path / "checkout-v2.flag.yaml"
    link.symlink_to(path)
    assert rampart("lint", "--fix", link.name).returncode == 0
    assert link.is_symlink()
    assert path.read_text() == SOUND


@pytest.mark.parametrize("kind", KINDS)
def test_schema_prints_the_schema_of_a_kind(rampart: Rampart, kind: str) -> None:
    told = rampart("schema", kind)
    assert told.returncode == 0
    assert json.loads(told.stdout) == json.loads(msgspec.json.encode(schema_for(kind)))


def test_schema_writes_them_all(rampart: Rampart, tmp_path: Path) -> None:
    assert rampart("schema", "--write").returncode == 0
    written = {path.name for path in (tmp_path / "docs" / "schema").iterdir()}
    assert written == {f"{kind.lower()}.json" for kind in KINDS}
