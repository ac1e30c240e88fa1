"""`rampart doctor` against a real server: what a person sees, and what a script is told."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support import manifests
from tests.support.exposition import Exposition, Traffic
from tests.support.server import RampartServer, serving, wait_until
from tests.support.twenty import SETTINGS, SLOW, SLOW_START_SECONDS

pytestmark = pytest.mark.timeout(300)

CHANNEL = '[channels.oncall]\nkind = "log"\n'
GONE = '[sources.gone]\nkind = "prometheus"\nurl = "http://127.0.0.1:9"\n'
PLAN = manifests.plan("checkout") + "  notify: [{ to: oncall }]\n"


class Told:
    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr


def doctor(server: RampartServer, *arguments: str) -> Told:
    command = [sys.executable, "-m", "controller", "doctor", *arguments]
    env = {**os.environ, "RAMPART_URL": server.url, "RAMPART_TOKEN": server.token, "NO_COLOR": "1"}
    return Told(subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=env))


def well(server: RampartServer) -> Told | None:
    told = doctor(server, "checkout")
    return told if told.code == 0 else None


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RampartServer]:
    traffic = {"checkout": {"on": Traffic(), "off": Traffic()}}
    with closing(Exposition(traffic)) as app:
        settings = SETTINGS.format(url=app.url) + CHANNEL
        with serving(tmp_path_factory.mktemp("doctor"), settings, wait_ready=False) as server:
            server.wait_ready(SLOW_START_SECONDS)
            server.apply(a_policy=manifests.policy(**SLOW), a_flag=manifests.flag("checkout"), a_rollout=PLAN)
            yield server


def test_a_person_sees_what_is_well_and_with_which_figures(server: RampartServer) -> None:
    told = wait_until(lambda: well(server), what="a window of samples")
    lines = told.out.splitlines()
    assert any(line.startswith("✔ database: embedded PostgreSQL") and "schema 0" in line for line in lines)
    assert any(line.startswith("✔ journal: ") and "MiB are free" in line for line in lines)
    (plan,) = (line for line in lines if "plan checkout" in line)
    assert plan.startswith("✔ plan checkout: main/production/checkout is off; quick answers for off (error_rate")
    assert re.fullmatch(r"\d+ ok", lines[-1])


def test_a_running_plan_is_measured_on_both_sides(server: RampartServer) -> None:
    server.command("checkout", "start")
    wait_until(lambda: server.status("checkout")["confirmed"], what="the first stage")
    told = wait_until(lambda: well(server), what="both to answer")
    assert "quick answers for on, off" in told.out
    server.command("checkout", "abandon")


def test_a_plan_that_does_not_exist_is_a_sentence(server: RampartServer) -> None:
    told = doctor(server, "chekout")
    assert told.code != 0
    assert told.err == 'error: there is no plan "chekout"; there are: checkout\n'


def test_a_test_message_reaches_the_channel_and_says_who_sent_it(server: RampartServer) -> None:
    told = doctor(server, "--send-test")
    assert "✔ channel oncall: took the test message" in told.out
    logged = [json.loads(line) for line in server.log.read_text().splitlines() if '"announced"' in line]
    (message,) = (line for line in logged if line["told"] == "test")
    assert (message["channel"], message["actor"]) == ("oncall", "admin")


def test_what_cannot_work_is_told_with_its_remedy_and_fails_a_script(tmp_path: Path) -> None:
    with serving(tmp_path, GONE + CHANNEL, wait_ready=False) as server:
        server.wait_ready(SLOW_START_SECONDS)
        told = doctor(server)
        (server.data / "admin.token").chmod(0o644)
        risky = doctor(server)
    assert told.code == 1
    assert "✖ source gone: gone at http://127.0.0.1:9: cannot connect" in told.out
    assert "    → check [sources.gone] in rampart.toml" in told.out
    assert f"    → chmod o-rwx {server.data / 'admin.token'}" in risky.out
