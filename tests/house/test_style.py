"""House rules that a linter does not know."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.support.repository import ROOT, python_files, shown, tracked

MAX_FUNCTION_LINES = 70
VAGUE_NAMES = {"utils", "util", "common", "helpers", "helper", "base", "misc"}
WALL_CLOCKS = {
    ("datetime", "now"),
    ("datetime", "utcnow"),
    ("datetime", "today"),
    ("date", "today"),
    ("time", "time"),
}
SHELL = ("controller/app.py", "controller/cli/", "controller/demo/")


def trees(*folders: str) -> Iterator[tuple[Path, ast.Module]]:
    for path in python_files(*folders):
        yield path, ast.parse(path.read_text())


def test_no_function_is_longer_than_seventy_lines() -> None:
    long = [
        f"{shown(path)}:{node.lineno} {node.name} has {length} lines"
        for path, tree in trees("controller", "tests", "bench")
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or 0) - node.lineno + 1) > MAX_FUNCTION_LINES
    ]
    assert long == []


def test_no_module_has_a_name_that_says_nothing() -> None:
    vague = [shown(path) for path in python_files("controller", "tests", "bench") if path.stem in VAGUE_NAMES]
    assert vague == []


def test_nobody_below_the_shell_reads_the_wall_clock() -> None:
    reads = [
        f"{shown(path)}:{node.lineno}"
        for path, tree in trees("controller")
        if not shown(path).startswith(SHELL)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and (node.value.id, node.attr) in WALL_CLOCKS
    ]
    assert reads == []


def test_every_module_of_the_domain_that_decides_something_is_tested_there() -> None:
    imported: set[str] = set()
    for _, tree in trees("tests/domain"):
        imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    untested = [
        shown(path)
        for path, tree in trees("controller/domain")
        if any(isinstance(node, ast.FunctionDef) for node in tree.body) and _module(path) not in imported
    ]
    assert untested == []


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


# Put together, so that this file does not contain what it looks for.
FOREIGN = {
    "the address of a package registry": r"pypi\." + r"org|pythonhosted\.|npmjs\.|index-" + r"url\s*=?\s*\S*://",
    "a path of somebody's machine": r"(?<![\w.])/(root|home/\w+|Users/\w+|work|opt/(?!rampart\b)\w+)/" + r"\w",
    "a place outside of the repository": r"\.\./" + r"shared|/tmp/" + r"brief",
}


def test_no_file_holds_anything_of_the_place_it_was_written_in() -> None:
    found = [
        f"{shown(path)}:{number}: {what}"
        for path in tracked()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1)
        for what, pattern in FOREIGN.items()
        if re.search(pattern, line)
    ]
    assert found == []


def test_lock_files_hold_hashes_and_no_address() -> None:
    for lock in ("requirements.lock", "requirements-dev.lock", "requirements-build.lock"):
        text = (ROOT / lock).read_text()
        assert "://" not in text, lock
        assert not re.search(r"^\s*-[-if]", text.replace("--hash=", ""), re.MULTILINE), lock
        pins = re.findall(r"^[\w.\[\]-]+==", text, re.MULTILINE)
        assert pins
        assert text.count("--hash=sha256:") >= len(pins), lock
