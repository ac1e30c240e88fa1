"""JSON to any address, signed as Standard Webhooks say: its receiver can tell that it is ours and fresh."""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import datetime

import msgspec
import yarl
from msgspec import Struct

from controller.channels import outbound
from controller.channels.outbound import Outbound
from controller.domain import telling
from controller.domain.message import Message
from controller.errors import SettingsError, Unavailable
from controller.ports import Clock
from controller.settings import WebhookChannelSettings

SECRET_PREFIX = "whsec_"  # noqa: S105 - what secrets begin with
SECRET_BYTES = range(24, 65)
PLAIN_ID = re.compile(r"[A-Za-z0-9_#:-]{1,100}\Z")
"""What can stand in a header and in what is signed as it is."""

_encoder = msgspec.json.Encoder()


class Rule(Struct, frozen=True, kw_only=True):
    """The rule that decided. Numbers are in `unit`; ratios are 0 to 1; None where there is no such number."""

    policy: str
    rule: str
    condition: str
    unit: str
    value: float | None
    limit: float | None
    baseline: float | None
    sample: float | None


class Data(Struct, frozen=True, kw_only=True):
    """`exposure_percent` is in force from now on, or would be (`observed`); None where nothing was said of it.

    Links may be empty.
    """

    id: str
    sequence: int
    headline: str
    reason: str
    environment: str
    flag: str
    rollout: str | None
    run: str | None
    owner: str
    actor: str
    cause: str
    exposure_percent: float | None
    observed: bool
    rule: Rule | None
    link: str
    runbook: str


class Body(Struct, frozen=True, kw_only=True):
    """`version` counts changes after which a field means something else. New fields are no such change."""

    type: str
    version: int = 1
    timestamp: datetime
    data: Data


class WebhookChannel:
    resolves = False

    def __init__(self, name: str, settings: WebhookChannelSettings, clock: Clock) -> None:
        if bool(settings.url) == bool(settings.url_file):
            raise SettingsError(f"channels.{name} needs either url or url_file")
        if not settings.secret_files:
            raise SettingsError(f"channels.{name}.secret_files is empty: without a secret nothing can be signed")
        self._name = name
        self._settings = settings
        self._clock = clock
        self._url = outbound.address(settings.url, f"channels.{name}.url") if settings.url else None
        self._outbound = Outbound(
            name, allow_private=settings.allow_private, timeout_seconds=settings.timeout_seconds
        )

    async def announce(self, message: Message) -> None:
        url, address = await self._address()
        secrets = await outbound.secrets_of(*self._settings.secret_files)
        keys = [_key(secret, file) for secret, file in zip(secrets, self._settings.secret_files, strict=True)]
        body = _encoder.encode(body_of(message))
        headers = signed(message.id, self._clock.now(), body, keys)
        await self._outbound.post(url, body, headers, secrets=[*secrets, *address])

    async def close(self) -> None:
        await self._outbound.close()

    async def _address(self) -> tuple[yarl.URL, list[str]]:
        """And what of it is secret."""
        if self._url is not None:
            return self._url, outbound.secrets_in(self._url)
        return await outbound.secret_address(self._settings.url_file)


def body_of(message: Message) -> Body:
    """What is sent; docs/notifications.md promises it to receivers."""
    cited, links = message.cited, dict(telling.links(message))
    return Body(
        type="channel.test" if message.event == "test" else f"rollout.{message.event}",
        timestamp=message.at,
        data=Data(
            id=message.id,
            sequence=message.sequence,
            headline=telling.headline(message),
            reason=telling.reason(message),
            environment=message.environment,
            flag=message.flag,
            rollout=message.rollout,
            run=message.run,
            owner=message.owner,
            actor=message.actor,
            cause=message.cause,
            exposure_percent=None if message.exposure is None else message.exposure / 1000,
            observed=message.observed,
            rule=None
            if cited is None
            else Rule(
                policy=cited.policy,
                rule=cited.rule,
                condition=cited.condition,
                unit=cited.unit,
                value=cited.value,
                limit=cited.limit,
                baseline=cited.baseline,
                sample=cited.sample,
            ),
            link=links.get(telling.ROLLOUT_LINK, ""),
            runbook=links.get(telling.RUNBOOK_LINK, ""),
        ),
    )


def signed(message_id: str, at: datetime, body: bytes, keys: list[bytes]) -> Mapping[str, str]:
    """The three headers. `at` is the attempt's time: receivers refuse what is old."""
    known_by = message_id if PLAIN_ID.match(message_id) else hashlib.sha256(message_id.encode()).hexdigest()
    timestamp = str(int(at.timestamp()))
    content = b".".join([known_by.encode(), timestamp.encode(), body])
    signatures = [base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode() for key in keys]
    return {
        "webhook-id": known_by,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def _key(secret: str, file: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(SECRET_PREFIX) or len(key) not in SECRET_BYTES:
        raise Unavailable(f"{file} holds no secret: write {SECRET_PREFIX} and the base64 of 24 to 64 random bytes")
    return key
