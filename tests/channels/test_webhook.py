"""What a receiver of webhooks can rely on, checked with the library of those who wrote the standard down."""

import base64
import json
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import standardwebhooks

from controller.channels.webhook import WebhookChannel
from controller.errors import SettingsError, Unavailable, Undeliverable
from controller.settings import WebhookChannelSettings
from tests.contracts.channels_contract import KILLED
from tests.support.receivers import Fault, HttpReceiver, Received


class WallClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return 0.0


def secret() -> str:
    return "whsec_" + base64.b64encode(os.urandom(32)).decode()


def verified(received: Received, key: str) -> object:
    return standardwebhooks.Webhook(key).verify(received.body, dict(received.headers))


class Receiving:
    def __init__(self, receiver: HttpReceiver, folder: Path) -> None:
        self.receiver = receiver
        self.old, self.new = secret(), secret()
        self.files = [folder / "new", folder / "old"]
        for file, key in zip(self.files, (self.new, self.old), strict=True):
            file.write_text(key + "\n")

    def channel(self, *files: Path) -> WebhookChannel:
        named = [str(file) for file in files or self.files[1:]]
        settings = WebhookChannelSettings(url=self.receiver.url + "/in", secret_files=named, allow_private=True)
        return WebhookChannel("ci", settings, WallClock())

    async def told(self, channel: WebhookChannel) -> Received:
        await channel.announce(KILLED)
        await channel.close()
        return self.receiver.taken[-1]


@pytest.fixture
async def receiving(tmp_path: Path) -> AsyncIterator[Receiving]:
    async with HttpReceiver().open() as receiver:
        yield Receiving(receiver, tmp_path)


async def test_the_signature_is_accepted_by_the_standard_library_of_receivers(receiving: Receiving) -> None:
    received = await receiving.told(receiving.channel())
    assert verified(received, receiving.old) == json.loads(received.body)
    assert received.headers["webhook-id"] == KILLED.id
    assert received.headers["Content-Type"] == "application/json"
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        verified(received, receiving.new)


async def test_while_a_secret_is_exchanged_receivers_with_either_believe_us(receiving: Receiving) -> None:
    received = await receiving.told(receiving.channel(*receiving.files))
    assert verified(received, receiving.old) == verified(received, receiving.new)


async def test_a_secret_is_exchanged_without_a_restart(receiving: Receiving) -> None:
    channel = receiving.channel()
    await channel.announce(KILLED)
    receiving.files[1].write_text(receiving.new)
    received = await receiving.told(channel)
    assert verified(received, receiving.new)


@pytest.mark.parametrize("field", ["body", "id", "timestamp"])
async def test_what_was_changed_on_the_way_is_not_believed(receiving: Receiving, field: str) -> None:
    received = await receiving.told(receiving.channel())
    changed = {
        "body": Received(received.path, received.headers, received.body.replace(b"killed", b"paused")),
        "id": Received(received.path, {**received.headers, "webhook-id": "another"}, received.body),
        "timestamp": Received(
            received.path,
            {**received.headers, "webhook-timestamp": str(int(received.headers["webhook-timestamp"]) + 1)},
            received.body,
        ),
    }[field]
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        verified(changed, receiving.old)


async def test_a_late_attempt_carries_its_own_time_and_the_event_keeps_its(receiving: Receiving) -> None:
    """Receivers refuse attempts that are older than a few minutes; a message may wait for hours."""
    received = await receiving.told(receiving.channel())
    at = datetime.fromtimestamp(int(received.headers["webhook-timestamp"]), UTC)
    assert abs(at - datetime.now(UTC)) < timedelta(minutes=1)
    assert received.json["timestamp"] == "2026-11-18T12:00:00Z"


async def test_the_body_is_what_the_page_promises(receiving: Receiving) -> None:
    received = await receiving.told(receiving.channel())
    assert (received.json["type"], received.json["version"]) == ("rollout.killed", 1)
    data = received.json["data"]
    assert data["rule"] == {
        "policy": "web",
        "rule": "errors-jump",
        "condition": "error_rate > 10%",
        "unit": "ratio",
        "value": 0.123,
        "limit": 0.1,
        "baseline": 0.002,
        "sample": 4120,
    }
    assert (data["rollout"], data["run"], data["exposure_percent"]) == ("checkout-v2", "checkout-v2#3", 0)


async def test_who_answers_gone_is_understood(receiving: Receiving) -> None:
    receiving.receiver.fault = Fault.ENDED
    with pytest.raises(Undeliverable, match="left alone"):
        await receiving.told(receiving.channel())


@pytest.mark.parametrize(
    "text", ["", "whsec_", "whsec_c2hvcnQ=", "plain words", "whsec_" + "é" * 40, "whsec_" + "A" * 100]
)
async def test_what_is_no_secret_signs_nothing_and_is_not_shown(receiving: Receiving, text: str) -> None:
    receiving.files[1].write_text(text)
    with pytest.raises(Unavailable) as caught:
        await receiving.told(receiving.channel())
    assert str(receiving.files[1]) in str(caught.value)
    assert len(text) < 7 or text not in str(caught.value)
    assert receiving.receiver.seen == []


async def test_a_secret_that_is_missing_is_waited_for(receiving: Receiving) -> None:
    receiving.files[1].unlink()
    channel = receiving.channel()
    with pytest.raises(Unavailable, match="cannot read the secret file"):
        await channel.announce(KILLED)
    receiving.files[1].write_text(receiving.old)
    assert await receiving.told(channel)


@pytest.mark.parametrize(
    "settings",
    [
        WebhookChannelSettings(secret_files=["/s"]),
        WebhookChannelSettings(secret_files=["/s"], url="https://a.example", url_file="/f"),
        WebhookChannelSettings(secret_files=[], url="https://a.example"),
        WebhookChannelSettings(secret_files=["/s"], url="ftp://a.example"),
    ],
)
def test_settings_that_lead_nowhere_stop_the_start(settings: WebhookChannelSettings) -> None:
    with pytest.raises(SettingsError, match=r"channels\.ci"):
        WebhookChannel("ci", settings, WallClock())
