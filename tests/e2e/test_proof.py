"""A rule kills a real rollout; its proof is exported from the server and checked without server and network."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from controller.domain.proof import Proof, ProofReport
from tests.support import manifests
from tests.support.exposition import Exposition, Traffic
from tests.support.proofs import entry_of
from tests.support.repository import ROOT
from tests.support.server import RampartServer, wait_until

HURT, HEALTHY = "checkout", "search"
NO_NETWORK = (
    "import socket, sys\n"
    "def refuse(*_, **__): raise AssertionError('a socket was opened')\n"
    "socket.socket.__init__ = refuse\n"
    "from controller.cli import main\n"
    "sys.exit(main(sys.argv[1:]))\n"
)


class Exported:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run = ""
        self.heads: dict[str, str] = {}

    def verified(self, file: str, *arguments: str) -> tuple[int, ProofReport]:
        command = [sys.executable, "-c", NO_NETWORK, "verify", file, "-o", "json", *arguments]
        done = subprocess.run(
            command, cwd=self.folder, env={"PYTHONPATH": str(ROOT)}, capture_output=True, timeout=60, check=False
        )
        return done.returncode, msgspec.json.decode(done.stdout, type=ProofReport)

    def proof(self, file: str) -> Proof:
        return msgspec.json.decode((self.folder / file).read_bytes(), type=Proof)


def taken(server: RampartServer, folder: Path, file: str, *arguments: str) -> str:
    """Exported with the command; the head that it tells to note."""
    environ = os.environ | {"RAMPART_URL": server.url, "RAMPART_TOKEN_FILE": str(server.data / "admin.token")}
    command = [sys.executable, "-m", "controller", "audit", "export", HURT, "-o", file, *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stderr.partition("note its head somewhere else: ")[2].split()[0]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("proof")
    made, hurt = Exported(folder), Traffic()
    app = Exposition({HURT: {"on": hurt, "off": Traffic()}, HEALTHY: {"on": Traffic(), "off": Traffic()}})
    server = RampartServer(folder, manifests.scrape_settings(app.url))
    try:
        server.start()
        server.apply(a_policy=manifests.policy())
        for flag in (HURT, HEALTHY):
            server.apply(**{f"{flag}_flag": manifests.flag(flag), f"{flag}_rollout": manifests.plan(flag)})
            server.command(flag, "start")
        wait_until(lambda: server.status(HURT)["desired_exposure"] >= 10_000, seconds=60, what="10 %")
        hurt.error_rate = 0.5
        made.run = server.wait_phase(HURT, "killed")["id"]
        server.wait_phase(HEALTHY, "completed")
        made.heads["one.json"] = taken(server, folder, "one.json")
        made.heads["all.json"] = taken(server, folder, "all.json", "--all")
    finally:
        server.stop()
        app.close()
    return made


def test_the_proof_of_a_real_kill_is_good_where_there_is_no_server(exported: Exported) -> None:
    for file, head in exported.heads.items():
        code, report = exported.verified(file, "--head", head)
        assert (code, report.good, report.run, report.phase) == (0, True, exported.run, "killed"), report.checks
        assert report.exposures[:3] == [0, 1_000, 10_000]
        assert report.exposures[-1] == 0
        assert report.ending
        assert (report.ending.actor, report.ending.cause) == ("rampart", "policy")
        assert report.ending.reason.startswith("killed by quick/errors-jump: error_rate")
        checked = {check.name: check.checked for check in report.checks}
        assert checked["decisions"] >= 5
    assert exported.verified("all.json", "--head", exported.heads["all.json"])[1].limits == []


def test_the_proof_of_one_run_holds_no_word_of_another(exported: Exported) -> None:
    assert HEALTHY not in (exported.folder / "one.json").read_text()
    others = [row for row in exported.proof("all.json").rows if entry_of(row).run != exported.run]
    assert others


def test_a_proof_in_which_one_digit_was_changed_is_not_good(exported: Exported) -> None:
    text = (exported.folder / "one.json").read_text()
    place = text.rindex('\\"value\\":') + len('\\"value\\":')
    digit = "1" if text[place] == "0" else "0"
    (exported.folder / "changed.json").write_text(text[:place] + digit + text[place + 1 :])
    code, report = exported.verified("changed.json")
    assert (code, report.good) == (1, False)
    last = exported.proof("one.json").rows[-1].sequence
    assert [finding.row for check in report.checks if check.name == "chain" for finding in check.findings] == [
        last
    ]
