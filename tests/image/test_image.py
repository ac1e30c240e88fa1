"""The image that build.sh made: as nobody special, on a root file system it cannot write, without a network."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from controller import __version__
from tests.support.server import wait_until

HERE = Path(__file__).resolve().parents[2] / ".image"
PODMAN = [
    "podman", "--root", f"{HERE}/storage", "--runroot", f"{HERE}/run", "--storage-driver", "vfs",
    "--runtime", "runc", "--cgroup-manager", "cgroupfs", "--log-level", "fatal",
]  # fmt: skip
CONFINED = [
    "--network", "none", "--read-only", "--read-only-tmpfs=false", "--cap-drop", "ALL",
    "--security-opt", "no-new-privileges", "--ulimit", "nofile=10000:10000", "--ulimit", "nproc=1000:1000",
]  # fmt: skip
IMAGE = "rampart-test"
OWNER = 10001
FLAG = """\
apiVersion: rampart/v1
kind: Flag
metadata: { name: checkout }
spec: { environment: production, key: checkout, variations: { "on": true, "off": false }, off: "off" }
"""

pytestmark = pytest.mark.timeout(300)


def podman(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PODMAN, *args], capture_output=True, text=True, check=False)


def told(*args: str) -> str:
    ran = podman(*args)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """A data volume as an orchestrator hands it over."""
    path = tmp_path / "data"
    path.mkdir()
    path.chmod(0o700)
    subprocess.run(["chown", f"{OWNER}:{OWNER}", str(path)], check=True)
    # A bind mount is reached through the directories above it.
    for parent in path.parents[:-2]:
        parent.chmod(parent.stat().st_mode | 0o011)
    return path


@contextmanager
def serving(volume: Path) -> Iterator[str]:
    """A container that runs the default command, by its id."""
    container = told("run", "--detach", *CONFINED, "--volume", f"{volume}:/var/lib/rampart", IMAGE).strip()
    try:
        yield container
    finally:
        podman("rm", "--force", container)


def ready(container: str) -> None:
    wait_until(
        lambda: podman("exec", container, "rampart", "healthz", "--ready").returncode == 0,
        seconds=60,
        every=0.5,
        what="the server in the container to be ready",
    )


def test_the_demo_plays_to_its_end(volume: Path) -> None:
    ran = podman(
        "run", "--rm", *CONFINED, "--volume", f"{volume}:/var/lib/rampart", IMAGE, "demo", "--fast", "--exit"
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "Both rollouts ended as they should" in ran.stdout
    assert list(volume.iterdir()) == []


def test_a_server_is_healthy_kills_stops_when_told_and_remembers(volume: Path) -> None:
    with serving(volume) as container:
        ready(container)
        healthcheck = json.loads(told("image", "inspect", IMAGE))[0]["Healthcheck"]["Test"]
        assert healthcheck == ["CMD", "rampart", "healthz"]
        assert told("exec", container, "rampart", "version").splitlines() == [
            f"rampart {__version__}",
            f"server  {__version__}",
        ]
        (volume / "checkout.flag.yaml").write_text(FLAG)
        told("exec", container, "rampart", "apply", "checkout.flag.yaml")
        told("exec", container, "rampart", "kill", "checkout", "-m", "INC-1")
        assert podman("exec", container, "touch", "/opt/rampart/x").returncode != 0
        assert told("exec", container, "id", "-u").strip() == str(OWNER)
        told("stop", "--time", "20", container)
        ended = json.loads(told("container", "inspect", container))[0]["State"]
        assert (ended["ExitCode"], ended["OOMKilled"]) == (0, False)
        # podman makes the mount points of its own files below /etc.
        assert set(told("diff", container).splitlines()) <= {"C /etc"}
    with serving(volume) as container:
        ready(container)
        audit = told("exec", container, "rampart", "audit", "list")
        assert "INC-1" in audit


def test_the_image_says_what_it_is_and_holds_no_tools_to_install_more() -> None:
    image = json.loads(told("image", "inspect", IMAGE))[0]
    labels = image["Labels"]
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert image["User"] == f"{OWNER}:{OWNER}"
    assert list(image["Config"]["Volumes"]) == ["/var/lib/rampart"]
    inside = told("run", "--rm", *CONFINED, "--entrypoint", "ls", IMAGE, "/opt/rampart/bin").split()
    assert "rampart" in inside
    assert [name for name in inside if name.startswith(("pip", "hatch"))] == []
