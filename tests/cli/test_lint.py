"""Manifests on their own, without a server."""

import json
from pathlib import Path

import msgspec
import pytest

from controller.manifests.loader import KINDS
from controller.manifests.schema import schema_for
from tests.cli.conftest import Rampart

POLICIES = Path(__file__).parents[2] / "policies"
BROKEN = """\
apiVersion: rampart/v1
kind: Flag
metadata: { name: checkout-v2 }
spec: { enviroment: production, key: checkout-v2 }
"""


def test_the_shipped_policies_are_clean_offline(rampart: Rampart) -> None:
    told = rampart("lint", str(POLICIES), RAMPART_URL="http://127.0.0.1:1")
    assert (told.returncode, told.stdout) == (0, "")
    assert told.stderr.startswith("0 errors, 0 warnings in ")


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


@pytest.mark.parametrize("kind", KINDS)
def test_schema_prints_the_schema_of_a_kind(rampart: Rampart, kind: str) -> None:
    told = rampart("schema", kind)
    assert told.returncode == 0
    assert json.loads(told.stdout) == json.loads(msgspec.json.encode(schema_for(kind)))


def test_schema_writes_them_all(rampart: Rampart, tmp_path: Path) -> None:
    assert rampart("schema", "--write").returncode == 0
    written = {path.name for path in (tmp_path / "docs" / "schema").iterdir()}
    assert written == {f"{kind.lower()}.json" for kind in KINDS}
