"""A flag that was left raised: looked at without a write, then adopted where it is, and taken to its end."""

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import manifests
from tests.support.exposition import Exposition, Traffic
from tests.support.repository import ROOT
from tests.support.server import RampartServer, serving, wait_until

FLAG = "checkout"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RampartServer]:
    """The flag serves its rollout to 1 %, and nobody drives it."""
    app = Exposition({FLAG: {"on": Traffic(), "off": Traffic()}})
    try:
        with serving(tmp_path, manifests.scrape_settings(app.url)) as one:
            one.apply(
                a_policy=manifests.policy(), a_flag=manifests.flag(FLAG), a_rollout=manifests.plan(FLAG, "9m")
            )
            one.command(FLAG, "start")
            wait_until(
                lambda: one.status(FLAG)["confirmed"] and one.status(FLAG)["desired_exposure"],
                seconds=30,
                what="1 %",
            )
            one.command(FLAG, "abandon")
            one.apply(a_rollout=manifests.plan(FLAG))
            yield one
    finally:
        app.close()


def rampart(server: RampartServer, *arguments: str) -> str:
    environ = os.environ | {"RAMPART_URL": server.url, "RAMPART_TOKEN_FILE": str(server.data / "admin.token")}
    done = subprocess.run(
        [sys.executable, "-m", "controller", *arguments],
        env=environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_flag_is_looked_at_then_adopted_and_taken_to_its_end(server: RampartServer, tmp_path: Path) -> None:
    version = served(server)
    looking = (
        manifests.plan(FLAG)
        .replace("name: checkout }", "name: looking }")
        .replace("spec:\n", "spec:\n  mode: observe\n", 1)
    )
    server.apply(b_rollout=looking)
    server.command("looking", "start")
    wait_until(
        lambda: server.status("looking")["desired_exposure"] >= 10_000, seconds=30, what="a judgement of 1 %"
    )
    report = rampart(server, "report", "looking")
    assert "the flag is at 1 % to begin with" in report
    assert "would have advanced from 1 % to 10 % (early)" in report
    assert "OBSERVING: nothing is written to the flag" in rampart(server, "status", "looking")
    assert served(server) == version, "nothing was written"
    server.command("looking", "abandon")

    assert "took the flag over at 1 % by admin: was left" in rampart(server, "adopt", FLAG, "-m", "was left")
    run = server.wait_phase(FLAG, "completed")
    assert run["observed_exposure"] == 100_000
    rampart(server, "audit", "export", FLAG, "-o", str(tmp_path / "proof.json"))
    assert "checkout#2" in rampart(server, "verify", str(tmp_path / "proof.json"))


def served(server: RampartServer) -> int:
    """The version of the flag as SDKs are served it: every write raises it."""
    asked = urllib.request.Request(f"{server.url}/sdk/latest-all", headers={"Authorization": server.sdk_key()})
    with urllib.request.urlopen(asked, timeout=10) as answer:
        version: int = json.load(answer)["flags"][FLAG]["version"]
    return version
