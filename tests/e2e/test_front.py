"""In front of LaunchDarkly: a kill that its API refuses holds at every SDK, over a SIGKILL, until it is reset."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.launchdarkly import PRODUCTION, SDK_KEYS, WRITE_TOKEN, FakeLaunchDarkly, launchdarkly_in_thread
from tests.support.server import RampartServer, wait_until
from tests.support.streams import Streams

FLAGS = ["checkout", "search"]
KILLED = FLAGS[:1]
CONFIRMED_WITHIN_SECONDS = 2.0


@pytest.fixture
def launchdarkly() -> Iterator[FakeLaunchDarkly]:
    """Two flags that everybody gets."""
    with launchdarkly_in_thread() as fake:
        for key in FLAGS:
            fake.create_flag(key, serves="on")
            fake.person("dana").turn_on(key)
        yield fake


@pytest.fixture
def server(tmp_path: Path, launchdarkly: FakeLaunchDarkly) -> Iterator[RampartServer]:
    server = RampartServer(tmp_path, settings(tmp_path, launchdarkly))
    server.start()
    yield server
    server.stop()


def settings(folder: Path, fake: FakeLaunchDarkly) -> str:
    (folder / "ld-token").write_text(WRITE_TOKEN)
    (folder / "ld-sdk-key").write_text(SDK_KEYS[PRODUCTION])
    return f"""
[providers.ld]
kind = "launchdarkly"
project = "shop"
api_token_file = "{folder}/ld-token"
sdk_key_files = {{ production = "{folder}/ld-sdk-key" }}
base_uri = "{fake.base_uri}"
stream_uri = "{fake.stream_uri}"
events_uri = "{fake.events_uri}"

[delivery.front.ld.production]
"""


def kill(server: RampartServer) -> Any:
    body = {"reason": "INC-1", "provider": "ld"}
    answer = server.request("POST", f"/api/v1/environments/{PRODUCTION}/flags/checkout/kill", body)
    assert answer.status == 202, answer.body
    return answer.json["kills"][0]


def is_confirmed(server: RampartServer) -> bool:
    return all(one["confirmed_at"] for one in server.call("GET", "kills"))


def wait_served(streams: Streams, *wanted: bool) -> None:
    everywhere = [list(wanted)] * streams.count
    wait_until(lambda: streams.served(FLAGS) == everywhere, what=f"every SDK to serve {wanted}")


def test_while_every_write_is_refused_sdks_are_off_and_the_kill_is_confirmed_soon_after(
    server: RampartServer, launchdarkly: FakeLaunchDarkly
) -> None:
    with Streams(server.url, SDK_KEYS[PRODUCTION], 2, real=True) as sdks:
        wait_served(sdks, True, True)
        sdks.arrivals()
        refusal = launchdarkly.faults.fail(405, on="writes")
        receipt = kill(server)
        assert receipt["confirmed_at"] is None
        assert receipt["replicas"]
        wait_served(sdks, False, True)
        wait_until(lambda: refusal.hits >= 3, what="the kill to be pressed on with")
        assert not is_confirmed(server)
        assert launchdarkly.config("checkout").on
        refusal.stop()
        wait_until(lambda: is_confirmed(server), seconds=CONFIRMED_WITHIN_SECONDS, what="the confirmation")
        assert not launchdarkly.config("checkout").on
        assert True not in [one.on for one in sdks.arrivals()]


def test_a_kill_outlives_a_sigkill_while_launchdarkly_is_away_and_a_reset_raises_nothing(
    server: RampartServer, launchdarkly: FakeLaunchDarkly
) -> None:
    kept = server.data / "front" / "ld" / "production.json"
    wait_until(kept.exists, what="the flags to be kept on disk")
    launchdarkly.sdk.down()
    away = launchdarkly.faults.fail(503)
    receipt = kill(server)
    server.kill()
    server.start()
    with Streams(server.url, SDK_KEYS[PRODUCTION], 2, real=True) as sdks:
        wait_served(sdks, False, True)
        assert not is_confirmed(server)
        away.stop()
        launchdarkly.sdk.up()
        wait_until(lambda: is_confirmed(server), seconds=40, what="the confirmation")
        body = {"kill_ids": [receipt["kill_id"]], "provider": "ld"}
        server.call("POST", f"environments/{PRODUCTION}/flags/checkout/reset", body)
        wait_until(lambda: server.call("GET", "kills") == [], what="the reset")
        assert sdks.served(KILLED) == [[False], [False]]
        launchdarkly.person("dana").turn_on("checkout")
        launchdarkly.person("dana").serve("checkout", "on")
        wait_served(sdks, True, True)
