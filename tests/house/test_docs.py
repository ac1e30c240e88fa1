"""What the documents say is so: commands exist, YAML is clean, links lead somewhere."""

import re
import shlex
from pathlib import Path

import click
import pytest

from controller.cli import main, root
from controller.domain.rollout import TRANSITIONS
from controller.manifests.lint import lint
from controller.manifests.problem import render
from controller.telemetry import Metrics
from tests.support.repository import ROOT, blocks, markdown, shown, tracked
from tests.support.statuses import NOW, make_rule, make_status

README = ROOT / "README.md"
MAKEFILE = (ROOT / "Makefile").read_text()
POLICIES = [(shown(path), path.read_bytes()) for path in sorted((ROOT / "policies").glob("*.yaml"))]
PAGES = sorted(markdown())


def commands(page: Path) -> list[list[str]]:
    """Calls of our two programs; lines that end in a backslash are one. A synopsis is no call."""
    text = "\n".join(blocks(page, "sh", "bash", "console")).replace("\\\n", " ")
    lines = [line.strip().removeprefix("$ ").removeprefix(".venv/bin/") for line in text.splitlines()]
    calls = [line for line in lines if line.startswith(("make", "rampart ")) and "[OPTIONS]" not in line]
    return [shlex.split(re.split(r" [>|] ", line)[0], comments=True) for line in calls]


def manifests(page: Path) -> list[str]:
    return [block for block in blocks(page, "yaml") if "apiVersion: rampart/" in block]


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_every_link_leads_to_a_file(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_every_path_that_is_named_exists(page: Path) -> None:
    named = re.findall(r"`((?:controller|tests|docs|policies|bench|migrations)/[\w./-]*)`", page.read_text())
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_every_make_target_that_is_named_exists(page: Path) -> None:
    named = {word for line in commands(page) if line[0] == "make" for word in line[1:2] if "=" not in word}
    named |= set(re.findall(r"`make ([a-z-]+)", page.read_text()))
    assert {target for target in named if not re.search(rf"^{target}:", MAKEFILE, re.MULTILINE)} == set()


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_every_command_that_is_shown_is_one_the_program_understands(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in commands(page):
        for name in [word for word in words if word.endswith((".yaml", ".json", ".jsonl"))]:
            (tmp_path / name).touch()
        for name in [word for word in words if word.endswith("/")]:
            (tmp_path / name).mkdir(exist_ok=True)
        if words[0] == "rampart":
            _understood(words[1:])


def test_the_manifest_of_the_readme_passes_the_lint_the_readme_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write_manifests(README, tmp_path)
    monkeypatch.chdir(tmp_path)
    (lint_command,) = [words for words in commands(README) if words[:2] == ["rampart", "lint"]]
    assert main(lint_command[1:]) == 0


def _write_manifests(page: Path, folder: Path) -> None:
    """A block that begins with its file's name as a comment becomes that file."""
    for block in manifests(page):
        if named := re.match(r"# (\S+\.yaml)\n", block):
            (folder / named[1]).write_text(block)


def _understood(words: list[str]) -> None:
    command: click.Command = root
    context = click.Context(root, info_name="rampart")
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(context, words[0])
        assert found, f"rampart has no command {words[0]}"
        command, words = found, words[1:]
    command.make_context(command.name, list(words), parent=context, resilient_parsing=False)


@pytest.mark.parametrize("page", [page for page in PAGES if manifests(page)], ids=shown)
def test_every_manifest_that_is_shown_has_not_even_a_warning(page: Path) -> None:
    for number, block in enumerate(manifests(page)):
        file = f"{shown(page)}#{number}"
        others = [(name, text) for name, text in POLICIES if name.endswith(".policy.yaml")]
        found = [problem for problem in lint([(file, block.encode()), *others]) if problem.file == file]
        problems = [problem for problem in found if problem.severity != "note"]
        assert problems == [], "\n".join(map(render, problems))


def test_the_readme_shows_a_plan_and_the_two_commands_before_anything_else() -> None:
    first = commands(README)[:2]
    assert first == [["make", "demo"], ["make", "test"]]
    assert len(manifests(README)) == 1


def test_the_changelog_has_a_place_for_the_next_change() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    sections = re.findall(r"^## \[(.+?)\]", text, re.MULTILINE)
    assert sections[0] == "Unreleased"


def test_the_map_shows_every_part_and_no_other() -> None:
    (tree,) = (block for block in blocks(ROOT / "docs" / "architecture.md", "") if block.startswith("controller/"))
    drawn = set(re.findall(r"^[├└]── (\S+)", tree, re.MULTILINE))
    parts = [
        path.relative_to(ROOT / "controller").parts for path in tracked() if ROOT / "controller" in path.parents
    ]
    present = {f"{part[0]}/" if len(part) > 1 else part[0] for part in parts}
    assert drawn == present - {"__init__.py", "__main__.py", "py.typed"}


def test_the_page_about_series_lists_exactly_what_is_exported() -> None:
    metrics = Metrics()
    rule = make_rule("errors-high", baseline=0.002)
    metrics.run_seen(make_status("checkout-v2#3", rules=[rule]))
    metrics.audit_head(1)
    metrics.ticks_begin(NOW)
    metrics.quarantined("search-v2#1", "search-v2", "production")
    families = re.findall(r"^# TYPE (rampart_\w+)", metrics.render().decode(), re.MULTILINE)
    listed = re.findall(r"^\| `(rampart_\w+)`", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(families)


def test_the_page_about_phases_is_linked_and_names_all_of_them() -> None:
    assert "docs/state-machine.md" in README.read_text()
    page = (ROOT / "docs" / "state-machine.md").read_text()
    assert all(phase in page for phase in TRANSITIONS)
