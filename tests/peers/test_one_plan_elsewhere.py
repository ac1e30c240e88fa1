"""The plan of tests/e2e/test_one_plan.py with flags of flagd and of a real Unleash, read by their own SDKs."""

import asyncio
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.one_plan import KEY, STAFF, SpokenApplication, Story, story
from tests.support.postgres import Server, postgres_server
from tests.support.repository import ROOT
from tests.support.server import RampartServer, free_port
from tests.support.unleash import ADMIN_TOKEN, EDITOR, SDK_TOKEN, Flag, hire, person, running_unleash

__all__ = ["postgres_server"]

pytestmark = pytest.mark.timeout(300)

PYTHON = ROOT / ".peers" / "python" / "bin" / "python"
APPLICATIONS = ROOT / "tests" / "peers"
FRESH = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "off"}


class Flagd:
    """A file that Rampart serves over gRPC, and flagd's in-process provider."""

    name = "flagd"

    def __init__(self, folder: Path) -> None:
        self._file = folder / "flags.json"
        self._file.write_text(json.dumps({"flags": {KEY: FRESH}}))
        self._port = free_port()
        self.settings = f"""
[providers.main]
kind = "builtin"
[providers.flagd]
kind = "flagd"
files = {{ production = "{self._file}" }}
sync_bind = "127.0.0.1:{self._port}"
"""

    def application(self, _: RampartServer) -> SpokenApplication:
        staff = {"ask": "details", "key": "kim", "default": False, "attributes": {"email": STAFF}}
        return SpokenApplication(
            [PYTHON, APPLICATIONS / "flagd" / "application.py", "sync", str(self._port)], staff
        )

    def kept(self, _: RampartServer) -> Any:
        return self._file.read_bytes(), self._file.stat().st_mtime_ns


class Unleash:
    name = "unleash"

    def __init__(self, url: str, folder: Path) -> None:
        self._url, self._folder = url, folder
        asyncio.run(self._make_flag())
        (folder / "token").write_text(asyncio.run(hire(url, "rampart", EDITOR)))
        self.settings = f"""
[providers.main]
kind = "builtin"
[providers.unleash]
kind = "unleash"
url = "{url}"
api_token_file = "{folder}/token"
"""

    async def _make_flag(self) -> None:
        async with person(self._url, ADMIN_TOKEN) as admin:
            await Flag(admin, KEY).make()

    def application(self, _: RampartServer) -> SpokenApplication:
        staff = {"ask": "serves", "context": {"userId": "kim", "properties": {"email": STAFF}}}
        command: list[str | Path] = [
            PYTHON,
            APPLICATIONS / "unleash" / "application.py",
            self._url,
            SDK_TOKEN,
            self._folder / "cache",
        ]
        return SpokenApplication(command, staff)

    def kept(self, _: RampartServer) -> Any:
        """With every event of the flag that Unleash recorded."""
        return self._ask(f"projects/default/features/{KEY}/environments/production"), self._ask(
            f"search/events?feature=IS%3A{KEY}&limit=100"
        )

    def _ask(self, path: str) -> Any:
        asking = urllib.request.Request(f"{self._url}/api/admin/{path}", headers={"Authorization": ADMIN_TOKEN})
        with urllib.request.urlopen(asking, timeout=10) as answer:
            return json.load(answer)


@pytest.fixture
def in_flagd(tmp_path: Path) -> Iterator[Story]:
    with story(tmp_path, Flagd(tmp_path)) as told:
        yield told


@pytest.fixture
def in_unleash(tmp_path: Path, postgres_server: Server) -> Iterator[Story]:
    dsn = asyncio.run(postgres_server.create_database())
    with running_unleash(tmp_path / "unleash", dsn) as url, story(tmp_path, Unleash(url, tmp_path)) as told:
        yield told


@pytest.mark.parametrize("place", ["in_flagd", "in_unleash"])
def test_the_same_plan_is_watched_killed_and_completed(place: str, request: pytest.FixtureRequest) -> None:
    told: Story = request.getfixturevalue(place)
    told.is_watched_and_nothing_is_written()
    told.a_bad_release_is_killed()
    told.a_good_release_climbs_to_everybody()
    told.a_kill_serves_nobody()
