"""docs/providers/contract.md: every case of the provider contract beside every kind of provider.

`python -m tests.contracts.table [KIND...]` runs the contract of these kinds, or of all, and writes the page with
what came out; the columns of the others stay as they were. Which cases there are, and which do not apply to whom,
is compared with the code by `make test`.
"""

import importlib
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest

from tests.contracts.provider_cases import Cases, Over
from tests.contracts.provider_edits import Edits
from tests.contracts.provider_failures import Failures
from tests.contracts.provider_rollouts import Rollouts
from tests.contracts.provider_world import Beyond
from tests.contracts.providers_contract import ProviderContract
from tests.support.repository import ROOT

PAGE = ROOT / "docs" / "providers" / "contract.md"
COMMAND = "python -m tests.contracts.table"
SECTIONS: Mapping[str, type[Cases]] = {
    "Writing, reading and killing": ProviderContract,
    "The back end fails": Failures,
    "People change the flag beside us": Edits,
    "A whole plan, driven by the engine": Rollouts,
}
PASSED, FAILED, NOT_APPLICABLE, NEVER = "✓", "**✗**", "n/a", "not run"
HEAD = f"""<!-- Generated: {COMMAND} -->

# What every provider is held to

One suite of tests runs on [every kind of provider](README.md), and on [your own](writing-your-own.md).
{PASSED}: passed, {FAILED}: failed, at the last run of that column. {NOT_APPLICABLE}: its back end
[has not got this](#what-a-back-end-has-not-got). Nothing is skipped. Against what each column runs is said
[beside how to choose](README.md#how-to-choose); *key_value* is the example of how to write your own.

How this page stays true: `make test` compares its rows, its columns and each {NOT_APPLICABLE} with the code, and
runs the columns that need no other program; `make test-peers` runs the others. A case that fails fails the build
there, whatever is written here.
"""


class Row(NamedTuple):
    """One line of the table: a case, and for some the fault or the edit that it is about."""

    case: str
    about: Beyond | None = None

    @property
    def sentence(self) -> str:
        return self.case.removeprefix("test_").replace("_", " ")


Column = dict[Row, str]


# — what there is —


def contracts() -> dict[str, type[ProviderContract]]:
    """The test class of each kind, by the kind's name in the settings."""
    files = sorted(
        path for path in (ROOT / "tests").rglob("test_*.py") if "(ProviderContract)" in path.read_text()
    )
    modules = [importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts)) for path in files]
    found = [
        one
        for module in modules
        for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, ProviderContract) and "kind" in vars(one)
    ]
    return {kind_name(one): one for one in sorted(found, key=kind_name)}


def kind_name(contract: type[ProviderContract]) -> str:
    return str(contract.kind.__struct_config__.tag)


def rows(section: type[Cases]) -> list[Row]:
    found: list[Row] = []
    for name, case in vars(section).items():
        if not name.startswith("test_"):
            continue
        over: Over | None = getattr(case, "over", None)
        found += [Row(name, one) for one in over.values] if over else [Row(name)]
    return found


ROWS = [row for section in SECTIONS.values() for row in rows(section)]


def missing(row: Row, contract: type[ProviderContract]) -> list[Beyond]:
    """What the back end would have to have for this case, and has not got."""
    needed = [*getattr(getattr(ProviderContract, row.case), "needs", ()), *([row.about] if row.about else [])]
    return [one for one in needed if one in contract.cannot]


# — running —


class Recorder:
    """A plugin of pytest that keeps how each case of the contract ended, of the kinds that are asked for."""

    def __init__(self, kinds: Sequence[str]) -> None:
        self._kinds = kinds
        self._of: dict[str, tuple[str, Row]] = {}
        self.columns: dict[str, Column] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            contract = getattr(item, "cls", None)
            if contract is None or not issubclass(contract, ProviderContract):
                continue
            if kind_name(contract) in self._kinds:
                self._of[item.nodeid] = (kind_name(contract), _row(item))
        items[:] = [item for item in items if item.nodeid in self._of]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and not report.failed:
            return
        kind, row = self._of[report.nodeid]
        column = self.columns.setdefault(kind, {})
        # Of a case with several parameters one failure is enough.
        if column.get(row) != FAILED:
            column[row] = PASSED if report.passed else FAILED


def _row(item: Any) -> Row:
    params = item.callspec.params if hasattr(item, "callspec") else {}
    return Row(item.originalname, params.get("fault") or params.get("edit"))


# — writing —


def page(columns: Mapping[str, Column], last_run: Mapping[str, str]) -> str:
    """The whole document; `last_run` is a date by kind."""
    of = contracts()
    parts = [HEAD, _line(["Last run", *of]), _line(["---"] * (len(of) + 1))]
    parts += [_line(["", *(last_run.get(kind, NEVER) for kind in of)]), ""]
    for title, section in SECTIONS.items():
        parts += [f"## {title}", "", _line(["", *of]), _line(["---"] * (len(of) + 1))]
        parts += [line for row in rows(section) for line in _lines(row, of, columns)] + [""]
    parts += ["## What a back end has not got", "", *_reasons(of.items())]
    return "\n".join(parts) + "\n"


def _lines(row: Row, of: Mapping[str, type[ProviderContract]], columns: Mapping[str, Column]) -> list[str]:
    """The row; before the first of several of one case the case itself."""
    cells = [_cell(row, contract, columns.get(kind, {})) for kind, contract in of.items()]
    if row.about is None:
        return [_line([row.sentence, *cells])]
    first = row == next(one for one in ROWS if one.case == row.case)
    head = [_line([row.sentence, *("" for _ in of)])] if first else []
    return [*head, _line([f"— {row.about}", *cells])]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(row: Row, contract: type[ProviderContract], column: Column) -> str:
    return NOT_APPLICABLE if missing(row, contract) else column.get(row, NEVER)


def _reasons(contracts: Iterable[tuple[str, type[ProviderContract]]]) -> list[str]:
    lines = []
    for kind, contract in contracts:
        of: dict[str, list[str]] = {}
        for beyond, why in contract.cannot.items():
            of.setdefault(why, []).append(str(beyond))
        told = [f"- {', '.join(beyond)}: {why}." for why, beyond in of.items()]
        lines += [f"**{kind}**", "", *(told or ["- Nothing is missing."]), ""]
    return lines[:-1]


# — reading what was written —


def written(text: str) -> tuple[dict[str, Column], dict[str, str]]:
    """Columns and dates of a page."""
    lines = [re.split(r"(?<!\\) \| ", line[2:-2]) for line in text.splitlines() if line.startswith("| ")]
    if not lines:
        return {}, {}
    kinds, dates = lines[0][1:], lines[2][1:]
    named = {(row.sentence, f"— {row.about}" if row.about else ""): row for row in ROWS}
    columns: dict[str, Column] = {kind: {} for kind in kinds}
    sentence = ""
    for label, *cells in lines[3:]:
        sentence, about = (sentence, label) if label.startswith("— ") else (label, "")
        if row := named.get((sentence, about)):
            for kind, cell in zip(kinds, cells, strict=True):
                columns[kind][row] = cell
    return columns, dict(zip(kinds, dates, strict=True))


def main(arguments: Sequence[str]) -> int:
    of = contracts()
    kinds = list(arguments) or list(of)
    if unheard := set(kinds) - of.keys():
        sys.stderr.write(f"no contract for {', '.join(sorted(unheard))}; there are {', '.join(of)}\n")
        return 2
    recorder = Recorder(kinds)
    files = sorted({str(sys.modules[of[kind].__module__].__file__) for kind in kinds})
    code = pytest.main(["-q", *files], plugins=[recorder])
    columns, dates = written(PAGE.read_text()) if PAGE.exists() else ({}, {})
    today = datetime.now(UTC).date().isoformat()
    columns |= recorder.columns
    dates |= dict.fromkeys(recorder.columns, today)
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(columns, dates))
    sys.stdout.write(f"wrote {PAGE.relative_to(ROOT)}\n")
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
