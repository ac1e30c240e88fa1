"""docs/policy-tests.md: every test it shows is played, and comes out as the page says."""

import re
from pathlib import Path

import pytest

from controller.cli import main
from tests.support.repository import ROOT, blocks

PAGE = ROOT / "docs" / "policy-tests.md"
POLICIES = ROOT / "policies"
FIRST, *OTHERS = blocks(PAGE, "yaml")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With the example policies and plans in it, and without their tests."""
    for path in POLICIES.glob("*.yaml"):
        if not path.name.endswith(".test.yaml"):
            (tmp_path / path.name).write_text(path.read_text())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_first_test_fails_as_the_page_shows(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "first.test.yaml").write_text(FIRST)
    assert main(["test", "first.test.yaml"]) == 1
    (shown,) = [block for block in blocks(PAGE, "") if block.startswith("first.test.yaml")]
    assert capsys.readouterr().out == shown


def test_the_first_test_passes_once_it_says_what_the_page_then_says(folder: Path) -> None:
    found = re.search(r"so the test says `([^`]+)` from now on", PAGE.read_text())
    assert found
    (folder / "first.test.yaml").write_text(FIRST.replace("kill at 22m by errors-jump", found[1]))
    assert main(["test", "first.test.yaml"]) == 0


@pytest.mark.parametrize("block", OTHERS, ids=lambda text: text.split("name: ")[1].split(",")[0])
def test_every_other_test_of_the_page_passes(block: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "shown.test.yaml").write_text(block)
    assert main(["test", "shown.test.yaml"]) == 0, capsys.readouterr().out
