"""The pod of a trial, as far as it goes without Kubernetes: variables, settings, command, probes."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chart.conftest import Helm, values_of
from tests.chart.test_objects import container, rampart_toml
from tests.support.server import RampartServer

FLAG = """\
apiVersion: rampart/v1
kind: Flag
metadata: { name: checkout }
spec: { environment: production, key: checkout, variations: { "on": true, "off": false }, off: "off" }
"""


class Pod:
    """Its folders are in a temporary one, and its port is a free one; all else is as the chart says."""

    def __init__(self, helm: Helm, folder: Path) -> None:
        documents = helm.documents(values_of("trial"))
        self.notes = helm.render(values_of("trial"))["NOTES.txt"]
        self.container: dict[str, Any] = container(documents)
        self.server = RampartServer(folder)
        settings = rampart_toml(documents).replace("/var/lib/rampart", str(self.server.data))
        assert str(self.server.data) in settings
        self.server.config.write_text(settings.replace("0.0.0.0:8400", f"127.0.0.1:{self.server.port}"))
        self.environ = {one["name"]: one["value"] for one in self.container["env"]}
        assert self.environ["RAMPART_CONFIG"].endswith(self.server.config.name)
        self.environ |= {"RAMPART_CONFIG": str(self.server.config), "TMPDIR": str(folder)}

    def exec(self, command: str, text: str = "") -> str:
        """What `kubectl exec` would run. Its port is not the usual one, so it is told."""
        program, *words = shlex.split(command)
        assert program == "rampart"
        environ = os.environ | self.environ | {"RAMPART_URL": self.server.url}
        call = [sys.executable, "-m", "controller", *words]
        ran = subprocess.run(
            call, env=environ, input=text, capture_output=True, text=True, timeout=60, check=False
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout


@pytest.fixture
def pod(helm: Helm, tmp_path: Path) -> Iterator[Pod]:
    pod = Pod(helm, tmp_path)
    assert pod.container["args"] == ["serve"]
    pod.server.start(wait_ready=False, env=pod.environ)
    yield pod
    pod.server.stop()


def test_a_trial_gets_ready_and_is_killed_as_the_notes_say(pod: Pod) -> None:
    pod.server.wait_serving()
    pod.server.wait_ready()
    for name in ("startup", "liveness", "readiness"):
        assert pod.server.request("GET", pod.container[f"{name}Probe"]["httpGet"]["path"]).status == 200
    assert "admin.token" in pod.notes
    assert (pod.server.data / "admin.token").is_file()
    pod.exec("rampart apply -", FLAG)

    (command,) = re.findall(r"exec rampart-0 -- (rampart kill .*)", pod.notes)
    assert "accepted" in pod.exec(command.replace("FLAG", "checkout"))

    path, body = re.findall(r"(/api/v1/\S+/kill) .*?-d '(\{.*?\})'", pod.notes, re.DOTALL)[0]
    answer = pod.server.request("POST", path.replace("FLAG", "checkout"), json.loads(body))
    assert answer.status == 200
