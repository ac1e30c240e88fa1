"""YAML in: what scalars mean, where things stand, and that no file can hurt."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.manifests.lint import lint
from controller.manifests.loader import load
from controller.manifests.problem import Problem, render
from controller.manifests.reader import MAX_BYTES, read
from controller.manifests.structure import plain
from tests.manifests.surroundings import SHIPPED, SURROUNDINGS

AN_ORDINARY_FILE = b"".join(b"a-key-%05d: a value\n" % number for number in range(MAX_BYTES // 21))
"""Of the largest size that is read."""

ALIAS_BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
HOSTILE = {
    "brackets": b"[" * 100_000,
    "brackets-on-lines": b"[\n" * 100_000,
    "braces": b"{a: " * 25_000,
    "dashes": b"- " * 50_000,
    "question-marks": b"? " * 50_000,
    "alias-bomb": ALIAS_BOMB.encode(),
    "duplicate-keys": b"apiVersion: rampart/v1\n" * 10_000,
    "nested-duplicates": b"{" + b"a: {a: 1, a: 1}, " * 12_000 + b"}",
    "ten-megabytes": b"a: 1\n" * 2_000_000,
    "many-scalars": b"[" + b"x," * 120_000 + b"]",
    "many-documents": b"---\n" * 60_000,
    "endless-quote": b'"' + b"x" * 250_000,
    "many-tags": b"- !!python/object:os.system x\n" * 8_000,
    "endless-comment": b"#" * 250_000,
    "unknown-keys": b"apiVersion: rampart/v1\nkind: Flag\n" + b"".join(b"stage%d: x\n" % n for n in range(4_000)),
    "zero-bytes": b"\0" * 100_000,
    "not-utf-8": b"\xff" * 100_000,
    "endless-number": b"a: " + b"9" * 200_000,
    "endless-name": b"apiVersion: rampart/v1\nkind: " + b"a" * 200_000,
    "line-breaks": b"\n" * 250_000,
}


@pytest.fixture(scope="module")
def ordinary_seconds() -> float:
    """What the C parser alone needs for an ordinary file: the measure for what a hostile one may take."""
    return _least_seconds(lambda: yaml.compose(AN_ORDINARY_FILE, Loader=yaml.CSafeLoader))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_less_time_than_an_ordinary_one_takes(
    name: str, ordinary_seconds: float
) -> None:
    problems = lint([("hostile.yaml", HOSTILE[name])])
    assert any(problem.severity == "error" for problem in problems)
    assert len(problems) <= 200
    assert all(len(render(problem)) < 2_000 for problem in problems)
    assert _least_seconds(lambda: lint([("hostile.yaml", HOSTILE[name])])) < ordinary_seconds


def _least_seconds(work: Callable[[], object]) -> float:
    """Of CPU time, in five attempts: what other processes do to the caches is not the parser's doing."""
    spent = []
    for _ in range(5):
        started = time.process_time()
        work()
        spent.append(time.process_time() - started)
    return min(spent)


def test_hostile_files_leave_the_process_alive(tmp_path: Path) -> None:
    """In a process of its own: a crash of the C parser would take the tests with it."""
    for name, text in HOSTILE.items():
        (tmp_path / f"{name}.yaml").write_bytes(text)
    program = (
        "import pathlib, sys\n"
        "from controller.manifests.lint import lint\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):\n"
        "    print(path.stem, lint([(path.name, path.read_bytes())])[0].code)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert {line.split()[0] for line in ran.stdout.splitlines()} == HOSTILE.keys()


def test_a_hostile_query_is_refused_in_less_time_than_an_ordinary_file_takes(ordinary_seconds: float) -> None:
    policy = (SHIPPED / "queue-worker.policy.yaml").read_text()
    for query in ("1" + "^1" * 1_900, "(" * 2_000, "-" * 3_900 + "1", "x" * 5_000):
        text = policy.replace("""'max(queue_depth{queue="$queue",environment="$environment"})'""", f"'{query}'")
        files = [("queue-worker.policy.yaml", text.encode())]
        assert [problem.code for problem in lint(files)] == ["R011"]
        assert _least_seconds(lambda: lint(files)) < ordinary_seconds  # noqa: B023 - called before the next turn


def test_a_file_full_of_rules_or_freezes_takes_no_more_than_ten_ordinary_ones(ordinary_seconds: float) -> None:
    rule = "- { id: r%d, if: error_rate > 1%% or latency_p95 > 2x baseline, floor: 20ms, for: 2m, then: kill }"
    policy = (SHIPPED / "web-service.policy.yaml").read_text()
    rules = "".join(f"    {rule % number}\n" for number in range(400))
    plan = (SHIPPED / "thumbnails-worker.rollout.yaml").read_text()
    windows = ", ".join('{ days: mon-fri, from: "09:00", to: "16:00" }' for _ in range(300))
    freezes = ", ".join(f"{{ name: f{n}, from: 2026-11-26, to: 2026-11-27 }}" for n in range(300))
    schedule = f"  schedule:\n    timezone: UTC\n    advanceOnly: [{windows}]\n    freezes: [{freezes}]\n"
    files = [
        ("a.policy.yaml", policy.replace("  rules:\n", "  rules:\n" + rules)),
        ("b.rollout.yaml", plan + schedule),
    ]
    encoded = [(name, text.encode()) for name, text in files]
    assert {problem.code for problem in lint(encoded)} >= {"R103", "R030"}
    assert _least_seconds(lambda: lint(encoded)) < 10 * ordinary_seconds


def value(text: str) -> Any:
    found = read(text, "x.yaml")
    assert found.problems == []
    return plain(found.documents[0])


@pytest.mark.parametrize(
    "text", ["off", "no", "on", "yes", "22:00", "0010", "1_000", "2026-11-26", "1.2.3", "=", "<<"]
)
def test_these_scalars_are_text(text: str) -> None:
    assert value(f"a: {text}") == {"a": text}


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("12", 12),
        ("-3", -3),
        ("0x1F", 31),
        ("0o17", 15),
        ("0.95", 0.95),
        ("1e3", 1000.0),
        ("'12'", "12"),
        ('"true"', "true"),
        ("|\n  a\n  b", "a\nb"),
    ],
)
def test_these_scalars_mean_what_yaml_1_2_says(text: str, meant: object) -> None:
    found = value(f"a: {text}")
    assert found == {"a": meant}
    assert type(found["a"]) is type(meant)


@pytest.mark.parametrize("text", [".nan", ".inf", "-.INF", "1e999", "9" * 40])
def test_numbers_are_finite(text: str) -> None:
    assert [problem.code for problem in read(f"a: {text}", "x.yaml").problems] == ["R003"]


def test_no_key_is_a_boolean() -> None:
    assert value("{on: 1, true: 2, null: 3}") == {"on": 1, "true": 2, "null": 3}


def test_places_are_counted_in_characters_from_one() -> None:
    manifest = load((SHIPPED / "checkout-v2.rollout.yaml").read_bytes(), "x").documents[0]
    line, column, length = manifest.span(("spec", "stages", 1, "bake"))
    written = (SHIPPED / "checkout-v2.rollout.yaml").read_text().splitlines()[line - 1]
    assert written[column - 1 : column - 1 + length] == "2h"
    assert "early" in written


def test_wide_characters_before_a_value_do_not_move_it() -> None:
    node = read('{"ключ 🎈": x, b: y}', "x").documents[0].entries["b"]
    assert (node.owner.column, node.span.column) == (15, 18)


def test_several_documents_in_one_file_are_all_read() -> None:
    text = b"---\n".join(
        (SHIPPED / name).read_bytes() for name in ("checkout-v2.flag.yaml", "web-service.policy.yaml")
    )
    loaded = load(text, "both.yaml")
    assert loaded.problems == []
    assert [manifest.kind for manifest in loaded.documents] == ["Flag", "GuardrailPolicy"]


def test_json_is_read_as_well() -> None:
    text = '{"apiVersion":"rampart/v1","kind":"Flag","metadata":{"name":"a"},"spec":{"environment":"b","key":"c"}}'
    assert load(text, "x.json").documents[0].name == "a"


def test_a_byte_order_mark_and_windows_line_ends_change_nothing() -> None:
    text = (SHIPPED / "checkout-v2.flag.yaml").read_text()
    strange = b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()
    assert load(strange, "x").documents[0].value == load(text, "x").documents[0].value


def test_a_text_of_exactly_the_greatest_size_is_read() -> None:
    text = (SHIPPED / "checkout-v2.flag.yaml").read_bytes()
    assert load(text.ljust(MAX_BYTES, b"\n"), "x").problems == []
    assert [problem.code for problem in load(text.ljust(MAX_BYTES + 1, b"\n"), "x").problems] == ["R000"]


SEEDS = [path.read_text() for path in sorted(SHIPPED.glob("*.yaml"))]
PIECES = [
    "",
    " ",
    "\t",
    "\n",
    "\n---\n",
    ":",
    "- ",
    "[",
    "]",
    "{",
    "}",
    '"',
    "'",
    "#",
    "&a ",
    "*a",
    "!!x ",
    "|",
    ">",
    "%",
]
WORDS = [
    "null",
    "0",
    "-1",
    ".nan",
    "1e400",
    "true",
    "[]",
    "{}",
    "$",
    "${",
    "9" * 50,
    "é🎈",
    "\u2028",
    "\x85",
    "\x00",
    "\ud800",
]


@st.composite
def mutated(draw: st.DrawFn) -> str:
    text = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.sampled_from([0, 0, 1, 2, 5, 30])))
        text = text[:start] + draw(st.sampled_from(PIECES + WORDS)) + text[end:]
    return text


@settings(max_examples=250, deadline=None)
@given(mutated())
def test_no_mutation_of_a_valid_file_makes_lint_raise(text: str) -> None:
    for surroundings in (None, SURROUNDINGS):
        problems = lint([("fuzzed.yaml", text.encode(errors="surrogatepass"))], surroundings)
        assert all(printable(problem) for problem in problems)


@settings(max_examples=100, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.text(max_size=200)))
def test_no_text_at_all_makes_load_raise(text: bytes | str) -> None:
    assert all(printable(problem) for problem in load(text, "fuzzed.yaml").problems)


def printable(problem: Problem) -> bool:
    return problem.line >= 1 and problem.column >= 1 and problem.length >= 1 and bool(render(problem))
