"""The audit log taken away and checked without the server."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from controller.domain.audit import GENESIS_HASH, AuditEntry, ChainReport, canonical_body, link_hash
from tests.cli.answers import NOW, run
from tests.cli.conftest import Rampart
from tests.cli.stub_server import StubServer


def chain(length: int) -> list[dict[str, Any]]:
    """Records as the API answers them."""
    previous, records = GENESIS_HASH, []
    for sequence in range(1, length + 1):
        entry = AuditEntry(
            id=f"e{sequence}",
            at=NOW + timedelta(seconds=sequence),
            actor="dana",
            action="advance",
            cause="policy",
            subject="checkout-v2#3",
            environment="production",
            reason="1 % → 10 %: jeder Wächter war zufrieden",
            run="checkout-v2#3",
            run_version=sequence,
            details={"value": 0.0021, "limit": 1e-7, "sample": 41210, "total": 2.0, "zone": None},
        )
        body = canonical_body(entry)
        digest = link_hash(previous, sequence, body)
        # As the API encodes it: any order of keys will do.
        shuffled = dict(reversed(json.loads(body).items()))
        records.append({"sequence": sequence, "hash": digest.hex(), "previous": previous.hex(), "entry": shuffled})
        previous = digest
    return records


def export(path: Path, records: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def test_an_export_verifies_without_any_server(rampart: Rampart, server: StubServer, tmp_path: Path) -> None:
    records = chain(5)
    told = rampart("audit", "verify", "--file", export(tmp_path / "audit.jsonl", records))
    assert told.returncode == 0
    assert f"head 5:{records[-1]['hash']}" in told.stdout
    assert server.asked == []


@pytest.mark.parametrize(
    ("field", "value"), [("reason", "nothing to see"), ("actor", "kim"), ("details", {"value": 0.002})]
)
def test_a_changed_byte_is_found(rampart: Rampart, tmp_path: Path, field: str, value: object) -> None:
    records = chain(5)
    records[2]["entry"][field] = value
    told = rampart("audit", "verify", "--file", export(tmp_path / "audit.jsonl", records))
    assert told.returncode == 1
    assert "row 3 was changed" in told.stdout


def test_a_missing_row_is_found(rampart: Rampart, tmp_path: Path) -> None:
    records = chain(5)
    del records[1]
    told = rampart("audit", "verify", "--file", export(tmp_path / "audit.jsonl", records), "-o", "json")
    assert told.returncode == 1
    assert json.loads(told.stdout)["problem"].startswith("row 2 is missing")


def test_a_cut_tail_is_found_with_a_head_that_was_noted(rampart: Rampart, tmp_path: Path) -> None:
    records = chain(5)
    path, head = export(tmp_path / "audit.jsonl", records[:4]), f"5:{records[-1]['hash']}"
    assert rampart("audit", "verify", "--file", path).returncode == 0
    told = rampart("audit", "verify", "--file", path, "--head", head)
    assert told.returncode == 1
    assert "row 5 is not what it was" in told.stdout
    assert rampart("audit", "verify", "--file", path, "--head", f"4:{records[3]['hash'][:12]}").returncode == 0


@pytest.mark.parametrize(
    "line", ["{}", "nonsense", '{"sequence": 1, "hash": "zz", "previous": "00", "entry": {}}']
)
def test_a_file_that_is_no_export_is_a_finding(rampart: Rampart, tmp_path: Path, line: str) -> None:
    (tmp_path / "odd.jsonl").write_text(line)
    told = rampart("audit", "verify", "--file", "odd.jsonl")
    assert told.returncode == 1
    assert "line 1 of the export is not an audit row" in told.stderr


def test_the_servers_chain_is_checked_against_a_noted_head(rampart: Rampart, server: StubServer) -> None:
    records = chain(5)
    report = ChainReport(rows=5, head_sequence=5, head_hash=records[4]["hash"])
    server.answers("GET", "audit/verify", report)
    server.answers("GET", "audit", [records[2]])
    assert rampart("audit", "verify").returncode == 0
    assert rampart("audit", "verify", "--head", f"3:{records[2]['hash']}").returncode == 0
    assert rampart("audit", "verify", "--head", f"3:{records[3]['hash']}").returncode == 1


def test_a_broken_chain_on_the_server_is_a_finding(rampart: Rampart, server: StubServer) -> None:
    broken = ChainReport(rows=2, head_sequence=2, head_hash="00", problem="row 3 was changed")
    server.answers("GET", "audit/verify", broken)
    told = rampart("audit", "verify")
    assert told.returncode == 1
    assert "✖ row 3 was changed" in told.stdout


def test_an_export_takes_every_page_and_verifies(rampart: Rampart, server: StubServer, tmp_path: Path) -> None:
    records = chain(1003)
    server.answers("GET", "audit", records[:1000], records[1000:])
    told = rampart("audit", "export")
    assert [json.loads(line) for line in told.stdout.splitlines()] == records
    assert [asked.query["after"] for asked in server.asked] == ["0", "1000"]
    (tmp_path / "audit.jsonl").write_text(told.stdout)
    assert rampart("audit", "verify", "--file", "audit.jsonl").returncode == 0


def test_a_plan_means_its_latest_run(rampart: Rampart, server: StubServer) -> None:
    server.answers("GET", "plans/checkout-v2/status", run())
    server.answers("GET", "audit", chain(2))
    told = rampart("audit", "list", "checkout-v2")
    assert server.asked[-1].query == {"run": "checkout-v2#3", "limit": "30", "newest_first": "true"}
    assert "dana (policy)" in told.stdout
    assert "jeder Wächter" in told.stdout
