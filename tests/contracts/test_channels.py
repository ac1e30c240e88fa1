"""The contract of every kind of channel that somebody outside receives."""

import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec.structs import replace

from controller.channels import KINDS, build
from controller.ports import Channel
from controller.settings import (
    EmailChannelSettings,
    LogChannelSettings,
    PagerDutyChannelSettings,
    SlackChannelSettings,
    WebhookChannelSettings,
)
from tests.contracts.channels_contract import IMPATIENT_SECONDS, PATIENT_SECONDS, ChannelContract
from tests.support.receivers import HttpReceiver, Received, Receiver, SmtpReceiver

WITHOUT_RECEIVER = {LogChannelSettings}
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ROUTING_KEY = "R0123456789ABCDEF0123456789ABCDE"
SLACK_PATH = "/services/T00000000/B00000000/keepThisForYourself"


class WallClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return 0.0


class HttpWorld:
    says_when = True

    def __init__(
        self,
        receiver: Receiver,
        secrets: Sequence[str],
        settings: WebhookChannelSettings | SlackChannelSettings | PagerDutyChannelSettings,
    ) -> None:
        self.receiver = receiver
        self.secrets = secrets
        self.channel: Channel = build("oncall", settings, WallClock())
        self.impatient = build("oncall", replace(settings, timeout_seconds=IMPATIENT_SECONDS), WallClock())

    async def close(self) -> None:
        await self.channel.close()
        await self.impatient.close()

    def identity(self, received: Received) -> str | None:
        return None

    def tells(self, received: Received) -> bool:
        return True

    def text(self, received: Received) -> str:
        return json.dumps(received.json, ensure_ascii=False).replace("&amp;", "&")


class WebhookWorld(HttpWorld):
    def identity(self, received: Received) -> str | None:
        return received.headers["webhook-id"]

    def text(self, received: Received) -> str:
        """Numbers are for machines here: as they are, and once more in the words of a person."""
        data = received.json["data"]
        rule = data["rule"]
        words = [f"{rule[name]:.3%}" for name in ("value", "limit", "baseline")] if rule else []
        who = f"{data['actor']} ({data['cause']})"
        sample = f"{rule['sample']} requests" if rule else ""
        named = f"{rule['policy']}/{rule['rule']}" if rule else ""
        told = " ".join([super().text(received), who, sample, named, *words])
        return told.replace("12.300%", "12.3 %").replace("10.000%", "10 %").replace("0.200%", "0.2 %")


class PagerDutyWorld(HttpWorld):
    def identity(self, received: Received) -> str | None:
        return str(received.json["dedup_key"])

    def tells(self, received: Received) -> bool:
        return bool(received.json.get("event_action") != "resolve")


class EmailWorld:
    says_when = False

    def __init__(self, receiver: SmtpReceiver, settings: EmailChannelSettings) -> None:
        self.receiver = receiver
        self.secrets: Sequence[str] = []
        self.channel: Channel = build("oncall", settings, WallClock())
        self.impatient = build("oncall", replace(settings, timeout_seconds=IMPATIENT_SECONDS), WallClock())

    async def close(self) -> None:
        await self.channel.close()
        await self.impatient.close()

    def identity(self, received: Received) -> str | None:
        return str(received.mail["Message-ID"])

    def tells(self, received: Received) -> bool:
        return True

    def text(self, received: Received) -> str:
        plain = received.mail.get_body(("plain",))
        assert plain is not None
        return f"{received.mail['Subject']}\n{plain.get_content()}"


class TestWebhook(ChannelContract):
    @pytest.fixture
    async def world(self, tmp_path: Path) -> AsyncIterator[WebhookWorld]:
        secret = written(tmp_path / "secret", SECRET)
        async with HttpReceiver().open() as receiver:
            address = f"{receiver.url}/hooks?token=tellNobodyOfThis"
            settings = WebhookChannelSettings(
                url_file=written(tmp_path / "address", address),
                secret_files=[secret],
                allow_private=True,
                timeout_seconds=PATIENT_SECONDS,
            )
            world = WebhookWorld(receiver, [SECRET, address, "tellNobodyOfThis"], settings)
            yield world
            await world.close()


class TestSlack(ChannelContract):
    @pytest.fixture
    async def world(self, tmp_path: Path) -> AsyncIterator[HttpWorld]:
        async with HttpReceiver().open() as receiver:
            settings = SlackChannelSettings(
                url_file=written(tmp_path / "address", receiver.url + SLACK_PATH),
                allow_private=True,
                timeout_seconds=PATIENT_SECONDS,
            )
            world = HttpWorld(receiver, [receiver.url + SLACK_PATH, SLACK_PATH], settings)
            yield world
            await world.close()


class TestPagerDuty(ChannelContract):
    @pytest.fixture
    async def world(self, tmp_path: Path) -> AsyncIterator[PagerDutyWorld]:
        async with HttpReceiver(takes=202).open() as receiver:
            settings = PagerDutyChannelSettings(
                routing_key_file=written(tmp_path / "key", ROUTING_KEY),
                url=receiver.url,
                allow_private=True,
                timeout_seconds=PATIENT_SECONDS,
            )
            world = PagerDutyWorld(receiver, [ROUTING_KEY], settings)
            yield world
            await world.close()


class TestEmail(ChannelContract):
    @pytest.fixture
    async def world(self) -> AsyncIterator[EmailWorld]:
        async with SmtpReceiver().open() as receiver:
            settings = EmailChannelSettings(
                host="127.0.0.1",
                port=receiver.port,
                security="none",
                sender="Rampart <rampart@acme.example>",
                to=["oncall@acme.example", "team@acme.example"],
                timeout_seconds=PATIENT_SECONDS,
            )
            world = EmailWorld(receiver, settings)
            yield world
            await world.close()


def written(path: Path, text: str) -> str:
    path.write_text(text + "\n")
    return str(path)


def test_every_kind_of_channel_is_under_the_contract() -> None:
    under = {WebhookChannelSettings, SlackChannelSettings, PagerDutyChannelSettings, EmailChannelSettings}
    assert set(KINDS) == under | WITHOUT_RECEIVER
