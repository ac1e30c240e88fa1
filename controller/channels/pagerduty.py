"""To PagerDuty, Events v2: a kill or a pause is an incident until it is over; everything else pages nobody."""

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec
import yarl

from controller.channels import outbound
from controller.channels.outbound import Outbound
from controller.domain import telling
from controller.domain.message import Message
from controller.ports import Clock
from controller.settings import PagerDutyChannelSettings

SUMMARY_CHARACTERS = 1024
DEDUP_KEY_CHARACTERS = 255

SEVERITIES: Mapping[str, str] = {
    "killed": "critical",
    "paused": "warning",
    "stepped_back": "warning",
    "approval": "info",
    "test": "info",
}
INCIDENTS: Mapping[str, str] = {"stepped_back": "paused"}
"""Both leave the rollout paused: one incident, which ends with that."""

_encoder = msgspec.json.Encoder()

Event = dict[str, Any]


class PagerDutyChannel:
    resolves = True

    def __init__(self, name: str, settings: PagerDutyChannelSettings, clock: Clock) -> None:
        self._settings = settings
        base = outbound.address(settings.url, f"channels.{name}.url")
        self._alerts, self._changes = base / "v2/enqueue", base / "v2/change/enqueue"
        self._outbound = Outbound(
            name, allow_private=settings.allow_private, timeout_seconds=settings.timeout_seconds
        )

    async def announce(self, message: Message) -> None:
        """Up to four requests. PagerDuty recognises those that come again, but for a change, which is the last."""
        (routing_key,) = await outbound.secrets_of(self._settings.routing_key_file)
        for event in self.alerts(message):
            await self._send(self._alerts, event, routing_key)
        if not message.only_ends and not self._pages(message):
            await self._send(self._changes, change(message), routing_key)

    async def close(self) -> None:
        await self._outbound.close()

    def alerts(self, message: Message) -> list[Event]:
        """The incident it opens, and those it ends, in this order: being paged must not wait for anything."""
        opened = [trigger(message)] if self._pages(message) and not message.only_ends else []
        ended = {INCIDENTS.get(event, event) for event in message.ends}
        if not self._settings.approvals:
            ended.discard("approval")
        return opened + [resolve(message, incident) for incident in sorted(ended)]

    def _pages(self, message: Message) -> bool:
        return message.event in SEVERITIES and (message.event != "approval" or self._settings.approvals)

    async def _send(self, url: yarl.URL, event: Event, routing_key: str) -> None:
        body = _encoder.encode({"routing_key": routing_key, **event})
        await self._outbound.post(url, body, {}, secrets=[routing_key])


def trigger(message: Message) -> Event:
    return {
        "event_action": "trigger",
        "dedup_key": dedup_key(message, INCIDENTS.get(message.event, message.event)),
        **_client(message),
        **_linked(message),
        "payload": {
            "severity": SEVERITIES[message.event],
            "class": message.event,
            "component": message.rollout or message.flag,
            "group": message.environment,
            **_payload(message),
        },
    }


def resolve(message: Message, incident: str) -> Event:
    return {"event_action": "resolve", "dedup_key": dedup_key(message, incident)}


def change(message: Message) -> Event:
    return {**_linked(message), "payload": _payload(message)}


def dedup_key(message: Message, incident: str) -> str:
    """The same for whatever opens and ends an incident: one for each flag and kind. A test is one of its own."""
    about = message.id if incident == "test" else message.flag
    key = f"rampart/{incident}/{about}"
    if len(key) <= DEDUP_KEY_CHARACTERS:
        return key
    return f"rampart/{incident}/{hashlib.sha256(about.encode()).hexdigest()}"


def _payload(message: Message) -> Event:
    summary = f"{telling.headline(message)} – {telling.one_line(telling.reason(message))}"
    return {
        "summary": telling.shortened(summary, SUMMARY_CHARACTERS),
        "source": message.flag or "rampart",
        "timestamp": message.at.isoformat(),
        "custom_details": {"Reason": telling.reason(message), **dict(telling.facts(message))},
    }


def _linked(message: Message) -> Event:
    return {"links": [{"href": link, "text": words} for words, link in telling.links(message)]}


def _client(message: Message) -> Event:
    link = dict(telling.links(message)).get(telling.ROLLOUT_LINK)
    return {"client": "Rampart"} | ({"client_url": link} if link else {})
