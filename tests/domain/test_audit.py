"""The hash chain: any change, gap or reordering is found with nothing but SHA-256."""

import hashlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from controller.domain.audit import (
    GENESIS_HASH,
    AuditEntry,
    AuditRow,
    ChainReport,
    canonical_body,
    link_hash,
    verify_chain,
)


def entry(number: int) -> AuditEntry:
    return AuditEntry(
        id=f"e{number}",
        at=datetime(2026, 11, 21, tzinfo=UTC),
        actor="dana",
        action="advance",
        cause="policy",
        subject="checkout-v2#1",
        environment="production",
        reason=f"step {number} · 10 %",
    )


def chain(length: int) -> list[AuditRow]:
    rows: list[AuditRow] = []
    previous = GENESIS_HASH
    for sequence in range(1, length + 1):
        body = canonical_body(entry(sequence))
        rows.append(
            AuditRow(sequence=sequence, previous=previous, hash=link_hash(previous, sequence, body), body=body)
        )
        previous = rows[-1].hash
    return rows


def test_an_untouched_chain_verifies_and_names_its_head() -> None:
    rows = chain(5)
    report = verify_chain(rows)
    assert report.problem is None
    assert (report.rows, report.head_sequence, report.head_hash) == (5, 5, rows[-1].hash.hex())


def test_an_empty_chain_verifies() -> None:
    assert verify_chain([]).problem is None


def test_a_missing_row_is_named() -> None:
    rows = chain(4)
    assert verify_chain([*rows[:1], *rows[2:]]).problem == "row 2 is missing: row 3 follows row 1"


def test_a_row_put_in_from_another_chain_does_not_continue_this_one() -> None:
    rows = chain(3)
    body = canonical_body(entry(99))
    foreign = AuditRow(sequence=2, previous=bytes(32), hash=link_hash(bytes(32), 2, body), body=body)
    report = verify_chain([rows[0], foreign])
    assert report.problem == "row 2 does not continue row 1: its previous hash differs"


def test_verification_goes_on_from_a_known_head() -> None:
    rows = chain(6)
    assert verify_chain(rows[3:], after=(3, rows[2].hash)).problem is None


@given(row=st.integers(0, 4), data=st.data())
def test_one_changed_byte_is_found_in_the_row_it_was_changed_in(row: int, data: st.DataObject) -> None:
    rows = chain(5)
    body = rows[row].body
    position = data.draw(st.integers(0, len(body) - 1))
    other = data.draw(st.characters(codec="utf-8").filter(lambda c: c != body[position]))
    rows[row] = replace(rows[row], body=body[:position] + other + body[position + 1 :])
    assert verify_chain(rows).problem == f"row {row + 1} was changed: its hash does not fit its content"


@pytest.mark.parametrize("field", ["previous", "hash"])
def test_a_changed_hash_is_found(field: str) -> None:
    rows = chain(3)
    rows[1] = replace(rows[1], **{field: bytes(31) + b"\x01"})
    assert verify_chain(rows).problem is not None


def test_the_body_does_not_depend_on_the_order_of_details() -> None:
    one = replace(entry(1), details={"a": 1, "b": 2})
    other = replace(entry(1), details={"b": 2, "a": 1})
    assert canonical_body(one) == canonical_body(other)


def test_a_report_names_the_rows_read_and_the_last_good_one() -> None:
    rows = chain(4)
    damaged = [*rows[:2], replace(rows[2], body="{}"), rows[3]]
    assert verify_chain(damaged) == ChainReport(
        rows=2,
        head_sequence=2,
        head_hash=rows[1].hash.hex(),
        problem="row 3 was changed: its hash does not fit its content",
    )
    assert verify_chain([]) == ChainReport(rows=0, head_sequence=0, head_hash="00" * 32)


def test_a_link_is_the_hash_of_the_one_before_the_number_and_the_content() -> None:
    expected = hashlib.sha256(b"p" * 32 + b"\0\0\0\0\0\0\1\2" + "é".encode()).digest()
    assert link_hash(b"p" * 32, 258, "é") == expected


def test_a_body_is_json_with_sorted_keys_and_no_white_space() -> None:
    body = canonical_body(replace(entry(1), details={"b": 1, "a": "é"}))
    assert body.startswith('{"action":"advance","actor":"dana","at":"2026-11-21T00:00:00Z"')
    assert '"details":{"a":"é","b":1}' in body
