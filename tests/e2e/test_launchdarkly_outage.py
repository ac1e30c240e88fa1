"""LaunchDarkly refuses every write in the middle of a kill: the whole server, the official SDK, no door in front.

`OUTAGE_SECONDS` says for how long; `-s` shows the figures.
"""

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from tests.support.launchdarkly import (
    PRODUCTION,
    PROJECT,
    SDK_KEYS,
    WRITE_TOKEN,
    FakeLaunchDarkly,
    launchdarkly_in_thread,
)
from tests.support.server import RampartServer, wait_until

log = structlog.get_logger()

OUTAGE_SECONDS = float(os.environ.get("OUTAGE_SECONDS", "3"))
ACCEPTED_WITHIN_SECONDS = 4.0
"""A kill's answer waits two seconds at most for whatever else it can tell."""
CONFIRMED_WITHIN_SECONDS = 5.0

pytestmark = pytest.mark.timeout(120 + OUTAGE_SECONDS)


@pytest.fixture
def launchdarkly() -> Iterator[FakeLaunchDarkly]:
    """A flag that half of all users get."""
    with launchdarkly_in_thread() as fake:
        fake.create_flag("checkout")
        fake.person("dana").share("checkout", 50_000)
        fake.person("dana").turn_on("checkout")
        yield fake


@pytest.fixture
def server(tmp_path: Path, launchdarkly: FakeLaunchDarkly) -> Iterator[RampartServer]:
    (tmp_path / "token").write_text(WRITE_TOKEN)
    (tmp_path / "sdk-key").write_text(SDK_KEYS[PRODUCTION])
    settings = f"""
[providers.ld]
kind = "launchdarkly"
project = "{PROJECT}"
api_token_file = "{tmp_path}/token"
sdk_key_files = {{ production = "{tmp_path}/sdk-key" }}
base_uri = "{launchdarkly.base_uri}"
stream_uri = "{launchdarkly.stream_uri}"
events_uri = "{launchdarkly.events_uri}"
"""
    server = RampartServer(tmp_path, settings)
    server.start()
    yield server
    server.stop()


def unconfirmed_seconds(server: RampartServer) -> float:
    """As an alert sees it."""
    text = server.request("GET", "/metrics").body.decode()
    found = re.search(r"^rampart_kill_unconfirmed_seconds (\S+)$", text, re.MULTILINE)
    assert found
    return float(found[1])


def confirmed(server: RampartServer) -> bool:
    return all(one["confirmed_at"] for one in server.call("GET", "kills"))


def killed(server: RampartServer) -> tuple[Any, float]:
    """The receipt, and seconds until it came."""
    began = time.monotonic()
    body = {"reason": "INC-1", "provider": "ld"}
    (receipt,) = server.call("POST", f"environments/{PRODUCTION}/flags/checkout/kill", body)["kills"]
    return receipt, time.monotonic() - began


@pytest.mark.parametrize("status", [503, 405, 429])
def test_a_kill_in_an_outage_is_accepted_at_once_shown_as_open_and_confirmed_soon_after(
    server: RampartServer, launchdarkly: FakeLaunchDarkly, status: int
) -> None:
    refused = launchdarkly.faults.fail(status, on="writes")
    began = time.monotonic()
    receipt, accepted_seconds = killed(server)
    outage_ends = time.monotonic() + OUTAGE_SECONDS
    assert accepted_seconds < ACCEPTED_WITHIN_SECONDS
    assert receipt["confirmed_at"] is None
    most = 0.0
    while time.monotonic() < outage_ends:
        assert not confirmed(server)
        assert launchdarkly.config("checkout").on
        most = max(most, unconfirmed_seconds(server))
        time.sleep(0.2)
    assert OUTAGE_SECONDS / 3 < most < time.monotonic() - began
    attempts = refused.hits
    refused.stop()
    back = time.monotonic()
    wait_until(lambda: confirmed(server), seconds=CONFIRMED_WITHIN_SECONDS, every=0.01, what="the confirmation")
    confirmed_seconds = time.monotonic() - back
    assert not launchdarkly.config("checkout").on
    wait_until(lambda: unconfirmed_seconds(server) == 0, what="the series to say that nothing is open")
    log.info(
        "outage",
        status=status,
        seconds=OUTAGE_SECONDS,
        accepted_ms=round(accepted_seconds * 1000),
        attempts=attempts,
        unconfirmed_seconds=round(most, 1),
        confirmed_ms=round(confirmed_seconds * 1000),
    )
