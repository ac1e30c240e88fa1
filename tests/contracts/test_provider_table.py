"""The page that says what every provider is held to says what is so."""

import pytest

from controller.providers import KINDS
from tests.contracts.provider_cases import Cases, needs, over_edits, over_faults
from tests.contracts.provider_world import Edit, Fault
from tests.contracts.table import (
    COMMAND,
    FAILED,
    NEVER,
    PAGE,
    PASSED,
    ROWS,
    Row,
    contracts,
    missing,
    page,
    written,
)


def test_every_kind_of_provider_is_held_to_the_contract() -> None:
    held = {one.kind for one in contracts().values()}
    without = [one.__name__ for one in KINDS if one not in held]
    assert without == [], "write a world for it: tests/contracts/provider_world.py says how"


def test_the_page_has_the_rows_columns_and_reasons_of_the_code() -> None:
    text = PAGE.read_text()
    assert text == page(*written(text)), f"write it anew: {COMMAND}"


@pytest.mark.parametrize("kind", contracts())
def test_the_page_has_a_result_for_every_case_that_applies(kind: str) -> None:
    columns, dates = written(PAGE.read_text())
    assert dates[kind] != NEVER, f"run it: {COMMAND} {kind}"
    contract = contracts()[kind]
    results = {row: columns[kind].get(row, NEVER) for row in ROWS if not missing(row, contract)}
    assert {row for row, result in results.items() if result not in (PASSED, FAILED)} == set()


def test_a_page_reads_back_as_it_was_written() -> None:
    columns = {kind: {row: FAILED for row in ROWS if not missing(row, one)} for kind, one in contracts().items()}
    dates = dict.fromkeys(contracts(), "2026-11-21")
    back, dates_back = written(page(columns, dates))
    assert dates_back == dates
    assert {
        kind: {row: one for row, one in column.items() if one == FAILED} for kind, column in back.items()
    } == columns


class Some(Cases):
    @over_faults(Fault.DOWN, Fault.THROTTLED)
    def test_faults(self, fault: Fault) -> None: ...

    @needs(Edit.SWAPPED)
    def test_swapped(self) -> None: ...

    @over_edits(Edit.ARCHIVED)
    def test_gone(self, edit: Edit) -> None: ...

    def test_always(self) -> None: ...


def test_a_case_that_a_back_end_cannot_have_is_not_there() -> None:
    class Less(Some):
        cannot = {Fault.THROTTLED: "no HTTP", Edit.SWAPPED: "no order", Edit.ARCHIVED: "nothing is archived"}

    there = {name for name in dir(Less) if name.startswith("test_") and getattr(Less, name)}
    assert there == {"test_faults", "test_always"}
    assert Some.test_swapped is not None


def test_the_name_of_a_case_is_a_sentence_in_the_table() -> None:
    assert Row("test_a_share_is_absolute").sentence == "a share is absolute"
