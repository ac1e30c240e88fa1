"""A run taken away in one file, and checked with that file alone."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from controller.api.bodies import AuditHead, AuditRecord
from controller.domain.audit import AuditRow
from controller.domain.catalogue import PlanRevision, PolicyRevision
from controller.domain.proof import Proof
from tests.cli.answers import run as status_of_run
from tests.cli.conftest import REPOSITORY, Rampart
from tests.cli.stub_server import StubServer
from tests.cli.test_startup import SERVER_MODULES
from tests.support.engine import World
from tests.support.proofs import edited, entry_of, rehashed

RUN = "checkout-v2#1"


class Story:
    """What a server would answer about a run that a rule killed."""

    def __init__(self, folder: Path) -> None:
        asyncio.run(self._told(World(folder)))

    async def _told(self, world: World) -> None:
        await world.started()
        world.source.sides["on"] = {"p95": 0.35}
        await world.until("killed")
        self.rows = await world.store.audit()
        self.own = await world.store.audit(run=RUN)
        plan, policy = await world.store.plan("checkout-v2"), await world.store.policy("web")
        assert plan
        assert policy
        self.plan: PlanRevision = plan
        self.policy: PolicyRevision = policy

    def answer(self, server: StubServer, rows: list[AuditRow] | None = None) -> None:
        last = self.rows[-1]
        server.answers("GET", "audit/head", AuditHead(sequence=last.sequence, hash=last.hash.hex()))
        server.answers("GET", "audit", [record(row) for row in rows or self.own])
        server.answers("GET", "plans/checkout-v2", self.plan)
        server.answers("GET", "policies/web", self.policy)
        server.answers("GET", "version", {"version": "1.2.3"})


def record(row: AuditRow) -> AuditRecord:
    return AuditRecord(
        sequence=row.sequence,
        hash=row.hash.hex(),
        previous=row.previous.hex(),
        entry=msgspec.json.decode(row.body),
    )


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    return Story(tmp_path_factory.mktemp("world"))


@pytest.fixture
def exported(story: Story, server: StubServer, rampart: Rampart, tmp_path: Path) -> Path:
    story.answer(server)
    told = rampart("audit", "export", RUN, "-o", "proof.json")
    assert told.returncode == 0, told.stderr
    return tmp_path / "proof.json"


def read(path: Path) -> Proof:
    return msgspec.json.decode(path.read_bytes(), type=Proof)


def test_an_export_holds_plan_policies_and_the_rows_of_the_run(
    exported: Path, story: Story, server: StubServer
) -> None:
    proof = read(exported)
    assert (proof.format, proof.run, proof.server_version, proof.whole) == (
        "rampart/proof/v1",
        RUN,
        "1.2.3",
        False,
    )
    assert [row.body for row in proof.rows] == [row.body for row in story.own]
    assert [(text.name, text.revision) for text in (*proof.plans, *proof.policies)] == [
        ("checkout-v2", 1),
        ("web", 1),
    ]
    asked = {one.path: one.query for one in server.asked}
    assert asked["audit"]["run"] == RUN
    assert asked["plans/checkout-v2"] == asked["policies/web"] == {"revision": "1"}


def test_a_proof_is_checked_with_nothing_but_its_file(
    exported: Path, rampart: Rampart, server: StubServer
) -> None:
    asked = len(server.asked)
    told = rampart("verify", str(exported), RAMPART_TOKEN="", RAMPART_URL="http://127.0.0.1:1")
    assert told.returncode == 0, told.stdout
    assert len(server.asked) == asked
    assert f"✔ {RUN}: everything in this file fits" in told.stdout
    assert "killed on 2026-11-18" in told.stdout
    assert "by rampart (row 6): killed by web/p95-3x: latency_p95 350 ms" in told.stdout
    assert "exposure 0 % → 1 % → 0 %" in told.stdout
    assert "3 decisions made again" in told.stdout
    assert "Not checked:" in told.stdout


def test_an_export_says_what_to_note_and_the_noted_head_fits(
    story: Story, server: StubServer, rampart: Rampart
) -> None:
    story.answer(server)
    told = rampart("audit", "export", RUN, "-o", "proof.json").stderr
    head = f"{story.own[-1].sequence}:{story.own[-1].hash.hex()}"
    assert f"note its head somewhere else: {head}" in told
    command = told.partition("check it anywhere: rampart ")[2].split()
    assert command == ["verify", "proof.json", "--head", head]
    assert rampart(*command).returncode == 0
    other = rampart("verify", "proof.json", "--head", f"{story.own[-1].sequence}:00ff")
    assert other.returncode == 1
    assert "✖ the noted head does not fit" in other.stdout


def test_all_takes_the_rows_of_others_in_and_is_one_chain(
    story: Story, server: StubServer, rampart: Rampart, tmp_path: Path
) -> None:
    story.answer(server)
    server.answers("GET", "audit", [record(row) for row in story.own], [record(row) for row in story.rows[2:]])
    assert rampart("audit", "export", RUN, "--all", "-o", "proof.json").returncode == 0
    assert server.asked[-2].query == {"after": "2", "limit": "1000"}
    proof = read(tmp_path / "proof.json")
    assert proof.whole
    assert [row.sequence for row in proof.rows] == [row.sequence for row in story.rows[2:]]
    head = f"{proof.head.sequence}:{proof.head.hash}"
    told = rampart("verify", "proof.json", "--head", head)
    assert told.returncode == 0
    assert "Not checked:" not in told.stdout


def test_rows_that_are_written_during_an_export_are_not_in_it(
    story: Story, server: StubServer, rampart: Rampart, tmp_path: Path
) -> None:
    story.answer(server)
    row = story.own[-2]
    server.answers("GET", "audit/head", AuditHead(sequence=row.sequence, hash=row.hash.hex()))
    assert rampart("audit", "export", RUN, "-o", "proof.json").returncode == 0
    assert read(tmp_path / "proof.json").rows[-1].sequence == row.sequence
    told = rampart("verify", "proof.json").stdout
    assert "progressing, not ended" in told
    assert "The run had not ended when it was exported" in told


def test_without_a_file_the_proof_goes_to_standard_output(
    story: Story, server: StubServer, rampart: Rampart
) -> None:
    story.answer(server)
    server.answers("GET", "plans/checkout-v2/status", replace(status_of_run(), id=RUN))
    told = rampart("audit", "export", "checkout-v2")
    assert told.returncode == 0
    assert msgspec.json.decode(told.stdout, type=Proof).run == RUN


def test_a_forged_file_is_a_finding_that_names_the_row(exported: Path, rampart: Rampart) -> None:
    proof = read(exported)
    kill = next(place for place, row in enumerate(proof.rows) if entry_of(row).action == "kill")
    row = edited(proof.rows[kill], lambda entry: entry.update(reason="killed by nobody"))
    exported.write_bytes(msgspec.json.encode(rehashed(proof, [*proof.rows[:kill], row])))
    told = rampart("verify", str(exported))
    assert told.returncode == 1
    assert f"✖ {RUN}: this file does not prove what it says" in told.stdout
    assert "✖ decisions do not follow from what they rested on" in told.stdout
    assert f'row {row.sequence} (kill): the row says "killed by nobody" (policy); decided again' in told.stdout
    answer = json.loads(rampart("verify", str(exported), "-o", "json").stdout)
    assert not answer["good"]
    (decisions,) = [check for check in answer["checks"] if check["name"] == "decisions"]
    assert decisions["findings"][0]["row"] == row.sequence


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"format": "rampart/proof/v2"}', b"\xff\xfe"])
def test_a_file_that_is_no_proof_is_a_finding(rampart: Rampart, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "odd.json").write_bytes(content)
    told = rampart("verify", "odd.json")
    assert told.returncode == 1
    assert "this is no proof of a run that this version can read" in told.stderr


def test_what_does_not_verify_at_its_export_is_told_there(
    story: Story, server: StubServer, rampart: Rampart
) -> None:
    damaged = [*story.own[:2], replace(story.own[2], hash=bytes(32)), *story.own[3:]]
    story.answer(server, damaged)
    told = rampart("audit", "export", RUN, "-o", "proof.json")
    assert told.returncode == 1
    assert "what the server gave does not verify" in told.stderr
    assert f"row {damaged[2].sequence} was changed" in told.stderr


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["audit", "export", "--all"], "--all belongs to a RUN"),
        (["audit", "export", "checkout-v2#x"], "names no run"),
        (["audit", "export", "checkout-v2#9"], "the audit log has no row of checkout-v2#9"),
        (["audit", "export", RUN, "-o", "nowhere/proof.json"], "cannot write nowhere/proof.json"),
        (["verify", "nowhere.json"], "nowhere.json"),
        (["verify", __file__, "--head", "12"], "is not ROW:HASH"),
    ],
)
def test_wrong_usage_is_told(
    story: Story, server: StubServer, rampart: Rampart, arguments: list[str], why: str
) -> None:
    story.answer(server)
    if "checkout-v2#9" in arguments:
        server.answers("GET", "audit", [])
    told = rampart(*arguments)
    assert told.returncode == 2
    assert why in told.stderr


def test_the_check_loads_no_part_of_the_server_and_opens_no_socket(exported: Path) -> None:
    script = (
        "import socket, sys\n"
        "def refuse(*_, **__): raise AssertionError('a socket was opened')\n"
        "socket.socket.__init__ = refuse\n"
        "from controller.cli import main\n"
        f"assert main(['verify', {str(exported)!r}]) == 0\n"
        "print('\\n'.join(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, env={}, capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()).isdisjoint({*SERVER_MODULES, "yaml", "promql_parser", "controller.store"})
