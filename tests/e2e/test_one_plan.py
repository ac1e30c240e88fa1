"""One plan, unchanged but for the provider's name: watched, killed by its policy, completed, killed by a person.

Here with flags of Rampart's own and of LaunchDarkly, read by LaunchDarkly's SDK; with those of flagd and Unleash
in tests/peers/test_one_plan_elsewhere.py.
"""

import json
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.support.launchdarkly import (
    PRODUCTION,
    PROJECT,
    SDK_KEYS,
    WRITE_TOKEN,
    FakeLaunchDarkly,
    launchdarkly_in_thread,
)
from tests.support.one_plan import KEY, LaunchDarklyApplication, Place, Story, story
from tests.support.server import RampartServer

pytestmark = pytest.mark.timeout(240)


class BuiltIn:
    name = "main"
    settings = ""

    def application(self, server: RampartServer) -> LaunchDarklyApplication:
        self._key = server.sdk_key()
        return LaunchDarklyApplication(server.url, self._key)

    def kept(self, server: RampartServer) -> Any:
        """With its version."""
        asking = urllib.request.Request(f"{server.url}/sdk/latest-all", headers={"Authorization": self._key})
        with urllib.request.urlopen(asking, timeout=5) as answer:
            return json.load(answer)["flags"][KEY]


class LaunchDarkly:
    """The stand-in for its API, and the official SDK on its stream."""

    name = "ld"

    def __init__(self, fake: FakeLaunchDarkly, folder: Path) -> None:
        fake.create_flag(KEY)
        self._fake = fake
        (folder / "token").write_text(WRITE_TOKEN)
        (folder / "sdk-key").write_text(SDK_KEYS[PRODUCTION])
        self.settings = f"""
[providers.main]
kind = "builtin"
[providers.ld]
kind = "launchdarkly"
project = "{PROJECT}"
api_token_file = "{folder}/token"
sdk_key_files = {{ production = "{folder}/sdk-key" }}
base_uri = "{fake.base_uri}"
stream_uri = "{fake.stream_uri}"
events_uri = "{fake.events_uri}"
"""

    def application(self, _: RampartServer) -> LaunchDarklyApplication:
        return LaunchDarklyApplication(self._fake.stream_uri, SDK_KEYS[PRODUCTION])

    def kept(self, _: RampartServer) -> Any:
        return asdict(self._fake.flag(KEY)), self._fake.requests.writes


@pytest.fixture(params=["builtin", "launchdarkly"])
def told(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Story]:
    if request.param == "builtin":
        with story(tmp_path, BuiltIn()) as one:
            yield one
        return
    with launchdarkly_in_thread() as fake:
        place: Place = LaunchDarkly(fake, tmp_path)
        with story(tmp_path, place) as one:
            yield one


def test_the_same_plan_is_watched_killed_and_completed(told: Story) -> None:
    told.is_watched_and_nothing_is_written()
    told.a_bad_release_is_killed()
    told.a_good_release_climbs_to_everybody()
    told.a_kill_serves_nobody()
